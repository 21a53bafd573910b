"""The history file: what it keeps, for whom, and how much."""

import stat
from pathlib import Path

import pytest

from mbctl.shell import history
from mbctl.shell.history import LineHistory, path_for


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_history_is_there_in_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "mbctl" / "publisher_history"
    first = LineHistory(path)
    first.append("createTopic orders")
    first.append('send orders {"id": 1}\u2028\x0b \udcff\r')
    assert LineHistory(path).lines == first.lines
    assert len(first.lines) == 2


def test_history_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "mbctl" / "publisher_history"
    LineHistory(path).append("topics")
    assert _mode(path.parent) == 0o700
    assert _mode(path) == 0o600


def test_history_file_of_others_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "publisher_history"
    path.write_text("topics\n")
    path.chmod(0o644)
    LineHistory(path).append("status")
    assert _mode(path) == 0o600


def test_history_keeps_a_block_line_by_line(tmp_path: Path) -> None:
    lines = LineHistory(tmp_path / "h")
    assert lines.append("topics\n\nstatus") == ["topics", "status"]
    assert lines.lines == ["topics", "status"]


@pytest.mark.parametrize("line", ["", "   ", " send orders secret", "topics"])
def test_history_leaves_out_blanks_secrets_and_repetitions(tmp_path: Path, line: str) -> None:
    lines = LineHistory(tmp_path / "h")
    lines.append("topics")
    assert lines.append(line) == []
    assert (tmp_path / "h").read_text() == "topics\n"


def test_history_that_cannot_be_stored_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lines = LineHistory(tmp_path / "file" / "h")
    lines.append("topics")
    assert lines.lines == ["topics"]


def test_history_takes_a_line_that_no_file_can_hold(tmp_path: Path) -> None:
    lines = LineHistory(tmp_path / "h")
    lines.append("send orders \ud800")
    assert lines.lines == ["send orders \ud800"]


def test_long_history_is_cut_to_its_newest_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "LINES_MAX", 3)
    path = tmp_path / "h"
    path.write_text("a\nb\nc\nd\n")
    assert LineHistory(path).lines == ["b", "c", "d"]
    assert path.read_text() == "b\nc\nd\n"
    assert _mode(path) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["h"]


def test_large_history_is_cut_at_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "BYTES_MAX", 20)
    path = tmp_path / "h"
    path.write_text("first line\nsecond line\nthird\n")
    assert LineHistory(path).lines == ["third"]
    assert path.read_text() == "third\n"


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("/srv/state", "/srv/state"),
        ("", "/home/ann/.local/state"),
        ("rel", "/home/ann/.local/state"),
    ],
)
def test_history_lives_in_the_state_directory(
    state: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", state)
    monkeypatch.setenv("HOME", "/home/ann")
    assert path_for("subscriber") == Path(expected) / "mbctl" / "subscriber_history"
