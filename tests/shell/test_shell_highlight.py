"""The colours of a line: they come from the grammar, and change nothing of the text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbctl.shell.commands import KINDS, Kind
from mbctl.shell.highlight import LINE_LENGTH_MAX, highlight

CASES: list[tuple[Kind, str, list[tuple[str, str]]]] = [
    ("publisher", "topics", [("verb", "topics")]),
    (
        "publisher",
        "deleteTopic orders",
        [("verb", "deleteTopic"), ("", " "), ("operand", "orders")],
    ),
    (
        "publisher",
        "send --key k orders hi",
        [
            *(("verb", "send"), ("", " "), ("option", "--key"), ("", " "), ("value", "k")),
            *(("", " "), ("operand", "orders"), ("", " "), ("", "hi")),
        ],
    ),
    (
        "publisher",
        'send . {"a": 1}',
        [
            *(("verb", "send"), ("", " "), ("value", "."), ("", " "), ("", "{")),
            *(("json-key", '"a"'), ("", ": "), ("json-number", "1"), ("", "}")),
        ],
    ),
    ("publisher", "  # note", [("comment", "  # note")]),
    ("publisher", "topics # note", [("verb", "topics"), ("comment", " # note")]),
    ("publisher", "crateTopic", [("", "crateTopic")]),
    ("publisher", "crateTopic x", [("wrong", "crateTopic"), ("", " x")]),
    ("publisher", "pull orders", [("wrong", "pull"), ("", " orders")]),
    ("publisher", "topics --x", [("verb", "topics"), ("", " "), ("", "--x")]),
    ("publisher", "topics --x ", [("verb", "topics"), ("", " "), ("wrong", "--x"), ("", " ")]),
    (
        "subscriber",
        "pull -n none ",
        [("verb", "pull"), ("", " "), ("option", "-n"), ("", " "), ("wrong", "none"), ("", " ")],
    ),
]


@pytest.mark.parametrize(("kind", "line", "parts"), CASES, ids=[line for _, line, _ in CASES])
def test_line_is_coloured_by_what_its_parts_are(
    kind: Kind, line: str, parts: list[tuple[str, str]]
) -> None:
    assert highlight(kind, line, "orders") == parts


@given(kind=st.sampled_from(KINDS), rest=st.text(st.characters(exclude_categories=())))
def test_colours_change_nothing_of_the_text(kind: Kind, rest: str) -> None:
    for verb in ("", "send ", "pull ", "watch 1 ", "send --key "):
        line = verb + rest
        assert "".join(text for _, text in highlight(kind, line)) == line


def test_line_that_is_too_long_is_not_coloured() -> None:
    line = "send orders " + "x" * LINE_LENGTH_MAX
    assert highlight("publisher", line) == [("", line)]
