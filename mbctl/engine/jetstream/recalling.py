"""Batches of which it is being found out what was done with them before they came here."""

from typing import TYPE_CHECKING

from mbctl.engine.jetstream import entries, names
from mbctl.engine.jetstream.api import ApiError
from mbctl.engine.jetstream.entries import BatchEntry
from mbctl.engine.jetstream.held import Held
from mbctl.errors import MbctlError

if TYPE_CHECKING:
    from mbctl.engine.jetstream.reader import Reader


class Recalling:
    """Looks up what one reader gets that was delivered before, here or elsewhere."""

    def __init__(self, reader: "Reader") -> None:
        self._reader = reader
        self.under_way: dict[int, Held] = {}
        """By sequence; to take one out is to have it forgotten."""

    @property
    def is_busy(self) -> bool:
        """Whether something is to come in hand, before what is newer is granted."""
        return bool(self.under_way)

    def begin(self, held: Held) -> None:
        """Look a batch up, and take it in hand after that."""
        self.under_way[held.sequence] = held
        self._reader.parts.spawn(self._recall(held, was_delivered=True))

    async def recall(self, held: Held) -> None:
        """The same of one that was not delivered, but is missed; it is in hand on return."""
        self.under_way[held.sequence] = held
        await self._recall(held, was_delivered=False)

    async def _recall(self, held: Held, *, was_delivered: bool) -> None:
        reader = self._reader
        try:
            is_done = await self._restore(held, was_delivered=was_delivered)
            if self.under_way.get(held.sequence) is not held:
                # The subscription was moved, or ended.
                return
            if is_done:
                # JetStream has forgotten that.
                reader.parts.link.publish(held.reply, b"+ACK")
            else:
                reader.keep(held)
        except (MbctlError, ApiError):
            # It would come again when JetStream has missed it for long enough: too late.
            reader.mending.doubt()
            raise
        finally:
            if self.under_way.get(held.sequence) is held:
                del self.under_way[held.sequence]
            reader.wake()

    async def _restore(self, held: Held, *, was_delivered: bool) -> bool:
        """Take over what is known of a batch; whether all of it is acknowledged."""
        reader, runtime = self._reader, self._reader.parts.runtime
        is_part = False
        if reader.is_durable:
            confirmed = await reader.confirmed.settle()
            if confirmed.has(held.sequence):
                return True
            if not reader.is_of(held.reply):
                # The subscription was moved: it is of no use.
                return False
            is_part = held.sequence in confirmed.parts
        entry, held.revision = await self._entry(held.sequence, is_certain=is_part)
        if entry is None:
            held.limit(reader.options.max_deliveries)
            return False
        held.restore(entry, held.revision, reader.options.max_deliveries)
        delay_ns = entry.put_off_ns - runtime.wall_ns()
        if delay_ns > 0 and not was_delivered:
            held.put_off(runtime.now_ns() + delay_ns)
        return False

    async def _entry(self, sequence: int, *, is_certain: bool) -> tuple[BatchEntry | None, int]:
        """The entry of a batch and its revision.

        If it has to be ``is_certain`` that is written back: a node that does not know yet that it
        leads no more may tell an old one, but it cannot change it.
        """
        api, key = self._reader.parts.api, self._reader.batch_key(sequence)
        while True:
            value, revision = await api.get(key, names.BUCKET)
            if is_certain:
                written = await api.put(key, value, revision)
                if written is None:
                    continue
                revision = written
            return entries.batch_entry(value), revision
