"""What the journal stores, and the interface that the engine stores it through.

A record is a batch or a change of topics, subscriptions or cursors. The engine appends
records as state changes and commits once a turn. Nothing may be acknowledged or shown
before its commit is done.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from mbctl.batch import Buffer
from mbctl.model import Range, TopicSettings


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


class SubscriptionState(msgspec.Struct, frozen=True, tag=True):
    """Where a durable subscription stands: everything that survives a restart."""

    topic_id: int
    subscriber: str
    cursor: int
    acknowledged: list[Range]
    ack_wait_ns: int
    created: int


class SubscriptionDeleted(msgspec.Struct, frozen=True, tag=True):
    """A durable subscription ends."""

    topic_id: int
    subscriber: str


Record = TopicCreated | TopicDeleted | SubscriptionState | SubscriptionDeleted


class Journal(Protocol):
    """Where records go. A place is a number that finds a batch again; none is used twice.

    Appending does not fail: what goes wrong shows when a commit is to be done.
    """

    durability: str
    """What an acknowledgement means: ``memory``, ``always`` or ``never`` (synced)."""

    @property
    def size(self) -> int:
        """Bytes of batches held."""

    @property
    def taken(self) -> int:
        """Bytes that the batches take up where they are, of what ``max_bytes`` bounds."""

    def append_batch(self, head: BatchHead, batch: Buffer) -> int:
        """Add a batch after all that was appended before; its place.

        ``batch`` is kept as it is and must not change afterwards.
        """

    def append(self, record: Record) -> None:
        """Add a record after all that was appended before."""

    def commit(self, done: Callable[[], None]) -> None:
        """Make all that was appended so far durable, then call ``done``, in order of calls.

        ``done`` may be called before this returns.
        """

    def read(self, places: Sequence[int], done: Callable[[list[Buffer]], None]) -> None:
        """Call ``done`` with the batches at ``places``, none of which was released.

        A release that comes before ``done`` is called takes nothing from it.
        """

    def release(self, places: Iterable[int]) -> None:
        """Let the space of these batches be used again; nobody will read them."""

    def close(self) -> None:
        """Make all durable and let go of everything."""
