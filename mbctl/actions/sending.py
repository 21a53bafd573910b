"""What is sent: one message, or each line of a stream."""

from collections.abc import Callable, Iterator, Mapping
from select import select
from typing import TYPE_CHECKING, BinaryIO

from mbctl.actions import text
from mbctl.actions.output import Output
from mbctl.errors import MbctlError, MessageTooLarge
from mbctl.model import Receipt

if TYPE_CHECKING:
    from mbctl import Pipeline, Publisher

# Large enough that the cost of a batch is spread, small enough that a batch of lines stays
# far below the limit of a frame.
_BATCH_LINES_MAX = 1_000
_READ_SIZE = 256 * 1024

# After so many batches the answers are looked at, even if more is there to send: a topic
# that refuses must not be fed, and remembered, to the end of an endless stream.
_BATCHES_UNCHECKED_MAX = 100


def send(
    publisher: "Publisher",
    output: Output,
    topic: str,
    payload: bytes,
    *,
    key: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Receipt:
    """Send one message and show where it was stored."""
    receipt = publisher.send(topic, payload, key=key, headers=dict(headers) if headers else None)
    show_receipt(output, receipt, len(payload))
    return receipt


def send_lines(publisher: "Publisher", output: Output, topic: str, stream: BinaryIO) -> int:
    """Send each line of ``stream`` as a message; show the first offset and the count.

    Only LF ends a line; a last line without one is a message too. What has been read is
    stored before more is waited for, so that lines of a slow stream are not held back.

    Raises:
        MessageTooLarge: a line is; the ones before it are stored.
        SendFailed: some lines were refused; the others are stored.
    """
    batches = _batches(stream, publisher.limits.message_bytes)
    payloads = next(batches, None)
    if payloads is None:
        output.note("nothing to send")
        return 0
    # The first batch goes alone: it tells the first offset, and a topic that does not exist
    # is known before the rest is read.
    first = publisher.send_many(topic, payloads)
    size = sum(map(len, payloads))
    with publisher.pipeline() as pipe:
        try:
            size += _send_rest(pipe, topic, batches, lambda: _is_ready(stream))
        except (MbctlError, KeyboardInterrupt):
            known = text.counted(first.count + pipe.sent, "message")
            output.note(f"acknowledged so far: {known}")
            raise
    count = first.count + pipe.sent
    show_receipt(output, Receipt(topic, first.offset, count), size)
    return count


def _send_rest(
    pipe: "Pipeline", topic: str, batches: Iterator[list[bytes]], is_ready: Callable[[], bool]
) -> int:
    """Send the batches; their size, when all are stored."""
    size = 0
    try:
        for number, payloads in enumerate(batches, start=1):
            pipe.send_many(topic, payloads)
            size += sum(map(len, payloads))
            if number % _BATCHES_UNCHECKED_MAX == 0 or not is_ready():
                pipe.flush()
    except MessageTooLarge:
        # This is known before the server is asked: what is under way has yet to be answered.
        pipe.flush()
        raise
    pipe.flush()
    return size


def show_receipt(output: Output, receipt: Receipt, size: int) -> None:
    """Show where ``size`` bytes of messages were stored."""
    where = f"{text.escape(receipt.topic)} #{receipt.offset}"
    many = f"{text.counted(receipt.count, 'message')}  " if receipt.count != 1 else ""
    row = {"topic": receipt.topic, "offset": receipt.offset, "count": receipt.count}
    output.done(row, f"{where}  {many}{text.size(size)}")


def _batches(stream: BinaryIO, line_size_max: int) -> Iterator[list[bytes]]:
    """The lines of a stream, as many at a time as one read brought in."""
    # read1 returns what is there; read would wait for a full buffer.
    read = getattr(stream, "read1", stream.read)
    unfinished: list[bytes] = []
    unfinished_size = 0
    while data := read(_READ_SIZE):
        *ended, last = data.split(b"\n")
        if ended:
            unfinished.append(ended[0])
            ended[0] = b"".join(unfinished)
            for first in range(0, len(ended), _BATCH_LINES_MAX):
                yield ended[first : first + _BATCH_LINES_MAX]
            unfinished, unfinished_size = [], 0
        unfinished.append(last)
        unfinished_size += len(last)
        # A stream without line ends must not fill the memory.
        if unfinished_size > line_size_max:
            raise MessageTooLarge(what="line", size=unfinished_size, limit=line_size_max)
    if unfinished_size:
        yield [b"".join(unfinished)]


def _is_ready(stream: BinaryIO) -> bool:
    """Whether a read would bring something, or the end, at once."""
    try:
        ready, _, _ = select([stream], [], [], 0)
    except (OSError, ValueError):
        # Not a file of the system, such as bytes in memory.
        return True
    return bool(ready)
