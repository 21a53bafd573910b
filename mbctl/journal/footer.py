"""What is in a segment: its batches by topic, its changes, and its last sends by session.

Kept while a segment is written, and written as its footer when it is sealed, so that to
open a journal is to load columns, not to read messages.
"""

import sys
from array import array
from collections import deque

import msgspec

from mbctl.batch import Buffer
from mbctl.journal.format import HEAD_BYTES, TRAILER_BYTES, place_of
from mbctl.journal.records import NO_SESSION, BatchHead, BatchRun
from mbctl.model import MIB

# What the parts of a footer take at most: msgpack heads, and numbers of nine bytes.
_BASE_BYTES = 64
_TOPIC_BYTES = 48
_BATCH_BYTES = 24
_COUNT_BYTES = 4
_SESSION_BYTES = 32
_ANSWER_BYTES = 37
_CHANGES_BYTES = 5
# What the changes of a segment are expected to add to a snapshot, at most; arbitrary.
_STATE_BYTES = 4 * MIB


class _Topic(msgspec.Struct, array_like=True):
    """The columns of one topic's batches as they are on disk: little-endian."""

    topic_id: int
    next_offset: int
    firsts: bytes
    positions: bytes
    timestamps: bytes
    sizes: bytes
    counts: bytes


class _Footer(msgspec.Struct, array_like=True):
    """The body of a footer."""

    first_number: int
    topics: list[_Topic]
    changes: list[bytes]
    sessions: list[msgspec.Raw]


_Session = tuple[bytes, int, list[tuple[int, int, int, int]]]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Footer)
_session_decoder = msgspec.msgpack.Decoder(_Session)


class Columns:
    """The batches of one topic in one segment, in order.

    In a cold segment some may be missing between them, so it has their counts too.
    """

    __slots__ = ("counts", "firsts", "next_offset", "positions", "sizes", "timestamps")

    def __init__(self) -> None:
        self.firsts = array("Q")
        self.positions = array("I")
        self.timestamps = array("q")
        self.sizes = array("I")
        self.counts = array("I")
        self.next_offset = 0

    def places(self, segment: int) -> "array[int]":
        """Where they are, if these are those of that segment."""
        base = place_of(segment, 0)
        return array("Q", [base | position for position in self.positions])

    def run(self, segment: int) -> BatchRun:
        """The same with places instead of positions."""
        places = self.places(segment)
        return BatchRun(self.firsts, places, self.timestamps, self.sizes, self.next_offset)


class LastSends:
    """The last sends of one session, and when the last one was.

    That is in nanoseconds of the journal's life: while it is open they go on with a clock
    that never steps. Timestamps of batches do step with the clock on the wall, and to
    forget a session too early is to store a repeated send twice.
    """

    __slots__ = ("answers", "used_ns")

    def __init__(self, window: int) -> None:
        self.answers: deque[tuple[int, int, int, int]] = deque(maxlen=window)
        self.used_ns = 0


