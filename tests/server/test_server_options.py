"""What a server may be told."""

import os
from pathlib import Path
from typing import Any

import pytest

from mbctl import InvalidArgument, MbctlError, NotSupported
from mbctl.model import MIB
from mbctl.server.options import ServerOptions, default_directory, is_loopback, memory_bytes


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
        ({"data": ""}, InvalidArgument),
        ({"data": 5}, InvalidArgument),
        ({"port": "5555"}, InvalidArgument),
        ({"max_bytes": "1G"}, InvalidArgument),
        ({"memory": 5}, InvalidArgument),
        ({"memory": True, "data": "d"}, InvalidArgument),
        ({"memory": True, "sync": "always"}, InvalidArgument),
        ({"memory": True, "sync": "never"}, InvalidArgument),
    ],
)
def test_what_cannot_be_served_is_refused(options: dict[str, Any], error: type[MbctlError]) -> None:
    with pytest.raises(error):
        ServerOptions(**options).check()


@pytest.mark.parametrize(
    "options",
    [
        {"port": 65_535},
        {"max_bytes": MIB},
        {"host": "0.0.0.0", "insecure": True},
        {"data": "d", "sync": "never"},
        {"memory": True, "max_bytes": MIB},
    ],
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


def test_a_server_in_memory_holds_a_quarter_of_it_unless_told_otherwise() -> None:
    assert ServerOptions(memory=True).bytes_limit == memory_bytes() // 4
    assert ServerOptions(memory=True, max_bytes=5 * MIB).bytes_limit == 5 * MIB
    assert memory_bytes() > 64 * MIB


def test_a_server_on_disk_leaves_its_bound_to_the_disk_unless_told_otherwise() -> None:
    assert ServerOptions().bytes_limit is None
    assert ServerOptions(max_bytes=5 * MIB).bytes_limit == 5 * MIB


def test_data_is_where_it_is_said_else_where_the_users_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert ServerOptions(memory=True).data_directory is None
    assert ServerOptions(data="d").data_directory == tmp_path / "d"
    assert ServerOptions(data="link").data_directory == tmp_path / "real"
    assert ServerOptions().data_directory == default_directory()


def test_the_users_data_directory_is_not_touched_by_tests() -> None:
    assert default_directory() == Path(os.environ["XDG_DATA_HOME"]) / "mbctl"
    assert default_directory() == Path(os.environ["MBCTL_DATA"])
