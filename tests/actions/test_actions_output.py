"""Every answer in every form: what goes to stdout, what to stderr, and how it looks."""

import io
import json
import os
from typing import Any

import pytest

from mbctl.actions.output import FORMS, TABLE_ROWS_MAX, Colour, Column, Form, Output
from mbctl.errors import TopicNotFound

COLUMNS = (
    Column("topic", "TOPIC"),
    Column("messages", "MESSAGES", "count"),
    Column("bytes", "SIZE", "size"),
    Column("next_offset", "NEXT", "number"),
    Column("created", "CREATED", "time"),
    Column("last_pull", "LAST PULL", "ago"),
    Column("durable", "DURABLE"),
)
ROW = {
    "topic": "orders",
    "messages": 12345,
    "bytes": 2048,
    "next_offset": 99999,
    "created": 1_700_000_000_123_456_789,
    "last_pull": None,
    "durable": True,
}
HOSTILE = "\x1b]0;pwn\x07[bold]\u202e\n\t"


class Stream(io.TextIOWrapper):
    """A text stream in memory that may say it is a terminal."""

    def __init__(self, *, terminal: bool = False, encoding: str = "utf-8") -> None:
        self.written = io.BytesIO()
        super().__init__(self.written, encoding=encoding, write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def text(self) -> str:
        self.flush()
        return self.written.getvalue().decode()


class Shown:
    """An output on streams that can be read back."""

    def __init__(
        self,
        form: Form = "auto",
        *,
        terminal: bool = False,
        color: Colour = "never",
        encoding: str = "utf-8",
        **settings: bool,
    ) -> None:
        self.out = Stream(terminal=terminal, encoding=encoding)
        self.err = Stream(terminal=terminal)
        self.output = Output(form, color=color, stdout=self.out, stderr=self.err, **settings)


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_a_list_off_a_terminal_is_rows_of_exact_values_between_tabs() -> None:
    shown = Shown()
    shown.output.rows(COLUMNS, [ROW, {**ROW, "topic": "b"}], empty="none")
    assert shown.out.text == (
        "orders\t12345\t2048\t99999\t2023-11-14T22:13:20.123456789Z\t\ttrue\n"
        "b\t12345\t2048\t99999\t2023-11-14T22:13:20.123456789Z\t\ttrue\n"
    )
    assert shown.err.text == ""


def test_a_list_as_json_is_one_array() -> None:
    shown = Shown("json")
    shown.output.rows(COLUMNS, [ROW, ROW])
    read = json.loads(shown.out.text)
    assert read == [{**ROW, "created": "2023-11-14T22:13:20.123456789Z"}] * 2


def test_an_empty_list_as_json_is_an_empty_array_and_says_nothing() -> None:
    shown = Shown("json", terminal=True)
    shown.output.rows(COLUMNS, [], empty="no topics")
    assert json.loads(shown.out.text) == []
    assert shown.err.text == ""


def test_a_list_as_jsonl_is_an_object_on_each_line() -> None:
    shown = Shown("jsonl")
    shown.output.rows(COLUMNS, [ROW, ROW])
    assert [json.loads(line)["topic"] for line in shown.out.text.splitlines()] == ["orders"] * 2


def test_a_list_on_a_terminal_is_a_table_for_people() -> None:
    shown = Shown(terminal=True)
    shown.output.rows(COLUMNS, [ROW])
    head, rule, row = shown.out.text.splitlines()
    assert head.split()[:4] == ["TOPIC", "MESSAGES", "SIZE", "NEXT"]
    assert set(rule) <= {"─", " "}
    assert row.split()[:5] == ["orders", "12,345", "2.0", "KiB", "99999"]
    assert row.split()[-2:] == ["never", "yes"]


def test_an_empty_list_on_a_terminal_is_a_word_on_stderr() -> None:
    shown = Shown(terminal=True)
    shown.output.rows(COLUMNS, [], empty="no topics")
    assert (shown.out.text, shown.err.text) == ("", "no topics\n")


def test_a_table_off_a_terminal_is_as_wide_as_it_must_be() -> None:
    shown = Shown("table")
    shown.output.rows(COLUMNS, [{**ROW, "topic": "x" * 200}])
    assert "x" * 200 in shown.out.text


def test_a_table_narrower_than_its_text_folds_it_and_loses_nothing() -> None:
    shown = Shown(terminal=True)
    names = "".join(chr(ord("a") + i % 26) for i in range(120))
    shown.output.rows((Column("topic", "TOPIC"), Column("name", "NAME")), [{"topic": names}])
    first_column = "".join(line.split(" ")[0] for line in shown.out.text.splitlines()[2:])
    assert first_column == names
    assert max(map(len, shown.out.text.splitlines())) <= 80


@pytest.mark.parametrize("count", [1, TABLE_ROWS_MAX + 1])
def test_a_table_that_does_not_fit_is_a_block_for_each_row(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    shown = Shown(terminal=True)
    shown.output.rows(COLUMNS, [ROW] * count)
    blocks = shown.out.text.rstrip("\n").split("\n\n")
    assert len(blocks) == count
    titles = [line.split("  ")[0].strip() for line in blocks[0].splitlines()]
    assert titles == [column.title for column in COLUMNS]
    assert blocks[0].splitlines()[0].endswith("  orders")


def test_a_long_table_is_aligned_lines_without_rich() -> None:
    shown = Shown(terminal=True)
    shown.output.rows(COLUMNS, [ROW] * (TABLE_ROWS_MAX + 1))
    lines = shown.out.text.splitlines()
    assert len(lines) == TABLE_ROWS_MAX + 2
    assert lines[0].index("MESSAGES") == lines[1].index("12,345")


@pytest.mark.parametrize("form", ["auto", "table"])
@pytest.mark.parametrize("rows", [1, TABLE_ROWS_MAX + 1])
@pytest.mark.parametrize("terminal", [True, False])
def test_what_others_wrote_is_escaped_and_never_markup(
    form: Form, rows: int, terminal: bool
) -> None:
    shown = Shown(form, terminal=terminal)
    shown.output.rows((Column("topic", "TOPIC"),), [{"topic": HOSTILE}] * rows)
    shown.output.record((Column("topic", "Topic"),), {"topic": HOSTILE})
    assert shown.out.text.count("\\x1b]0;pwn\\x07[bold]\\u202e\\n\\t") == rows + 1
    assert not set("\x1b\x07\u202e") & set(shown.out.text)


def test_a_record_for_people_is_a_line_for_each_value() -> None:
    shown = Shown(terminal=True)
    shown.output.record(COLUMNS[:3], ROW)
    assert shown.out.text == "TOPIC     orders\nMESSAGES  12,345\nSIZE      2.0 KiB\n"


def test_a_record_off_a_terminal_is_names_and_exact_values() -> None:
    shown = Shown()
    shown.output.record(COLUMNS[:3], ROW)
    assert shown.out.text == "topic\torders\nmessages\t12345\nbytes\t2048\n"


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_a_record_as_json_is_one_object_on_one_line(form: Form) -> None:
    shown = Shown(form)
    shown.output.record(COLUMNS, ROW)
    assert json.loads(shown.out.text)["messages"] == 12345
    assert shown.out.text.count("\n") == 1


def test_done_is_a_sentence_for_people_and_values_for_programs() -> None:
    row = {"topic": "orders", "offset": 7, "count": 1}
    people, program, lines = Shown(terminal=True), Shown(), Shown("json")
    for shown in (people, program, lines):
        shown.output.done(row, "orders #7")
    assert people.out.text == "orders #7\n"
    assert program.out.text == "orders\t7\t1\n"
    assert json.loads(lines.out.text) == row


def test_quiet_drops_notes_and_confirmations_and_nothing_else() -> None:
    shown = Shown(terminal=True, quiet=True)
    shown.output.done({"topic": "orders"}, "created topic orders")
    shown.output.note("by the way")
    shown.output.rows(COLUMNS, [ROW])
    shown.output.error(TopicNotFound(topic="x"))
    assert "created" not in shown.out.text
    assert "orders" in shown.out.text
    assert shown.err.text.startswith("error: topic 'x' does not exist")


def test_quiet_leaves_json_answers_whole() -> None:
    shown = Shown("json", quiet=True)
    shown.output.done({"topic": "orders"}, "created topic orders")
    assert json.loads(shown.out.text) == {"topic": "orders"}


def test_details_are_for_the_curious() -> None:
    curious, plain = Shown(verbose=True), Shown()
    for shown in (curious, plain):
        shown.output.detail("took 3 ms")
    assert (curious.err.text, plain.err.text) == ("took 3 ms\n", "")


def test_an_error_is_one_line_of_what_happened_and_what_to_do() -> None:
    shown = Shown()
    shown.output.error(TopicNotFound(topic="ordres"))
    assert shown.err.text == (
        "error: topic 'ordres' does not exist; create it with: mbctl topic create ordres\n"
    )
    assert shown.out.text == ""


def test_an_error_names_its_place_and_takes_a_better_hint() -> None:
    shown = Shown()
    shown.output.error(TopicNotFound(topic="x"), place="run.mb:3", hint="did you mean 'y'?")
    assert shown.err.text == "run.mb:3: error: topic 'x' does not exist; did you mean 'y'?\n"


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_an_error_with_json_comes_with_an_object_below_it(form: Form) -> None:
    shown = Shown(form)
    shown.output.error(TopicNotFound(topic="x"))
    line, report = shown.err.text.splitlines()
    assert line.startswith("error: topic 'x'")
    assert json.loads(report) == {
        "error": {
            "code": "TopicNotFound",
            "message": "topic 'x' does not exist",
            "hint": "create it with: mbctl topic create x",
        }
    }


def test_an_error_cannot_steer_the_terminal() -> None:
    shown = Shown(terminal=True)
    shown.output.failure("Unexpected", HOSTILE)
    assert shown.err.text == "error: \\x1b]0;pwn\\x07[bold]\\u202e\\n\\t\n"


def test_an_error_comes_after_what_was_shown_before_it() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as both:
        output = Output(stdout=both, stderr=both)
        output.write_text("first\n")
        output.error(TopicNotFound(topic="x"))
    with os.fdopen(read) as written:
        assert written.readline() == "first\n"


@pytest.mark.parametrize(
    ("color", "environment", "terminal", "expected"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"TERM": "dumb"}, True, False),
        ("always", {"NO_COLOR": "1", "TERM": "dumb"}, False, True),
        ("never", {}, True, False),
    ],
)
def test_colour_is_used_where_it_is_wanted(
    color: Colour,
    environment: dict[str, str],
    terminal: bool,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    shown = Shown("table", terminal=terminal, color=color)
    shown.output.rows(COLUMNS, [ROW])
    shown.output.error(TopicNotFound(topic="x"))
    assert ("\x1b[" in shown.out.text, "\x1b[" in shown.err.text) == (expected, expected)


def test_text_that_the_terminal_cannot_encode_is_shown_as_its_code() -> None:
    shown = Shown(terminal=True, encoding="ascii")
    shown.output.rows((Column("topic", "TOPIC"),), [{"topic": "東"}])
    assert "\\u6771" in shown.out.text


def test_json_is_utf8_whatever_the_terminal_is() -> None:
    shown = Shown("json", encoding="ascii")
    shown.output.done({"topic": "東"}, "")
    assert shown.out.written.getvalue() == '{"topic":"東"}\n'.encode()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_writes_to_a_stream_without_bytes(form: Form) -> None:
    out, err = io.StringIO(), io.StringIO()
    output = Output(form, stdout=out, stderr=err)
    output.rows(COLUMNS, [ROW])
    assert "orders" in out.getvalue()


def test_a_closed_stderr_does_not_hide_what_the_command_did() -> None:
    read, write = os.pipe()
    os.close(read)
    out = Stream()
    # Line buffering off, so that nothing is left to complain about at the close.
    with os.fdopen(write, "wb", buffering=0) as raw:
        err: Any = io.TextIOWrapper(raw, write_through=True)
        output = Output(stdout=out, stderr=err)
        output.note("lost")
        output.done({"topic": "orders"}, "")
        err.detach()
    assert out.text == "orders\n"
