"""The command line, run in this process, with no settings but those of the test."""

import io
import os
import sys

import pytest
from broker_process import BrokerProcess
from cli_harness import Ended, Run

from mbctl.cli import main


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MBCTL_") or name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def server(shared_broker: BrokerProcess, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the shared server, which is also the default of what is run."""
    monkeypatch.setenv("MBCTL_SERVER", shared_broker.address)
    return shared_broker.address


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
