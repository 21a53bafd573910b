"""What a server may be told."""

from typing import Any

import pytest

from mbctl import InvalidArgument, MbctlError, NotSupported
from mbctl.model import MIB
from mbctl.server.options import ServerOptions, is_loopback, memory_bytes


def test_the_defaults_can_be_served() -> None:
    ServerOptions().check()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"port": -1}, InvalidArgument),
        ({"port": 65_536}, InvalidArgument),
        ({"max_bytes": MIB - 1}, InvalidArgument),
        ({"sync": "sometimes"}, NotSupported),
        ({"log_format": "xml"}, NotSupported),
        ({"host": "0.0.0.0"}, InvalidArgument),
        ({"host": ""}, InvalidArgument),
    ],
)
def test_what_cannot_be_served_is_refused(options: dict[str, Any], error: type[MbctlError]) -> None:
    with pytest.raises(error):
        ServerOptions(**options).check()


@pytest.mark.parametrize(
    "options", [{"port": 65_535}, {"max_bytes": MIB}, {"host": "0.0.0.0", "insecure": True}]
)
def test_what_can_be_served_is_not(options: dict[str, Any]) -> None:
    ServerOptions(**options).check()


@pytest.mark.parametrize(
    ("host", "is_it"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.1", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_loopback_is_known(host: str, is_it: bool) -> None:
    assert is_loopback(host) is is_it


def test_a_server_holds_a_quarter_of_the_memory_unless_told_otherwise() -> None:
    assert ServerOptions().bytes_limit == memory_bytes() // 4
    assert ServerOptions(max_bytes=5 * MIB).bytes_limit == 5 * MIB
    assert memory_bytes() > 64 * MIB
