"""What the journal stores, and the interface that the engine stores it through.

A record is a batch or a change of topics, subscriptions or cursors. The engine appends
records as state changes and commits once a turn. Nothing may be acknowledged or shown
before its commit is done.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

import msgspec

from mbctl.batch import Buffer
from mbctl.errors import MbctlError
from mbctl.model import Range, TopicSettings

NO_SESSION = bytes(16)
"""The session of a batch that no publisher sent: of dead letters."""


class BatchHead(msgspec.Struct, frozen=True, gc=False):
    """What is stored with a batch: whose it is and where it stands."""

    topic_id: int
    first_offset: int
    count: int
    timestamp: int
    session: bytes
    sequence: int


class TopicCreated(msgspec.Struct, frozen=True, tag=True):
    """A topic begins."""

    topic_id: int
    name: str
    settings: TopicSettings
    created: int


class TopicDeleted(msgspec.Struct, frozen=True, tag=True):
    """A topic ends, with its messages and subscriptions."""

    topic_id: int


TrimReason = Literal["read", "dropped", "expired", "purged"]
"""Why messages are given up: every subscription has them, or whether it has or not."""


class TopicTrimmed(msgspec.Struct, frozen=True, tag=True):
    """The messages below ``first_offset`` are gone for good.

    Unless the reason is ``read``, every subscription that stood below stands there now, and
    what it had not acknowledged is counted to it as ``dropped`` or ``expired``, if that is
    the reason.
    """

    topic_id: int
    first_offset: int
    reason: TrimReason = "read"


Count = tuple[int, int, int, bool]
"""How often messages were delivered: first, next, deliveries, whether they are parked."""


class SubscriptionState(msgspec.Struct, frozen=True, tag=True):
    """Where a durable subscription stands: everything that survives a restart.

    It takes the place of all that was recorded of that subscription before.
    """

    topic_id: int
    subscriber: str
    cursor: int
    acknowledged: list[Range]
    ack_wait_ns: int
    created: int
    max_deliveries: int | None = None
    dead_letter: str | None = None
    counts: list[Count] = []
    dropped: int = 0
    expired: int = 0


class Acknowledged(msgspec.Struct, frozen=True, tag=True):
    """A durable subscription acknowledged these messages, beside all it had before."""

    topic_id: int
    subscriber: str
    ranges: list[Range]


class Redelivered(msgspec.Struct, frozen=True, tag=True):
    """How often a durable subscription was delivered these messages, from now on.

    Below two deliveries and not parked, nothing is kept of a count.
    """

    topic_id: int
    subscriber: str
    counts: list[Count]


class SubscriptionDeleted(msgspec.Struct, frozen=True, tag=True):
    """A durable subscription ends."""

    topic_id: int
    subscriber: str


Record = (
    TopicCreated
    | TopicDeleted
    | TopicTrimmed
    | SubscriptionState
    | Acknowledged
    | Redelivered
    | SubscriptionDeleted
)


class Damaged(msgspec.Struct, frozen=True):
    """What ``read`` gives for a batch whose bytes on disk are not what was written."""

    reason: str


class BatchRun(msgspec.Struct, frozen=True):
    """Batches of one topic that follow each other, as columns of equal length.

    ``next_offset`` is the offset after the last one.
    """

    firsts: "array[int]"
    places: "array[int]"
    timestamps: "array[int]"
    sizes: "array[int]"
    next_offset: int


class RecoveredTopic(msgspec.Struct, frozen=True):
    """A topic as it stood: what is kept of it is ``first_offset`` to ``next_offset``.

    ``runs`` hold the batches in order and without a gap from ``first_offset`` on; they may
    begin with batches below it, whose places nobody has released yet. ``timestamp`` is
    that of the last batch, kept or not.
    """

    topic_id: int
    name: str
    settings: TopicSettings
    created: int
    first_offset: int
    next_offset: int
    timestamp: int
    runs: list[BatchRun]
    subscriptions: list[SubscriptionState]


class SessionState(msgspec.Struct, frozen=True):
    """The last sends of a publisher session that were stored.

    ``answers`` are ``(sequence, topic id, first offset, count)``, by rising sequence.
    """

    session: bytes
    answers: list[tuple[int, int, int, int]]


class Recovered(msgspec.Struct, frozen=True):
    """What a journal held when it was opened."""

    next_topic_id: int
    topics: list[RecoveredTopic]
    sessions: list[SessionState]


class Index(Protocol):
    """Where the engine says the batches of topics are; it is kept to what the journal moves."""

    def live(self, topic_id: int, firsts: Sequence[int], places: Sequence[int]) -> Sequence[int]:
        """The positions, in these equally long columns, of the batches that are kept and there."""

    def move(self, topic_id: int, moves: Sequence[tuple[int, int, int]]) -> Sequence[int]:
        """Let batches be elsewhere: ``(first offset, place, new place)`` for each.

        Returned are the new places of those that are no longer kept, or not there.
        """


class Backup(Protocol):
    """A journal as it stood at one moment, as one file that is read piece by piece."""

    size: int
    """Bytes in all."""

    def read(self, position: int, size: int, done: Callable[[bytes | MbctlError], None]) -> None:
        """Call ``done`` with up to ``size`` bytes from ``position`` on."""

    def close(self) -> None:
        """Let go of it; reads under way are still answered. Twice is once."""


class Journal(Protocol):
    """Where records go. A place is a number that finds a batch again; none is used twice.

    Appending does not fail: ``check_room`` comes before the state changes that a record
    tells of. What goes wrong after that ends the journal, see ``on_failure``.
    """

    durability: str
    """What an acknowledgement means: ``memory``, ``always`` or ``never`` (synced)."""

    on_failure: Callable[[MbctlError], None]
    """Called once when a write or sync failed. No commit is done after that, ever."""

    index: "Index | None"
    """Set by the engine before the first call: without it no batch is moved."""

    @property
    def taken(self) -> int:
        """Bytes of disk or memory taken up, of what ``max_bytes`` bounds."""

    @property
    def max_bytes(self) -> int:
        """How many bytes may be taken up before a batch is refused."""

    @property
    def syncs(self) -> int:
        """How many times data was forced to disk since the start."""

    def check_room(self, size: int, *, is_reserved: bool = False) -> None:
        """Refuse what there may be no room for: a record with a body of ``size`` bytes.

        ``is_reserved`` is for what frees space: it may use what is kept back for that.

        Raises:
            DiskFull: nothing was changed.
        """

    def append_batch(self, head: BatchHead, batch: Buffer, also: "Record | None" = None) -> int:
        """Add a batch after all that was appended before; its place.

        ``batch`` is kept as it is and must not change afterwards. ``also`` is stored in one
        with it: after a crash there are both or neither.
        """

    def append(self, record: Record) -> None:
        """Add a record after all that was appended before."""

    def commit(self, done: Callable[[], None]) -> None:
        """Make all that was appended so far durable, then call ``done``, in order of calls.

        ``done`` may be called before this returns.
        """

    def read(self, places: Sequence[int], done: Callable[[list[Buffer | Damaged]], None]) -> None:
        """Call ``done`` with the batches at ``places``, none of which was released.

        ``done`` may be called before this returns. A release that comes before ``done`` is
        called takes nothing from it.
        """

    def release(self, places: Iterable[int]) -> None:
        """Let the space of these batches be used again; nobody will read them."""

    def backup(self, done: Callable[[Backup | MbctlError], None]) -> None:
        """Call ``done`` with all that is durable now and stays so, whatever comes after.

        ``NotSupported`` where there is nothing on a disk.
        """

    def close(self, done: Callable[[], None]) -> None:
        """Make all durable, let go of everything, then call ``done``."""
