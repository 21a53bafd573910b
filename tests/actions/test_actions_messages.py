"""Messages in every form: exact where it is promised, safe and on one line elsewhere."""

import io
import json
from base64 import b64encode
from collections.abc import Callable

import pytest

from mbctl import batch as batches
from mbctl.actions.messages import LINE_LENGTH_MAX
from mbctl.actions.output import Form, Output
from mbctl.client.messages import Batch
from mbctl.wire.messages import Piece, Pulled

TIME_NS = 1_700_000_000_123_456_789
PAYLOADS = [b"one", b"", b"\xff\x00\n", "tab\there 東".encode(), b'{"a": "b\\n"}\r']
HOSTILE = b"\x1b]0;pwn\x07[bold]\xe2\x80\xae\n\t"


def batch_of(
    payloads: list[bytes],
    *,
    keys: list[bytes | None] | None = None,
    headers: list[dict[str, str] | None] | None = None,
    deliveries: int = 1,
) -> Batch:
    """A batch as the server would have answered it. Nothing here settles it."""
    columns = batches.read(batches.encode(payloads, keys, headers))
    piece = Piece(first=40, timestamp=TIME_NS, deliveries=deliveries, batch=columns)
    pieces = [piece] if payloads else []
    return Batch(None, "orders", Pulled(1, 1, 0, pieces))  # type: ignore[arg-type]


class Terminal(io.StringIO):
    """Text in memory that says it is a terminal."""

    def isatty(self) -> bool:
        return True


Show = Callable[..., bytes]


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Show:
    """What batches look like in a form."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def show(form: Form, *written: Batch, one_by_one: bool = False) -> bytes:
        out = io.TextIOWrapper(io.BytesIO(), write_through=True)
        with Output(form, stdout=out).messages() as writer:
            for batch in written:
                if one_by_one:
                    for message in batch:
                        writer.write_one(message)
                else:
                    writer.write(batch)
        buffer = out.detach()
        return buffer.getvalue()

    return show


def on_terminal(batch: Batch, *, color: bool = False, verbose: bool = False) -> str:
    out = Terminal()
    output = Output(color="always" if color else "never", verbose=verbose, stdout=out)
    with output.messages() as writer:
        writer.write(batch)
    return out.getvalue()


@pytest.mark.parametrize("one_by_one", [False, True])
def test_raw_is_each_payload_as_it_is_and_a_newline(show: Show, one_by_one: bool) -> None:
    shown = show("raw", batch_of(PAYLOADS), batch_of([b"last"]), one_by_one=one_by_one)
    assert shown == b"".join(payload + b"\n" for payload in [*PAYLOADS, b"last"])


@pytest.mark.parametrize("form", ["raw", "auto", "jsonl"])
def test_nothing_is_shown_as_nothing(show: Show, form: Form) -> None:
    assert show(form, batch_of([])) == b""


def test_no_messages_as_json_are_an_empty_array(show: Show) -> None:
    assert json.loads(show("json")) == []
    assert json.loads(show("json", batch_of([]))) == []


@pytest.mark.parametrize("one_by_one", [False, True])
def test_json_is_one_array_over_all_batches(show: Show, one_by_one: bool) -> None:
    shown = show("json", batch_of(PAYLOADS), batch_of([]), batch_of([b"x"]), one_by_one=one_by_one)
    assert [m["offset"] for m in json.loads(shown)] == [40, 41, 42, 43, 44, 40]


def test_json_of_a_message_has_the_names_of_the_contract(show: Show) -> None:
    batch = batch_of([b"hi"], keys=[b"k"], headers=[{"type": "new"}], deliveries=3)
    assert json.loads(show("jsonl", batch)) == {
        "topic": "orders",
        "offset": 40,
        "timestamp": "2023-11-14T22:13:20.123456789Z",
        "key": "k",
        "key_encoding": "utf-8",
        "headers": {"type": "new"},
        "payload": "hi",
        "encoding": "utf-8",
        "deliveries": 3,
    }


def test_json_of_bytes_that_are_not_text_is_base64(show: Show) -> None:
    read = json.loads(show("jsonl", batch_of([b"\xff\n"], keys=[b"\x80"])))
    assert (read["payload"], read["encoding"]) == (b64encode(b"\xff\n").decode(), "base64")
    assert (read["key"], read["key_encoding"]) == (b64encode(b"\x80").decode(), "base64")


def test_json_of_a_message_without_extras_keeps_all_names(show: Show) -> None:
    read = json.loads(show("jsonl", batch_of([b""])))
    assert (read["key"], read["key_encoding"], read["headers"]) == (None, None, {})
    assert read["payload"] == ""


def test_jsonl_is_one_line_for_each_message_whatever_it_holds(show: Show) -> None:
    lines = show("jsonl", batch_of(PAYLOADS), batch_of(PAYLOADS)).decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line)["offset"] for line in lines] == [40, 41, 42, 43, 44] * 2


def test_tabs_part_the_values_of_a_message_and_never_stand_in_one(show: Show) -> None:
    batch = batch_of([HOSTILE, b"two"], keys=[b"k\t1", None], headers=[{"a": "b\tc"}, None])
    first, second = show("auto", batch).decode().splitlines()
    assert first.split("\t") == [
        "orders",
        "40",
        "2023-11-14T22:13:20.123456789Z",
        "1",
        "k\\t1",
        '{"a":"b\\tc"}',
        "\\x1b]0;pwn\\x07[bold]\\u202e\\n\\t",
    ]
    assert second.split("\t")[4:] == ["", "", "two"]


def test_a_message_on_a_terminal_is_one_line_with_all_about_it() -> None:
    batch = batch_of([b'{"id": 1}'], keys=[b"k"], headers=[{"type": "new", "n": "1"}], deliveries=2)
    assert on_terminal(batch).endswith(
        '.123 orders #40 key=k type=new n=1 (delivery 2) {"id": 1}\n'
    )


def test_a_plain_message_on_a_terminal_shows_only_what_there_is() -> None:
    assert on_terminal(batch_of([b"hi"])).endswith(".123 orders #40 hi\n")


def test_colour_steps_back_for_what_the_broker_added() -> None:
    shown = on_terminal(batch_of([b"hi"]), color=True)
    assert shown.startswith("\x1b[2m")
    assert shown.endswith("orders #40\x1b[0m hi\n")


def test_a_hostile_message_cannot_steer_the_terminal() -> None:
    batch = batch_of([HOSTILE], keys=[HOSTILE], headers=[{"x\x1b": "\x1b"}])
    shown = on_terminal(batch)
    assert shown.count("\n") == 1
    assert not set("\x1b\x07\u202e\t") & set(shown)


def test_a_long_payload_is_clipped_on_a_terminal_unless_verbose() -> None:
    batch = batch_of([b"x" * (LINE_LENGTH_MAX + 5)])
    assert on_terminal(batch).endswith("x…(+5 characters)\n")
    assert on_terminal(batch, verbose=True).endswith("x" * (LINE_LENGTH_MAX + 5) + "\n")


def test_a_long_payload_is_whole_off_a_terminal(show: Show) -> None:
    assert b"x" * 10_000 in show("auto", batch_of([b"x" * 10_000]))


def test_an_array_cut_short_is_still_an_array() -> None:
    out = io.StringIO()

    def show_until_interrupted() -> None:
        with Output("json", stdout=out).messages() as writer:
            writer.write(batch_of([b"one"]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        show_until_interrupted()
    assert [m["payload"] for m in json.loads(out.getvalue())] == ["one"]
