"""How pulled messages look, in every form, many at a time."""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from mbctl.actions import text
from mbctl.actions.output import Output

if TYPE_CHECKING:
    from mbctl.client.pulled import PulledBatch, PulledMessage

    Batch = PulledBatch[Any]
    Message = PulledMessage[Any]

DISPLAY_LENGTH_MAX = 4_000
"""Characters of a payload that a terminal shows unless asked for more; two screens."""


_encoder = msgspec.json.Encoder()


class MessageWriter:
    """Writes messages to an ``Output`` as they come; a context that ends the JSON array.

    Nothing is flushed before ``flush``, so that the caller decides when messages count as
    shown.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._form = output.form
        self._any = False
        self._now_ns = time.time_ns()
        self._display_length_max = None if output.verbose else DISPLAY_LENGTH_MAX

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
        if self._form == "raw":
            payloads = batch.payloads
            if payloads:
                self._output.write(b"\n".join(payloads) + b"\n")
        else:
            self._write_all(batch)

    def write_one(self, message: "Message") -> None:
        """Write a single message."""
        if self._form == "raw":
            self._output.write(message.payload + b"\n")
        else:
            self._write_all((message,))

    def flush(self) -> None:
        """Return when all messages written so far have left this process."""
        self._output.flush()

    def _write_all(self, messages: Iterable["Message"]) -> None:
        output = self._output
        if output.as_json:
            self._write_objects([as_json(message) for message in messages])
        elif output.for_people:
            self._now_ns = time.time_ns()
            output.write_text("".join([self._line(message) for message in messages]))
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
        payload = text.display(message.payload)
        if self._display_length_max is not None:
            payload = text.clip(payload, self._display_length_max)
        return f"{self._output.dim(' '.join(about))} {payload}\n"


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
