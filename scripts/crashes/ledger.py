"""The ledger: what was sent, acknowledged, received and confirmed, written outside the broker.

Every actor (a publisher, a subscriber) writes an account of its own: a file with one JSON
array a line, written before or after the act as said below, so that it holds whatever
becomes of the broker. ``books.py`` compares the accounts.

    ["send", topic, first, count]             before a batch is sent; numbers of its publisher
    ["stored", topic, first, count, offset]   after its acknowledgement; offset -1: not told
    ["refused", topic, first, count, code]    a definite refusal: it must never appear
    ["unknown", topic, first, count]          it may or may not be there
    ["got", topic, topic id, messages]        after a pull, before anything is acknowledged
    ["confirmed", topic, topic id, ranges]    after an explicit ack was answered in full
"""

import random
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec

from mbctl import Batch
from mbctl.model import Range

# Publisher, number, first number and count of its batch; filling and CRC follow.
_STAMP = struct.Struct(">IIIH")
_CRC = struct.Struct(">I")


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One message as it was received: its place, and what its payload says it is."""

    offset: int
    publisher: int
    number: int
    first: int
    """The number of the first message of its batch."""
    count: int
    """How many messages its batch has."""
    crc: int


# What stands in place of an entry for a payload that is not one that was sent.
SPOILED = -1


def payload(publisher: int, number: int, batch: tuple[int, int], size: int) -> bytes:
    """A payload that says what it is: message ``number`` of ``publisher``, and its CRC.

    ``batch`` is the first number and the count of the messages that are sent with it.
    """
    filling = random.Random(publisher << 32 | number).randbytes(size)
    body = _STAMP.pack(publisher, number, *batch) + filling
    return body + _CRC.pack(zlib.crc32(body))


def read_payload(content: bytes, offset: int) -> Entry:
    """The entry for a payload that was received at ``offset``."""
    body = memoryview(content)[: -_CRC.size]
    if len(body) < _STAMP.size or zlib.crc32(body) != _CRC.unpack(content[-_CRC.size :])[0]:
        return Entry(offset, SPOILED, 0, 0, 0, 0)
    publisher, number, first, count = _STAMP.unpack_from(body)
    return Entry(offset, publisher, number, first, count, zlib.crc32(body))


class Account:
    """The file of one actor. Every line is with the operating system when a call returns."""

    def __init__(self, directory: Path, name: str) -> None:
        self._file = open(directory / f"{name}.account", "ab", buffering=0)  # noqa: SIM115

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, *line: Any) -> None:
        self._file.write(msgspec.json.encode(line) + b"\n")

    def send(self, topic: str, first: int, count: int) -> None:
        """A batch is about to be sent."""
        self._write("send", topic, first, count)

    def stored(self, topic: str, first: int, count: int, offset: int = -1) -> None:
        """A batch was acknowledged."""
        self._write("stored", topic, first, count, offset)

    def refused(self, topic: str, first: int, count: int, code: str) -> None:
        """A batch was refused for certain."""
        self._write("refused", topic, first, count, code)

    def unknown(self, topic: str, first: int, count: int) -> None:
        """Nobody knows what became of a batch."""
        self._write("unknown", topic, first, count)

    def got(self, batch: Batch) -> None:
        """Messages were received."""
        entries = [read_payload(message.payload, message.offset) for message in batch]
        self._write("got", batch.topic, batch.topic_id, entries)

    def confirmed(self, topic: str, topic_id: int, ranges: list[Range]) -> None:
        """An explicit acknowledgement of these offsets was answered."""
        self._write("confirmed", topic, topic_id, ranges)


class AccountReader:
    """Reads the lines of all accounts in a directory that were added since it last did."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._positions: dict[Path, int] = {}

    def read(self) -> list[tuple[str, list[Any]]]:
        """``(name of the account, line)`` for each complete line that is new."""
        lines = []
        for path in sorted(self._directory.glob("*.account")):
            position = self._positions.get(path, 0)
            with path.open("rb") as file:
                file.seek(position)
                # A line that is being written has no end yet.
                content, end, _ = file.read().rpartition(b"\n")
            self._positions[path] = position + len(content) + len(end)
            for line in content.splitlines():
                lines.append((path.stem, msgspec.json.decode(line)))
        return lines
