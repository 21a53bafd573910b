"""What the tests of durability share: the programs of scripts/crashes, and places to break."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from crashes.processes import Server  # noqa: E402
from crashes.server import Settings  # noqa: E402
from durability_parts import StartServer  # noqa: E402


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start a server on ``tmp_path / "data"``: ``start_server(sync_ms=100)`` and the like.

    ``is_awaited=False`` does not wait until it is ready. All are killed at the end.
    """
    started: list[Server] = []

    def start(*wrapper: str, is_awaited: bool = True, **settings: object) -> Server:
        settings.setdefault("data", str(tmp_path / "data"))
        server = Server(Settings(**settings), wrapper)  # type: ignore[arg-type]
        started.append(server)
        if is_awaited:
            assert server.wait_ready(), server.log
        return server

    yield start
    for server in started:
        server.close()


@pytest.fixture(scope="session")
def strace() -> str:
    """The strace command, installed if it is missing and that can be done."""
    if shutil.which("strace") is None and os.geteuid() == 0:
        install = ["apt-get", "install", "--yes", "--quiet", "strace"]
        subprocess.run(["apt-get", "update", "--quiet"], check=False, capture_output=True)
        subprocess.run(install, check=False, capture_output=True)
    found = shutil.which("strace")
    assert found is not None, "these tests need strace: apt-get install strace"
    return found