class SegmentIndex:
    """What one segment holds. ``window`` is how many sends of a session are kept."""

    def __init__(self, first_number: int, window: int) -> None:
        self.first_number = first_number
        """The number of the segment's first record."""
        self.topics: dict[int, Columns] = {}
        self.changes: list[bytes] = []
        self.batch_count = 0
        self.state_size = 0
        """Bytes that a snapshot may grow by when it takes this in, at most."""
        self.size = HEAD_BYTES + TRAILER_BYTES + _BASE_BYTES
        """Bytes that the footer takes at most, with its head and the trailer after it."""
        self._window = window
        self._sessions: dict[bytes, LastSends] = {}
        self._undecoded: list[msgspec.Raw] = []

    @property
    def sessions(self) -> dict[bytes, LastSends]:
        """The last sends in it, by session."""
        # Decoded when asked for: most segments of a journal that is opened are not.
        while self._undecoded:
            session, used_ns, answers = _session_decoder.decode(self._undecoded.pop())
            sends = self._sessions[session] = LastSends(self._window)
            sends.answers.extend(answers)
            sends.used_ns = used_ns
        return self._sessions

    def undecoded_sessions(self, sessions: list[msgspec.Raw]) -> None:
        """Let ``sessions`` be those of the segment, as they are in its footer."""
        # The last is decoded first.
        self._undecoded = sessions[::-1]

    def forget(self) -> None:
        """Let go of all but the batches."""
        self.changes, self._sessions, self._undecoded = [], {}, []

    def growth(self, body_size: int) -> int:
        """By how many bytes one more record makes the footer larger, at most.

        ``body_size`` is that of its changes; it may have a batch as well.
        """
        batch = _TOPIC_BYTES + _BATCH_BYTES + _SESSION_BYTES + _ANSWER_BYTES
        return batch + body_size + _CHANGES_BYTES

    def add_batch(self, head: BatchHead, position: int, size: int, used_ns: int = 0) -> None:
        """Note a batch of ``size`` bytes in the record at ``position``, sent at ``used_ns``."""
        next_offset = head.first_offset + head.count
        self._add(head.topic_id, (head.first_offset, position, head.timestamp, size), next_offset)
        if head.session == NO_SESSION:
            return
        sends = self._sessions.get(head.session)
        if sends is None:
            sends = self._sessions[head.session] = LastSends(self._window)
            self.size += _SESSION_BYTES
            self.state_size += _SESSION_BYTES
        if len(sends.answers) < self._window:
            self.size += _ANSWER_BYTES
            self.state_size += _ANSWER_BYTES
        sends.answers.append((head.sequence, head.topic_id, head.first_offset, head.count))
        sends.used_ns = used_ns

    def add_lost(
        self, topic_id: int, first_offset: int, count: int, timestamp: int, position: int
    ) -> None:
        """Note the record at ``position``, which stands for messages that were given up."""
        # As large as it is on disk: nothing divides by the size of a batch that has none.
        self._add(topic_id, (first_offset, position, timestamp, HEAD_BYTES), first_offset + count)

    def add_moved(self, head: BatchHead, position: int, size: int) -> None:
        """Note a batch that was moved to ``position`` of this segment, which is cold.

        Those of a topic come by rising first offset.
        """
        self._add(
            head.topic_id,
            (head.first_offset, position, head.timestamp, size),
            head.first_offset + head.count,
        )
        self.topics[head.topic_id].counts.append(head.count)
        self.size += _COUNT_BYTES

    def _add(self, topic_id: int, batch: tuple[int, int, int, int], next_offset: int) -> None:
        columns = self.topics.get(topic_id)
        if columns is None:
            columns = self.topics[topic_id] = Columns()
            self.size += _TOPIC_BYTES
        first_offset, position, timestamp, size = batch
        columns.firsts.append(first_offset)
        columns.positions.append(position)
        columns.timestamps.append(timestamp)
        columns.sizes.append(size)
        columns.next_offset = next_offset
        self.batch_count += 1
        self.size += _BATCH_BYTES

    def add_changes(self, body: bytes) -> None:
        """Note a record of changes."""
        self.changes.append(body)
        self.size += len(body) + _CHANGES_BYTES
        # Most changes move what is there already: what is new seldom takes more than this.
        self.state_size += len(body) if self.state_size < _STATE_BYTES else 0

    def encode(self) -> bytes:
        """The body of the footer."""
        topics = [
            _Topic(
                topic_id,
                columns.next_offset,
                _little(columns.firsts),
                _little(columns.positions),
                _little(columns.timestamps),
                _little(columns.sizes),
                _little(columns.counts),
            )
            for topic_id, columns in self.topics.items()
        ]
        # One by one: in one call a hundred thousand would hold up all other threads.
        sessions = [
            msgspec.Raw(_encoder.encode((session, sends.used_ns, list(sends.answers))))
            for session, sends in self.sessions.items()
        ]
        body = _encoder.encode(_Footer(self.first_number, topics, self.changes, sessions))
        assert len(body) + HEAD_BYTES + TRAILER_BYTES <= self.size
        return body


def decode_footer(body: Buffer, window: int) -> SegmentIndex:
    """The index that a footer holds, whose CRC was right."""
    footer = _decoder.decode(body)
    index = SegmentIndex(footer.first_number, window)
    index.size += len(body)
    index.changes = footer.changes
    index.state_size = min(sum(map(len, footer.changes)), _STATE_BYTES)
    index.state_size += sum(len(memoryview(session)) for session in footer.sessions)
    for topic in footer.topics:
        columns = index.topics[topic.topic_id] = Columns()
        columns.next_offset = topic.next_offset
        _load(columns.firsts, topic.firsts)
        _load(columns.positions, topic.positions)
        _load(columns.timestamps, topic.timestamps)
        _load(columns.sizes, topic.sizes)
        _load(columns.counts, topic.counts)
        index.batch_count += len(columns.firsts)
    index.undecoded_sessions(footer.sessions)
    return index


def _little(column: "array[int]") -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _load(column: "array[int]", data: bytes) -> None:
    column.frombytes(data)
    if sys.byteorder == "big":
        column.byteswap()
