"""What becomes of batches in hand: acknowledged, stored in part, given back, moved away."""

import asyncio
from collections.abc import Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mbctl import batch as batches
from mbctl.batch import Headers
from mbctl.engine.dead_letters import (
    DELIVERIES_HEADER,
    OFFSET_HEADER,
    SUBSCRIBER_HEADER,
    TOPIC_HEADER,
)
from mbctl.engine.jetstream import entries, names
from mbctl.engine.jetstream.api import ApiError
from mbctl.engine.jetstream.attempts import Attempts
from mbctl.engine.jetstream.held import EXHAUSTED, PARKED, Held, Part
from mbctl.errors import DataLoss, MbctlError, OutcomeUnknown
from mbctl.model import NS_PER_S, Receipt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mbctl.engine.jetstream.reader import Reader

# How long an acknowledgement may take to be confirmed before it is said to be unknown.
_PATIENCE_S = 25.0
# What is parked is looked at again so often, to be put off again: nobody holds it meanwhile.
_PARKED_S = 3600
# Before another attempt to move dead letters, where the cluster did not answer the last one.
_MOVE_AGAIN_S = 1.0


class _Turns:
    """Who stores something of one batch, and how many wait for that or do it."""

    __slots__ = ("count", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.count = 0


class Keeping:
    """The changes of one reader's batches that JetStream is told of."""

    def __init__(self, reader: "Reader") -> None:
        self._reader = reader
        self.leaving: dict[int, Held] = {}
        """Batches that are acknowledged or given back, which JetStream has not confirmed."""
        self._put_off: dict[int, int] = {}
        """What was given back to be delivered later, and until when it is not missed."""
        self._giving_back = 0
        self._storing: dict[int, _Turns] = {}
        self._moving: dict[int, Held] = {}

    @property
    def is_giving_back(self) -> bool:
        """Whether something is on its way back, which is to be delivered before what is newer."""
        return self._giving_back > 0

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self.leaving or self._storing or self._moving)

    def acknowledged(self, sequence: int) -> Held | None:
        """The batch of that sequence, if it is on its way to be acknowledged."""
        held = self.leaving.get(sequence)
        return held if held is not None and held.is_done else None

    def has(self, sequence: int) -> bool:
        """Whether that batch is on its way out, or put off until later."""
        is_put_off = self._put_off.get(sequence, 0) > self._reader.parts.runtime.now_ns()
        return sequence in self.leaving or sequence in self._moving or is_put_off

    def forget(self) -> None:
        """The subscription was moved: what was on its way out may be delivered anew."""
        self.leaving.clear()
        self._put_off.clear()

    def _left(self, held: Held) -> None:
        if self.leaving.get(held.sequence) is held:
            del self.leaving[held.sequence]

    # --- acknowledging --------------------------------------------------------------------

    async def confirm(self, changed: Iterable[tuple[Held, int]]) -> int:
        """Make acknowledgements durable; of how many messages that is so.

        Raises:
            OutcomeUnknown: the cluster did not confirm it in time.
        """
        counts = await asyncio.gather(*(self._confirm_one(held, n) for held, n in changed))
        return sum(counts)

    async def _confirm_one(self, held: Held, count: int) -> int:
        if held.is_done:
            await self._acknowledge(held)
            return count
        return count if await self.store(held) else 0

    async def _acknowledge(self, held: Held) -> None:
        reader, times_moved = self._reader, self._reader.times_moved
        if not reader.is_of(held.reply):
            # The place that it is of was left while something else was done with it.
            return
        self.leaving[held.sequence] = held
        settling = asyncio.ensure_future(self._settled(held, b"+ACK"))
        try:
            if reader.is_durable:
                await reader.confirmed.note(held.sequence)
            if reader.times_moved != times_moved:
                # It is of a place that was left, and JetStream may not answer that.
                return
            await settling
            await self._remove_entry(held)
        finally:
            settling.cancel()
            self._left(held)
        if reader.is_durable:
            reader.parts.reclaiming.soon(reader.topic)

    async def _remove_entry(self, held: Held) -> None:
        """Remove what was stored of a batch, after what is being stored of it."""
        reader = self._reader
        async with self._locked(held):
            if held.revision and reader.is_of(held.reply):
                key = reader.batch_key(held.sequence)
                await reader.parts.api.remove(names.BUCKET, key, held.revision)

    async def _settled(self, held: Held, what: bytes) -> None:
        """Tell JetStream what is to become of a batch, until it confirms that."""
        attempts = Attempts(self._reader.parts.link, _PATIENCE_S)
        while True:
            reply = await attempts.ask(held.reply, what)
            if not reply.is_lost or not self._reader.is_of(held.reply):
                return
            if self._reader.is_ended or attempts.are_over:
                raise OutcomeUnknown(what="the acknowledgement")
            if reply.has_no_taker:
                # The consumer has no leader now, or is gone; whoever pulls finds out.
                self._reader.fetching.is_gone = True
                self._reader.wake()
            await attempts.pause()

    # --- storing --------------------------------------------------------------------------

    async def store(self, held: Held, *, delay_ns: int = 0) -> bool:
        """Store what is done of a batch, and how long it is put off.

        False if another server has it by now.
        """
        reader, times_moved = self._reader, self._reader.times_moved
        if not reader.is_of(held.reply):
            return False
        key = reader.batch_key(held.sequence)
        async with self._locked(held):
            if held.is_done:
                # The rest was acknowledged meanwhile, and its entry is not to come back.
                if reader.is_durable:
                    await reader.confirmed.note(held.sequence)
                return True
            put_off_ns = reader.parts.runtime.wall_ns() + delay_ns if delay_ns else 0
            entry = held.entry(put_off_ns)
            if entry is None or entry == held.stored:
                return True
            if entry.acknowledged and reader.is_durable:
                await reader.confirmed.note_part(held.sequence)
            if reader.times_moved != times_moved:
                # It is of a place that was left.
                return False
            api = reader.parts.api
            revision = await api.put(key, entries.encode(entry), held.revision)
            if revision is None:
                reader.drop(held)
                return False
            held.stored, held.revision = entry, revision
            return True

    @asynccontextmanager
    async def _locked(self, held: Held) -> "AsyncIterator[None]":
        turns = self._storing.setdefault(held.sequence, _Turns())
        turns.count += 1
        try:
            async with turns.lock:
                yield
        finally:
            turns.count -= 1
            if not turns.count:
                # Whoever came meanwhile had to find the same lock, or two would store at once.
                del self._storing[held.sequence]

    # --- giving back ----------------------------------------------------------------------

    def give_back(self, held: Held) -> None:
        """Let JetStream deliver a batch again, to any server, if all of it may go together."""
        reader = self._reader
        again_ns = held.go_back_ns()
        if again_ns is None or held.is_leaving or held.sequence in self._moving:
            return
        if not held.has("new", "ready", "delayed"):
            delay_ns = _PARKED_S * NS_PER_S
        else:
            delay_ns = max(0, again_ns - reader.parts.runtime.now_ns())
        held.is_leaving = True
        reader.drop(held)
        self.leaving[held.sequence] = held
        self._giving_back += 1
        reader.parts.spawn(self._give_back(held, delay_ns))

    async def _give_back(self, held: Held, delay_ns: int) -> None:
        try:
            if await self.store(held, delay_ns=delay_ns):
                if delay_ns:
                    self._note_put_off(held.sequence, delay_ns)
                delay = b' {"delay": %d}' % delay_ns if delay_ns else b""
                await self._settled(held, b"-NAK" + delay)
        finally:
            self._left(held)
            self._giving_back -= 1
            self._reader.wake()

    def _note_put_off(self, sequence: int, delay_ns: int) -> None:
        now_ns = self._reader.parts.runtime.now_ns()
        self._put_off = {one: until for one, until in self._put_off.items() if until > now_ns}
        self._put_off[sequence] = now_ns + delay_ns

    # --- bodies ---------------------------------------------------------------------------

    async def fetch_bodies(self, missing: list[Held]) -> None:
        """Get the bytes of batches that had been given up."""
        await asyncio.gather(*(self._fetch_body(held) for held in missing))

    async def _fetch_body(self, held: Held) -> None:
        if held.body is not None:
            return
        reader = self._reader
        body = await reader.parts.batch_at(reader.topic, held.sequence)
        if body is not None:
            held.body = body
        elif held.sequence in reader.held:
            # It was purged, or became too old.
            reader.drop(held)
            reader.parts.spawn(self._acknowledge(held))

    # --- dead letters ---------------------------------------------------------------------

    def move_dead_letters(self, held: Held) -> None:
        """Move what was delivered as often as it may be, after what is under way."""
        if held.sequence in self._moving:
            return
        self._moving[held.sequence] = held
        if len(self._moving) == 1:
            self._reader.parts.spawn(self._move_all())

    async def _move_all(self) -> None:
        """Move in the order of offsets: what came together leaves together."""
        while self._moving:
            together = [self._moving[sequence] for sequence in sorted(self._moving)]
            try:
                await self._move(together)
            except (MbctlError, ApiError):
                # It is not delivered again while it is here, so nobody else moves it.
                await asyncio.sleep(_MOVE_AGAIN_S)
                left = [held for held in together if self._is_to_be_moved(held)]
            except BaseException:
                self._moving.clear()
                raise
            else:
                left = []
            for held in together:
                if held not in left:
                    del self._moving[held.sequence]
                    if held.sequence in self._reader.held:
                        self._reader.changed(held)
        self._reader.wake()

    def _is_to_be_moved(self, held: Held) -> bool:
        """Whether a batch is in hand, or is moved and is to be acknowledged."""
        reader = self._reader
        return not reader.is_ended and (held.is_done or reader.held.get(held.sequence) is held)

    async def _move(self, together: list[Held]) -> None:
        await self.fetch_bodies(together)
        moves = [
            (held, part, self._begin_to_move(held, part))
            for held in together
            for part in held.parts
            if part.state is EXHAUSTED
        ]
        await asyncio.gather(*(self._end_move(*move) for move in moves))
        await asyncio.gather(*(self._store_rest(held) for held in together))

    def _begin_to_move(self, held: Held, part: Part) -> "asyncio.Future[Receipt | MbctlError]":
        """Have a part stored in the dead-letter topic."""
        reader = self._reader
        moved: asyncio.Future[Receipt | MbctlError] = asyncio.get_running_loop().create_future()
        target = reader.options.dead_letter
        first = names.offset_of(held.sequence, part.first)
        try:
            if held.body is None or target is None:
                raise DataLoss(topic=reader.topic.name, first=first, next=first + part.count)
            body = _dead_letter(reader, held, part)
            count = batches.validate(body, reader.parts.limits)
        except MbctlError as error:
            moved.set_result(error)
            return moved
        # The id keeps it from being there twice if this server dies before the next step.
        id = f"{reader.topic.topic_id}:{reader.subscriber}:{first}:{part.deliveries}"
        until_ns = reader.parts.runtime.now_ns() + round(reader.parts.options.retry_s * NS_PER_S)
        line = reader.parts.lines.of(target)
        line.add(id, body, count, until_ns=until_ns, done=moved.set_result)
        return moved

    async def _end_move(
        self, held: Held, part: Part, moved: "asyncio.Future[Receipt | MbctlError]"
    ) -> None:
        if isinstance(await moved, MbctlError):
            # No room, no such topic, too many headers, gone: somebody has to look.
            part.state = PARKED
        else:
            held.parts = [other for other in held.parts if other is not part]

    async def _store_rest(self, held: Held) -> None:
        if held.is_done:
            self._reader.drop(held)
            await self._acknowledge(held)
        else:
            await self.store(held)


def _dead_letter(reader: "Reader", held: Held, part: Part) -> bytes:
    """The messages of a part, with headers that tell where they come from."""
    assert held.body is not None
    columns = batches.decode(held.body)
    headers: list[Headers | None] = [
        {
            **((columns.headers[index] if columns.headers else None) or {}),
            TOPIC_HEADER: reader.topic.name,
            OFFSET_HEADER: str(names.offset_of(held.sequence, index)),
            SUBSCRIBER_HEADER: reader.subscriber,
            DELIVERIES_HEADER: str(part.deliveries),
        }
        for index in range(part.first, part.next)
    ]
    keys = None if columns.keys is None else columns.keys[part.first : part.next]
    return batches.encode(columns.payloads[part.first : part.next], keys, headers)
