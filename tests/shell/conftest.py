"""A real server for the whole directory, and shells at a terminal."""

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from shell_harness import ServerProcess, Terminal


@pytest.fixture(scope="session")
def shell_server() -> Iterator[str]:
    """The address of a server that the tests share; topics keep them apart."""
    process = ServerProcess()
    yield process.address
    assert process.stop() == 0


@pytest.fixture
def server(shell_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the shared server, which is also the default of what is run."""
    monkeypatch.setenv("MBCTL_SERVER", shell_server)
    return shell_server


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A state directory of the test's own, and no settings of whoever runs it."""
    for name in list(os.environ):
        if name.startswith("MBCTL_") or name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


_numbers = count(1)


@pytest.fixture
def topic() -> str:
    """The name of a topic that no other test uses, and that does not exist yet."""
    return f"topic-{next(_numbers)}"


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Open a terminal: ``terminal("publisher", "--name", "till-3", NO_COLOR="1")``."""
    opened = []

    def terminal(*args: str, columns: int = 80, out: Path | None = None, **env: str) -> Terminal:
        opened.append(Terminal(*args, env=env, columns=columns, out=out))
        return opened[-1]

    yield terminal
    for each in opened:
        each.close()
