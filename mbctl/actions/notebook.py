"""What a move has written down: which messages it was about to store, and as which send.

A move may be killed at any moment, and another go on, at another machine and much later. So
before each send a note is stored at the target, in a topic beside the one that is filled:
which messages of the source come next, as which send of which session, and how far the target
has been filled before. The last note tells what may have been stored or not; all before it
has been, for a note is written only when the send before it is answered.

Two moves at once find each other out: the notes of each follow one another without a gap, so
the one whose note comes after somebody else's stops before it sends.
"""

import time
from typing import TYPE_CHECKING

import msgspec

from mbctl.errors import InvalidArgument, NotSupported, Timeout, TopicNotFound
from mbctl.model import MIB

if TYPE_CHECKING:
    from mbctl import Admin, Publisher

# The last note is what counts; those before it only show that nothing is missing.
_NOTES_BYTES = MIB
# Above what so many bytes hold.
_NOTES_MAX = 65_536
_PAUSE_S = 0.05
_INDEXES = 65_536

SUFFIX = ".moving"
"""What the topic of the notes is called besides the name of the one that they are about."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """The messages ``first <= offset < next`` of the source are about to be stored."""

    topic_id: int
    """That of the source, which with ``created`` tells it from all others."""
    created: int
    session: str
    """The publisher's, in hexadecimal digits."""
    sequence: int
    """The number of the send in the session."""
    first: int
    next: int
    count: int
    end: int
    """The next offset of the target after the send before this one."""


class Notebook:
    """The notes of the moves of one topic, at the target."""

    def __init__(self, admin: "Admin", publisher: "Publisher", topic: str) -> None:
        self._admin = admin
        self._publisher = publisher
        self.topic = topic + SUFFIX
        self.is_there = False
        """Whether a move has begun; there may be no note in it all the same."""
        self._end = 0
        self._engine = engine_of(admin)

    def read(self) -> Note | None:
        """The note that was acted upon last; None if there is none.

        Raises:
            Timeout: the server does not show what it has.
        """
        deadline = time.monotonic() + self._admin.timeout
        while time.monotonic() < deadline:
            try:
                info = self._admin.topic(self.topic)
            except TopicNotFound:
                return None
            self.is_there = True
            self._end = info.next_offset
            if info.bytes == 0:
                return None
            shown = self._admin.peek(self.topic, "earliest", _NOTES_MAX)
            last = shown.next_offset - 1
            # A node of a cluster may not have the newest yet.
            if shown and end_after(self._engine, last, 1) == self._end:
                return _acted_upon([msgspec.json.decode(m.payload, type=Note) for m in shown])
            time.sleep(_PAUSE_S)
        raise Timeout(what=f"reading {self.topic}", seconds=f"{self._admin.timeout:g}")

    def begin(self) -> None:
        """Let there be a topic for notes."""
        self._admin.create_topic(self.topic, max_bytes=_NOTES_BYTES, when_full="drop_oldest")
        self._end = self._admin.topic(self.topic).next_offset

    def write(self, note: Note) -> None:
        """Write a note down; it is stored on return.

        Raises:
            InvalidArgument: somebody else has written there since ``read``.
        """
        receipt = self._publisher.send(self.topic, msgspec.json.encode(note))
        expected, self._end = self._end, end_after(self._engine, receipt.offset, 1)
        if receipt.offset != expected:
            raise InvalidArgument(
                reason=f"another move writes to {self.topic} too; let one of them end, and run"
                " this again"
            )


def _acted_upon(notes: list[Note]) -> Note:
    """The last note whose writer went on to send.

    Of several of the same number the first one: the writers of the others stopped.
    """
    last = max(note.sequence for note in notes)
    return next(note for note in notes if note.sequence == last)


def engine_of(admin: "Admin") -> str:
    """What serves the verbs there.

    Raises:
        NotSupported: how it counts offsets is not known here.
    """
    engine = admin.status().engine
    if engine not in ("local", "jetstream"):
        raise NotSupported(what=f"moving a topic to or from the engine {engine}")
    return engine


def end_after(engine: str, offset: int, count: int) -> int:
    """The next offset of a topic whose last batch has ``count`` messages from ``offset`` on."""
    if engine == "jetstream":
        # Each batch has so many, used or not: docs/scaling.md.
        return (offset // _INDEXES + 1) * _INDEXES
    return offset + count
