"""The pager: where there is a terminal that is too small, and only there."""

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbctl.actions.pager import show_in_pager

TALL, SHORT = "line\n" * 30, "line\n" * 3


@pytest.fixture(autouse=True)
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A keyboard, and a terminal of 24 lines."""
    controller, terminal = os.openpty()
    with open(terminal, "r+b", buffering=0) as stream:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))  # type: ignore[arg-type]
        for name, value in (("TERM", "xterm"), ("COLUMNS", "80"), ("LINES", "24")):
            monkeypatch.setenv(name, value)
        yield
    os.close(controller)


@pytest.fixture
def paged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pager was given."""
    given = tmp_path / "given"
    monkeypatch.setenv("PAGER", f"sh -c 'cat > {given}'")
    return given


def test_what_is_too_tall_is_paged(paged: Path) -> None:
    assert show_in_pager(TALL)
    assert paged.read_text() == TALL


def test_what_is_too_wide_counts_with_the_lines_it_takes(paged: Path) -> None:
    assert not show_in_pager("x" * 80 + "\n")
    assert show_in_pager("x" * 80 * 24 + "\n")
    assert not show_in_pager("\x1b[32mx\x1b[0m" * 80 + "\n")


def test_what_fits_is_not_paged(paged: Path) -> None:
    assert not show_in_pager(SHORT)
    assert not paged.exists()


@pytest.mark.parametrize("pager", ["", "cat", "'unbalanced", "/no/such/pager"])
def test_without_a_pager_nothing_is_paged(pager: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGER", pager)
    assert not show_in_pager(TALL)


@pytest.mark.parametrize("kind", ["dumb", "unknown"])
def test_terminal_that_cannot_move_has_no_pager(
    kind: str, paged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", kind)
    assert not show_in_pager(TALL)


def test_without_a_keyboard_nothing_is_paged(paged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert not show_in_pager(TALL)
