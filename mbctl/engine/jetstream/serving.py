"""Pulls that wait, and how each is answered: with what is in hand, once that is all there is.

asked for ──▶ in hand ──▶ granted
    │            ▲
    └─ dry? ─────┴── what was lost on its way, or is stored and was not seen
"""

import asyncio
from typing import TYPE_CHECKING

from mbctl.core.grant import PIECE_BYTES
from mbctl.engine.interface import Done, Pulled, Timer
from mbctl.engine.jetstream.api import STREAM_NOT_FOUND, ApiError
from mbctl.engine.jetstream.granting import PIECES_MAX, Granting
from mbctl.engine.jetstream.held import NEW, READY
from mbctl.errors import MbctlError, NotSubscribed, OutcomeUnknown, Timeout, TopicNotFound
from mbctl.model import NS_PER_S

if TYPE_CHECKING:
    from mbctl.engine.jetstream.reader import Reader

# After the first message of a request the others follow at once, or never.
_FOLLOW_S = 0.25
# How long a node that delivers may be behind the one that stores.
_BEHIND_S = 1.0
# How long a pull that does not want to wait lets an election take.
_PATIENCE_NS = 10 * NS_PER_S


class Pull:
    """A pull that has no answer yet."""

    __slots__ = (
        "begun_ns",
        "done",
        "max_bytes",
        "max_messages",
        "member",
        "number",
        "timer",
        "until_ns",
    )

    def __init__(
        self, number: int, member: bytes, max_messages: int, max_bytes: int, done: Done[Pulled]
    ) -> None:
        self.number = number
        self.member = member
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.done = done
        self.begun_ns = self.until_ns = 0
        self.timer: Timer | None = None


