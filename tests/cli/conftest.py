"""A real server for the whole directory, and the command line run in this process."""

import io
import os
import sys
from collections.abc import Iterator
from itertools import count

import pytest
from cli_harness import Ended, Run, ServerProcess

from mbctl.cli import main


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server that the tests share; topics keep them apart."""
    process = ServerProcess()
    yield process.address
    assert process.stop() == 0


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    for name in list(os.environ):
        if name.startswith("MBCTL_") or name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    if "server" in request.fixturenames:
        monkeypatch.setenv("MBCTL_SERVER", request.getfixturevalue("server"))


_numbers = count(1)


@pytest.fixture
def topic() -> str:
    """The name of a topic that no other test uses, and that does not exist yet."""
    return f"topic-{next(_numbers)}"


@pytest.fixture
def run(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process: ``run("send", "orders", "hi", stdin=b"")``."""

    def run(*args: str, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsysbinary.readouterr()
        code = main(args)
        out, err = capsysbinary.readouterr()
        return Ended(code, out, err.decode())

    return run
