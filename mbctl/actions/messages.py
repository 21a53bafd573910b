"""How pulled messages look, in every form, many at a time."""

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from mbctl.actions import payloads, text
from mbctl.actions.formats import Format
from mbctl.actions.output import Output

if TYPE_CHECKING:
    from mbctl.client.pulled import PulledBatch, PulledMessage

    Batch = PulledBatch[Any]
    Message = PulledMessage[Any]

LINE_LENGTH_MAX = 500
"""Characters of a payload in the view of a line for each, unless asked for more: so many that
the other messages stay on the screen. Arbitrary, as the next."""

FULL_LENGTH_MAX = 4_000
"""Characters of a payload where a message is shown in full; two screens."""

_FULL_WIDTH = 80
"""Columns of a message in full where there is no terminal to ask."""

_encoder = msgspec.json.Encoder()


class Look(msgspec.Struct, frozen=True):
    """How messages are to be shown, beside the form of all output.

    ``template`` says what of each is written; ``full`` shows each on lines of its own, with
    its headers, JSON folded and binary as hex.
    """

    template: Format | None = None
    full: bool = False


PLAIN = Look()


class MessageWriter:
    """Writes messages to an ``Output`` as they come; a context that ends the JSON array.

    Nothing is flushed before ``flush``, so that the caller decides when messages count as
    shown.
    """

    def __init__(self, output: Output, look: Look = PLAIN) -> None:
        self._output = output
        self._look = look
        self._form = "auto" if look.template is not None else output.form
        self._number = 0
        self._any = False
        self._now_ns = time.time_ns()
        self._line_length_max = None if output.verbose else LINE_LENGTH_MAX

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # An array that Ctrl-C or a lost server cut short is still an array.
        if self._form == "json" and kind is not BrokenPipeError:
            self._output.write(b"\n]\n" if self._any else b"[]\n")
            self._output.flush()

    def write(self, batch: "Batch") -> None:
        """Write all messages of a batch, in order."""
        if self._output.recent is not None:
            self._output.recent.extend(batch)
        if self._form == "raw":
            payloads = batch.payloads
            if payloads:
                self._output.write(b"\n".join(payloads) + b"\n")
        else:
            self._write_all(batch)

    def write_one(self, message: "Message") -> None:
        """Write a single message."""
        if self._output.recent is not None:
            self._output.recent.append(message)
        if self._form == "raw":
            self._output.write(message.payload + b"\n")
        else:
            self._write_all((message,))

    def flush(self) -> None:
        """Return when all messages written so far have left this process."""
        self._output.flush()

    def _write_all(self, messages: Iterable["Message"]) -> None:
        output = self._output
        if self._look.template is not None:
            self._write_template(self._look.template, messages)
        elif output.as_json:
            self._write_objects([as_json(message) for message in messages])
        elif output.for_people or self._look.full:
            self._now_ns = time.time_ns()
            show = self._in_full if self._look.full else self._line
            output.write_text("".join([show(message) for message in messages]))
        else:
            output.write_text("".join([_tab_line(message) for message in messages]))

    def _write_objects(self, objects: "list[JsonMessage]") -> None:
        if not objects:
            return
        # JSON has no newline inside a value, so each one here ends an object.
        lines = _encoder.encode_lines(objects)
        if self._form == "jsonl":
            self._output.write(lines)
        else:
            separated = lines[:-1].replace(b"\n", b",\n")
            self._output.write((b",\n" if self._any else b"[\n") + separated)
            self._any = True

    def _write_template(self, template: Format, messages: Iterable["Message"]) -> None:
        written = []
        for message in messages:
            self._number += 1
            written.append(template.render(message, self._number, safe=self._output.terminal))
        self._output.write(b"".join(written))

    def _in_full(self, message: "Message") -> str:
        """One message on lines of its own."""
        lines = full_lines(self._output, message, lines_max=payloads.FOLDED_LINES_MAX)
        return "".join([f"{line}\n" for line in lines])

    def _line(self, message: "Message") -> str:
        """One message on one line, what the broker added stepping back."""
        about = [
            text.local_time(message.timestamp, self._now_ns),
            f"{text.escape(message.topic)} #{message.offset}",
        ]
        if message.key is not None:
            about.append(f"key={text.display(message.key)}")
        if message.headers:
            about.append(text.headers_text(message.headers))
        if message.deliveries > 1:
            about.append(f"(delivery {message.deliveries})")
        payload = payloads.one_line(message.payload, self._line_length_max)
        if self._output.color and payloads.looks_like_json(message.payload):
            payload = payloads.paint_json(payload)
        return f"{self._output.dim(' '.join(about))} {payload}\n"


def full_lines(output: Output, message: "Message", *, lines_max: int) -> Sequence[str]:
    """A message with all there is to know about it, its payload on at most so many lines.

    Those who want to know more get it whole, whatever that is.
    """
    now_ns = time.time_ns()
    about = [
        output.bold(f"{text.escape(message.topic)} #{message.offset}"),
        text.local_time(message.timestamp, now_ns),
        text.size(len(message.payload)),
    ]
    if message.deliveries > 1:
        about.append(f"delivery {message.deliveries}")
    lines = ["  ".join(about)]
    if message.key is not None:
        lines.append(f"{output.dim('key')}  {payloads.one_line(message.key)}")
    for name, value in message.headers.items():
        lines.append(f"{output.dim(text.escape(name))}  {text.escape(value)}")
    width = output.width or _FULL_WIDTH
    shown = payloads.lines_of(
        message.payload,
        width=width,
        lines_max=None if output.verbose else lines_max,
        length_max=None if output.verbose else FULL_LENGTH_MAX,
    )
    if output.color and payloads.looks_like_json(message.payload):
        shown = [payloads.paint_json(line) for line in shown]
    return [*lines, *shown, ""]


class JsonMessage(msgspec.Struct, frozen=True, gc=False):
    """A message under the names that JSON shows, exact."""

    topic: str
    offset: int
    timestamp: str
    key: str | None
    key_encoding: text.Encoding | None
    headers: dict[str, str]
    payload: str
    encoding: text.Encoding
    deliveries: int


def as_json(message: "Message") -> JsonMessage:
    """What JSON shows of a message."""
    key, key_encoding = (None, None) if message.key is None else text.payload_text(message.key)
    payload, encoding = text.payload_text(message.payload)
    return JsonMessage(
        message.topic,
        message.offset,
        text.rfc3339(message.timestamp),
        key,
        key_encoding,
        dict(message.headers),
        payload,
        encoding,
        message.deliveries,
    )


def _tab_line(message: "Message") -> str:
    """Topic, offset, time, deliveries, key, headers as JSON, payload."""
    headers = msgspec.json.encode(dict(message.headers)).decode() if message.headers else ""
    return "\t".join(
        (
            text.escape(message.topic),
            str(message.offset),
            text.rfc3339(message.timestamp),
            str(message.deliveries),
            "" if message.key is None else text.display(message.key),
            text.escape(headers),
            text.display(message.payload) + "\n",
        )
    )
