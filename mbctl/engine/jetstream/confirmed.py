"""What a subscription has acknowledged, in an entry of its own beside what JetStream remembers.

JetStream may forget an acknowledgement that it has confirmed: a node that led before, and stood
still, delivers once more what its successor was told is done. So no acknowledgement of a batch is
answered before a majority has stored it in this entry too, and what may be delivered again is
looked up there first. All acknowledgements of one moment are one change of the entry.

Of a batch that is acknowledged in part the entry has only that it is: its own entry, which has the
rest, is then not believed before it could be written back.

Moving the subscription gives the entry a new epoch: what is acknowledged of an older one changes
nothing. The epoch is the mark of the consumer that the subscription has, see ``marks``.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mbctl.engine.jetstream import entries, names
from mbctl.engine.jetstream.api import ApiError, translated
from mbctl.engine.jetstream.entries import ConfirmedEntry
from mbctl.engine.jetstream.topics import Topic, first_sequence
from mbctl.errors import MbctlError, OutcomeUnknown
from mbctl.model import Range

if TYPE_CHECKING:
    from mbctl.engine.jetstream.parts import Parts

# From so many ranges on it is looked which of them are of batches that are not kept any more.
_RANGES = 500
# How often an entry is tried to be changed that others are changing.
_ATTEMPTS = 50


class _Group:
    """What goes into the entry with one change, and what became of that."""

    def __init__(self, epoch: str | None) -> None:
        self.epoch = epoch
        self.ranges: list[Range] = []
        self.parts: list[int] = []
        self.outcome: asyncio.Future[MbctlError | None] = asyncio.Future()


class Confirmed:
    """The entry of one subscription, as one server knows and changes it."""

    def __init__(
        self,
        parts: "Parts",
        topic: Topic,
        subscriber: str,
        on_moved: Callable[[], None] | None = None,
        *,
        mark: str | None = None,
    ) -> None:
        self._parts = parts
        self._topic = topic
        self._key = names.confirmed_key(topic.topic_id, subscriber)
        self._entry = ConfirmedEntry()
        self._revision: int | None = None
        """That of the entry as it is known here; None if it has to be read again."""
        self._epoch = mark
        """That of what is acknowledged here; None if it is the one that the entry has."""
        self._on_moved = on_moved
        """Called when somebody has moved the subscription and nobody has said so."""
        self._times_forgotten = 0
        self._waiting: _Group | None = None
        self._is_working = False
        self._ranges_most = _RANGES

    def forget(self) -> None:
        """The subscription was moved: what is acknowledged from now on is of a new epoch."""
        self._revision = self._epoch = None
        self._times_forgotten += 1

    async def settle(self) -> ConfirmedEntry:
        """The entry with all that was answered anywhere before this call.

        A node that does not know yet that it leads no more may tell an old one, but it cannot
        change it: so the entry is written as it is.

        Raises:
            OutcomeUnknown, Timeout: the cluster did not answer.
        """
        await self._change()
        return self._entry

    async def note(self, sequence: int) -> None:
        """Have it stored that a batch is acknowledged; it is, on return.

        Raises:
            OutcomeUnknown, Timeout: the cluster did not answer.
        """
        await self._change(ranges=[(sequence, sequence + 1)])

    async def note_part(self, sequence: int) -> None:
        """Have it stored that a part of a batch is about to be acknowledged.

        Raises: as ``note``.
        """
        if self._revision is None or sequence not in self._entry.parts:
            await self._change(parts=[sequence])

    async def _change(self, ranges: Sequence[Range] = (), parts: Sequence[int] = ()) -> None:
        """Have the entry written with these, and all that others want of this moment."""
        group = self._waiting
        if group is None:
            group = self._waiting = _Group(self._epoch)
        group.ranges += ranges
        group.parts += parts
        if not self._is_working:
            self._is_working = True
            self._parts.spawn(self._work())
        error = await asyncio.shield(group.outcome)
        if error is not None:
            raise error

    async def _work(self) -> None:
        try:
            while self._waiting is not None:
                group, self._waiting = self._waiting, None
                outcome: MbctlError | None = OutcomeUnknown(what="the acknowledgement")
                try:
                    await self._store(group)
                    outcome = None
                except (MbctlError, ApiError) as error:
                    outcome = translated(error)
                finally:
                    group.outcome.set_result(outcome)
        finally:
            self._is_working = False

    async def _store(self, group: _Group) -> None:
        times_forgotten = self._times_forgotten
        for _ in range(_ATTEMPTS):
            if self._revision is None:
                await self._load()
            # If somebody has moved the subscription, what is acknowledged changes nothing.
            is_moved = group.epoch not in (None, self._entry.epoch)
            entry = self._entry
            if not is_moved:
                entry = entry.with_more(group.ranges, group.parts)
            is_gone = not entry.epoch
            if is_gone:
                # That of a subscription which has ended is not to come back; a new one may.
                self._revision = None
            if is_gone or await self._put(await self._bounded(entry)):
                if times_forgotten == self._times_forgotten:
                    self._learn(entry.epoch)
                return
            await asyncio.sleep(secrets.randbelow(5) / 1000)
        raise OutcomeUnknown(what="the acknowledgement")

    def _learn(self, epoch: str) -> None:
        """That is the epoch, as a majority has stored it."""
        is_moved = self._epoch not in (None, epoch)
        self._epoch = epoch
        if is_moved and self._on_moved is not None:
            self._on_moved()

    async def _load(self) -> None:
        value, self._revision = await self._parts.api.get(self._key, names.BUCKET)
        self._entry = entries.confirmed_entry(value)

    async def _put(self, entry: ConfirmedEntry) -> bool:
        """Change the entry, if it is still what is known here."""
        value = entries.encode(entry)
        revision = await self._parts.api.put(self._key, value, self._revision or 0)
        if revision is not None:
            self._entry = entry
        self._revision = revision
        return revision is not None

    async def _bounded(self, entry: ConfirmedEntry) -> ConfirmedEntry:
        """The entry without holes of batches that nobody can read any more."""
        if len(entry.acknowledged) <= self._ranges_most:
            return entry
        _, stream = await self._parts.registry.look(self._topic.name)
        entry = entry.with_more([(0, first_sequence(stream["state"]))])
        self._ranges_most = max(_RANGES, 2 * len(entry.acknowledged))
        return entry
