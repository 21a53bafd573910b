"""What was sent is there after the server has stopped and started, by the command line alone."""

import re
import stat
from pathlib import Path

import pytest
from broker_process import READY
from cli_harness import Command, Ended, Run

from mbctl.server import ServerOptions


def serve(monkeypatch: pytest.MonkeyPatch, *options: str) -> Command:
    """A server of which the following commands are clients."""
    command = Command("server", "--port", "0", *options)
    line = command.read_line().decode()
    assert line.startswith(READY)
    monkeypatch.setenv("MBCTL_SERVER", line.removeprefix(READY).strip())
    return command


def stop(command: Command) -> Ended:
    """Press Ctrl-C and wait."""
    command.interrupt()
    return command.end()


def test_what_was_sent_is_pulled_after_a_restart(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBCTL_DATA", str(tmp_path / "data"))
    with serve(monkeypatch) as first:
        assert run("topic", "create", "orders").code == 0
        assert run("subscribe", "orders", "--name", "billing").code == 0
        assert run("send", "orders", "one").code == 0
        assert run("send", "orders", "two").code == 0
        assert run("pull", "orders", "--name", "billing", "-n", "1", "-o", "raw").out == b"one\n"
        ended = stop(first)
    assert (ended.code, ended.out) == (0, b"")
    assert "memory" not in ended.err
    with serve(monkeypatch) as second:
        assert run("pull", "orders", "--name", "billing", "-o", "raw").out == b"two\n"
        assert run("send", "orders", "three", "-o", "json").json["offset"] == 2
        status = run("status", "-o", "json").json
        assert (status["durability"], status["topics"]) == ("always", 1)
        assert status["syncs"] > 0
        assert stop(second).code == 0


def test_memory_is_forgotten_and_goes_before_the_environment(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBCTL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MBCTL_SYNC", "never")
    for _ in range(2):
        with serve(monkeypatch, "--memory") as server:
            assert run("topic", "list", "-o", "json").json == []
            assert run("topic", "create", "orders").code == 0
            assert run("topic", "show", "orders", "-o", "json").json["durability"] == "memory"
            assert stop(server).code == 0
    assert not (tmp_path / "data").exists()


def test_data_goes_before_the_environment(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBCTL_DATA", str(tmp_path / "one"))
    monkeypatch.setenv("MBCTL_SYNC", "always")
    with serve(monkeypatch, "--data", str(tmp_path / "two"), "--sync", "never") as server:
        assert run("status", "-o", "json").json["durability"] == "never"
        assert stop(server).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["two"]
    assert stat.S_IMODE((tmp_path / "two").stat().st_mode) == 0o700


def test_the_default_is_the_users_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    with serve(monkeypatch) as server:
        assert stop(server).code == 0
    assert (tmp_path / "share" / "mbctl" / "FORMAT").exists()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), ServerOptions()),
        (("--data", "d", "--sync", "never"), ServerOptions(data="d", sync="never")),
        (("--max-bytes", "2G"), ServerOptions(max_bytes=2 << 30)),
        (("--memory",), ServerOptions(memory=True)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_options_reach_the_server_as_they_were_said(
    args: tuple[str, ...], expected: ServerOptions, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[ServerOptions] = []
    monkeypatch.setattr("mbctl.server.run", lambda options: asked.append(options) or 0)
    assert run("server", *args).code == 0
    assert asked == [expected]


def test_help_promises_nothing_that_is_not_there(run: Run) -> None:
    text = re.sub(r"\s+", " ", run("server", "--help").out.decode())
    assert "Messages are kept in a directory and are there again after a restart" in text
    assert "for now" not in text.lower()
