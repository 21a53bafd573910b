"""The bottom line: what it shows, and what it gives up where it is narrow."""

import pytest

from mbctl.shell.toolbar import Toolbar
from mbctl.shell.verbs import VERBS

SEND = "send [--key K] [-H N=V] [--file F | --hex HEX] TOPIC MESSAGE"


def _line(columns: int, *, reachable: bool | None = True, syntax: str = "") -> str:
    return Toolbar("127.0.0.1:5555", reachable, "publisher till-3", syntax).line(columns)


def test_toolbar_shows_state_server_and_name() -> None:
    assert _line(80).rstrip() == " connected 127.0.0.1:5555  publisher till-3"


def test_toolbar_shows_the_syntax_on_the_right() -> None:
    line = _line(120, syntax=SEND)
    assert line.startswith(" connected 127.0.0.1:5555  publisher till-3  ")
    assert line.endswith(f"  {SEND} ")


def test_toolbar_of_80_columns_has_room_for_every_syntax() -> None:
    for verb in VERBS:
        line = _line(80, syntax=verb.syntax)
        assert verb.syntax in line
        assert "127.0.0.1:5555" in line


def test_toolbar_names_a_lost_connection_whatever_is_typed() -> None:
    assert _line(80, reachable=False, syntax=SEND).startswith(" no connection 127.0.0.1:5555  send")


def test_toolbar_says_that_it_does_not_know_yet() -> None:
    assert _line(80, reachable=None).startswith(" connecting 127.0.0.1:5555")


@pytest.mark.parametrize("reachable", [True, False, None])
@pytest.mark.parametrize("columns", [1, 10, 16, 17, 40, 79, 80, 81, 140])
@pytest.mark.parametrize("syntax", ["", "ack", SEND])
def test_toolbar_is_as_wide_as_the_terminal(
    columns: int, syntax: str, reachable: bool | None
) -> None:
    assert len(_line(columns, reachable=reachable, syntax=syntax)) == columns


def test_wide_toolbar_has_the_full_syntax_and_what_changes_by_itself() -> None:
    bar = Toolbar("127.0.0.1:5555", True, "subscriber billing", "pull", "pull [-n N]", "lag 3")
    assert bar.line(100).startswith(" connected 127.0.0.1:5555  subscriber billing  lag 3  ")
    assert bar.line(100).endswith("  pull [-n N] ")
    assert bar.line(40).endswith("  pull [-n N] ")
    assert bar.line(36).endswith("  pull ")
    assert all(len(bar.line(columns)) == columns for columns in range(1, 120))