class Serving:
    """The pulls of one reader."""

    def __init__(self, reader: "Reader") -> None:
        self._reader = reader
        self.pulls: dict[int, Pull] = {}
        """Those that have no answer yet, by number, the longest waiting first."""
        self.last_pull: int | None = None
        self.pulled_ns = 0
        """When the last pull came."""
        self._granting = Granting(reader)
        self._looked_at = self._caught_up_to = self._sought_to = 0
        self._is_catching_up = self._may_wait = False
        self._is_working = False
        self._news = asyncio.Event()

    def note(self) -> None:
        """Something has changed that a pull may wait for."""
        self._news.set()

    # --- pulls ----------------------------------------------------------------------------

    def pull(self, pull: Pull, wait_ms: int) -> None:
        """Have a pull answered."""
        runtime = self._reader.parts.runtime
        self.last_pull = runtime.wall_ns()
        pull.begun_ns = self.pulled_ns = runtime.now_ns()
        pull.until_ns = pull.begun_ns + wait_ms * 1_000_000
        self.pulls[pull.number] = pull
        if wait_ms:
            pull.timer = runtime.call_at(pull.until_ns, lambda: self.cancel(pull.number))
        if len(self.pulls) == 1:
            # What was known to be all may not be any more: it is asked without waiting first.
            self._reader.fetching.is_dry = self._may_wait = False
        self.wake()

    def cancel(self, number: int) -> None:
        """Answer a waiting pull now, empty; nothing if it has been answered."""
        pull = self.pulls.get(number)
        if pull is not None:
            self._answer(pull, Pulled(self._reader.topic.topic_id, 0, []))

    def _answer(self, pull: Pull, answer: Pulled | MbctlError) -> None:
        del self.pulls[pull.number]
        self._reader.parts.pulls.pop(pull.number, None)
        if pull.timer is not None:
            pull.timer.cancel()
        pull.done(answer)

    def refuse_all(self, why: MbctlError) -> None:
        """Answer all pulls with why there is nothing more."""
        for pull in list(self.pulls.values()):
            self._answer(pull, why)
        self._news.set()

    def wake(self) -> None:
        """Look again at what can be granted to whom."""
        self._news.set()
        if self.pulls and not self._is_working and not self._reader.is_ended:
            self._is_working = True
            self._reader.parts.spawn(self._work())

    # --- bringing them nearer to their answer ---------------------------------------------

    async def _work(self) -> None:
        try:
            while self.pulls and not self._reader.is_ended:
                self._news.clear()
                await self._serve(next(iter(self.pulls.values())))
        except MbctlError as error:
            self._reader.end(error)
        except ApiError as error:
            is_gone = error.code == STREAM_NOT_FOUND
            topic = self._reader.topic.name
            self._reader.end(TopicNotFound(topic=topic) if is_gone else error.translated())
        finally:
            self._is_working = False

    async def _serve(self, pull: Pull) -> None:
        """Bring the pull that waits longest nearer to its answer."""
        fetching = self._reader.fetching
        if self._reader.is_paused:
            await self._wait(1.0)
            return
        if fetching.is_gone:
            await self._check_consumer()
            fetching.is_gone = False
        if self._reader.mending.is_due:
            await self._mend(pull)
        if pull.number not in self.pulls or self._reader.mending.is_due:
            return
        if fetching.is_dry and not self._reader.keeping.is_giving_back:
            await self._catch_up()
            if pull.number not in self.pulls or self._reader.mending.is_due:
                return
        has_some = bool(self._reader.open) and not self._reader.recalling.is_busy
        is_all = fetching.is_dry or (fetching.is_waiting and not self._is_catching_up)
        if has_some and (is_all or self._has_enough(pull)):
            self._is_catching_up = self._may_wait = False
            await self._grant(pull)
            return
        now_ns = self._reader.parts.runtime.now_ns()
        if not has_some and fetching.is_dry and not fetching.is_under_way:
            self._is_catching_up = False
            if pull.until_ns <= now_ns:
                self.cancel(pull.number)
                return
            fetching.is_dry, self._may_wait = False, True
        if not fetching.is_under_way and not self._reader.keeping.is_giving_back:
            await self._fetch(pull, has_some=has_some)
        if not self._news.is_set():
            follow_s = _BEHIND_S if self._is_catching_up else _FOLLOW_S
            await self._wait(follow_s if has_some else 1.0)
            if has_some and not self._news.is_set():
                fetching.is_dry = True

    async def _mend(self, pull: Pull) -> None:
        """Have in hand what was lost on its way here, before anything newer is granted."""
        try:
            await self._reader.mending.mend()
        except (OutcomeUnknown, Timeout) as error:
            if pull.number in self.pulls and pull.until_ns <= self._reader.parts.runtime.now_ns():
                self._answer(pull, error)

    async def _fetch(self, pull: Pull, *, has_some: bool) -> None:
        runtime, fetching = self._reader.parts.runtime, self._reader.fetching
        pause_s = fetching.not_before - asyncio.get_running_loop().time()
        if pause_s > 0:
            if has_some:
                fetching.is_dry = True
                return
            late_ns = runtime.now_ns() - pull.until_ns
            if late_ns > 0 and runtime.now_ns() - pull.begun_ns > _PATIENCE_NS:
                seconds = f"{_PATIENCE_NS / NS_PER_S:g}"
                self._answer(pull, Timeout(what="the cluster's answer", seconds=seconds))
                return
            await asyncio.sleep(pause_s)
        is_due = self._reader.mending.is_due or self._reader.is_ended
        if pull.number not in self.pulls or fetching.is_under_way or is_due:
            return
        may_wait = self._may_wait and not has_some
        wait_s = (pull.until_ns - runtime.now_ns()) / NS_PER_S if may_wait else 0
        if self._is_catching_up:
            wait_s = max(wait_s, _BEHIND_S)
        messages, size = self._in_hand()
        await fetching.begin(
            messages=max(1, pull.max_messages - messages),
            size=max(1, pull.max_bytes - size),
            wait_s=wait_s,
        )

    async def _catch_up(self) -> None:
        """Ask again if something is stored that has not been seen here, and was not waited for.

        The node that delivers may hear of a message a moment after its sender was answered.
        """
        seen = self._reader.last_sequence or 0
        if self._is_catching_up and seen == self._caught_up_to:
            # It is not to come: purged, or too old.
            self._looked_at = max(self._looked_at, self._sought_to)
        last = self._reader.topic.last_sequence
        if last <= max(seen, self._looked_at):
            return
        if await self._is_delivered(last):
            # Somebody else has it.
            self._looked_at = max(self._looked_at, last)
            return
        self._reader.fetching.is_dry, self._is_catching_up = False, True
        self._caught_up_to, self._sought_to = seen, last

    async def _is_delivered(self, sequence: int) -> bool:
        """Whether the consumer has delivered that far; False if it does not tell."""
        try:
            info = await self._reader.parts.api.consumer(
                self._reader.topic.stream, self._reader.consumer
            )
        except MbctlError:
            return False
        return info is not None and int(info["delivered"]["stream_seq"]) >= sequence

    async def _wait(self, seconds: float) -> None:
        """Wait for news, so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass

    # --- what is in hand ------------------------------------------------------------------

    def _in_hand(self) -> tuple[int, int]:
        """How many messages and bytes there are to grant; about, and no more than one may get."""
        messages = size = 0
        for sequence in self._reader.open[:PIECES_MAX]:
            held = self._reader.held[sequence]
            count = held.total(NEW, READY)
            messages += count
            size += held.size * count // held.count + PIECE_BYTES
        return messages, size

    def _has_enough(self, pull: Pull) -> bool:
        if len(self._reader.open) >= PIECES_MAX:
            return True
        messages, size = self._in_hand()
        return messages >= pull.max_messages or size >= pull.max_bytes

    async def _grant(self, pull: Pull) -> None:
        """Lease to a pull what is in hand, and answer it."""
        chosen = self._granting.choose(pull)
        missing = [held for held, _ in chosen if held.body is None]
        if missing:
            # What comes back meanwhile may be chosen in its stead: it is looked at again.
            await self._reader.keeping.fetch_bodies(missing)
        elif chosen:
            self._answer(pull, self._granting.lease(pull, chosen))
        elif pull.until_ns <= self._reader.parts.runtime.now_ns():
            # All that is in hand waits for something else: there are too many ranges.
            self.cancel(pull.number)
        else:
            await self._wait(1.0)

    # --- whether there is anything to serve -----------------------------------------------

    async def _check_consumer(self) -> None:
        """End the reader if its consumer is gone.

        Raises:
            TopicNotFound, NotSubscribed: it is.
        """
        reader, consumers = self._reader, self._reader.parts.consumers
        try:
            found = await consumers.find(reader.topic, reader.subscriber)
            if found is not None:
                # Another server may have changed them, or moved it, and it was not heard.
                reader.options = found.options
                reader.reads(found.name)
                return
            topic, _ = await reader.parts.registry.look(reader.topic.name)
        except Timeout:
            return
        if topic.topic_id != self._reader.topic.topic_id:
            raise TopicNotFound(topic=self._reader.topic.name)
        if self._reader.is_durable:
            raise NotSubscribed(topic=self._reader.topic.name, subscriber=self._reader.subscriber)
        # It was in the memory of a node that is gone.
        at = self._reader.position
        self._reader.forget_held()
        await self._reader.parts.consumers.revive(
            topic, self._reader.subscriber, self._reader.options, at
        )
        self._reader.begin_at(at)
