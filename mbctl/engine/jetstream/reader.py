"""One subscription as this server serves it: pulls that wait, and batches in hand.

    JetStream ──fetching──▶ in hand ──granted──▶ members ──acknowledged──▶ JetStream
                               └──given back──▶ JetStream, for any server

Batches are asked for when a pull wants them. What of a batch is not acknowledged stays in hand,
where its messages are leased one by one; JetStream lends the batch as a whole, to this server,
which renews that while it has it. What nobody here wants goes back.
"""

import asyncio
from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mbctl import batch as batches
from mbctl.core.grant import PIECE_BYTES
from mbctl.engine.alarm import Alarm
from mbctl.engine.interface import Done, Pulled, Timer
from mbctl.engine.jetstream import names
from mbctl.engine.jetstream.confirmed import Confirmed
from mbctl.engine.jetstream.fetching import Delivery, Fetching
from mbctl.engine.jetstream.granting import PIECES_MAX, Granting
from mbctl.engine.jetstream.held import DELAYED, EXHAUSTED, LEASED, NEW, PARKED, READY, Held, Part
from mbctl.engine.jetstream.keeping import Keeping
from mbctl.engine.jetstream.link import Reply
from mbctl.engine.jetstream.mending import Mending
from mbctl.engine.jetstream.recalling import Recalling
from mbctl.engine.jetstream.topics import Topic
from mbctl.errors import MbctlError, NotSubscribed, OutcomeUnknown, Timeout, TopicNotFound
from mbctl.model import NS_PER_S, SubscribeOptions

if TYPE_CHECKING:
    from mbctl.engine.jetstream.parts import Parts

# After the first message of a request the others follow at once, or never.
_FOLLOW_S = 0.25
# How long a node that delivers may be behind the one that stores.
_BEHIND_S = 1.0
# How long a pull that does not want to wait lets an election take.
_PATIENCE_NS = 10 * NS_PER_S
# How long what nobody pulls is kept before it goes back to be read elsewhere.
_IDLE_NS = NS_PER_S // 2


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


class Reader:
    """A subscription's pulls and batches at this server."""

    def __init__(
        self, parts: "Parts", topic: Topic, subscriber: str, options: SubscribeOptions
    ) -> None:
        self.parts = parts
        self.topic = topic
        self.subscriber = subscriber
        self.consumer = names.consumer_of(subscriber, topic.topic_id)
        self.options = options
        self.is_durable = not names.is_ephemeral(subscriber)
        self.members: set[bytes] = set()
        """The processes here that read it."""
        self.held: dict[int, Held] = {}
        self.pulls: dict[int, Pull] = {}
        self.skipped = 0
        """Batches of an ephemeral one that were given up before it got them."""
        self.last_pull: int | None = None
        self.fetching = Fetching(self)
        self.keeping = Keeping(self)
        self.granting = Granting(self)
        self.confirmed = Confirmed(parts, topic, subscriber)
        self.recalling = Recalling(self)
        self.mending = Mending(self)
        self.is_ended = self.is_paused = False
        self._open: list[int] = []
        """The sequences of batches in hand that have something to grant."""
        self._last_sequence: int | None = None
        self._looked_at = self._caught_up_to = self._sought_to = 0
        self._is_catching_up = self._may_wait = False
        self._is_working = False
        self._news = asyncio.Event()
        self._pulled_ns = 0
        self._alarm = Alarm(parts.runtime, self._ring)

    @property
    def ack_wait_ns(self) -> int:
        """How long a lease lasts."""
        return round(self.options.ack_wait * NS_PER_S)

    # --- pulls ----------------------------------------------------------------------------

    def pull(self, pull: Pull, wait_ms: int) -> None:
        """Have a pull answered."""
        runtime = self.parts.runtime
        self.last_pull = runtime.wall_ns()
        pull.begun_ns = self._pulled_ns = runtime.now_ns()
        pull.until_ns = pull.begun_ns + wait_ms * 1_000_000
        self.pulls[pull.number] = pull
        if wait_ms:
            pull.timer = runtime.call_at(pull.until_ns, lambda: self.cancel(pull.number))
        if len(self.pulls) == 1:
            # What was known to be all may not be any more: it is asked without waiting first.
            self.fetching.is_dry = self._may_wait = False
        self.wake()

    def cancel(self, number: int) -> None:
        """Answer a waiting pull now, empty; nothing if it has been answered."""
        pull = self.pulls.get(number)
        if pull is not None:
            self._answer(pull, Pulled(self.topic.topic_id, 0, []))

    def _answer(self, pull: Pull, answer: Pulled | MbctlError) -> None:
        del self.pulls[pull.number]
        self.parts.pulls.pop(pull.number, None)
        if pull.timer is not None:
            pull.timer.cancel()
        pull.done(answer)

    def wake(self) -> None:
        """Look again at what can be granted to whom."""
        self._news.set()
        if self.pulls and not self._is_working and not self.is_ended:
            self._is_working = True
            self.parts.spawn(self._work())

    async def _work(self) -> None:
        try:
            while self.pulls and not self.is_ended:
                self._news.clear()
                await self._serve(next(iter(self.pulls.values())))
        except MbctlError as error:
            self.end(error)
        finally:
            self._is_working = False

    async def _serve(self, pull: Pull) -> None:
        """Bring the pull that waits longest nearer to its answer."""
        fetching = self.fetching
        if self.is_paused:
            await self._wait(1.0)
            return
        if fetching.is_gone:
            await self._check_consumer()
            fetching.is_gone = False
        if self.mending.is_due:
            await self._mend(pull)
        if pull.number not in self.pulls or self.mending.is_due:
            return
        if fetching.is_dry and not self.keeping.is_giving_back:
            await self._catch_up()
            if pull.number not in self.pulls or self.mending.is_due:
                return
        has_some = bool(self._open) and not self.recalling.is_busy
        is_all = fetching.is_dry or (fetching.is_waiting and not self._is_catching_up)
        if has_some and (is_all or self._has_enough(pull)):
            self._is_catching_up = self._may_wait = False
            await self._grant(pull)
            return
        now_ns = self.parts.runtime.now_ns()
        if not has_some and fetching.is_dry and not fetching.is_under_way:
            self._is_catching_up = False
            if pull.until_ns <= now_ns:
                self.cancel(pull.number)
                return
            fetching.is_dry, self._may_wait = False, True
        if not fetching.is_under_way and not self.keeping.is_giving_back:
            await self._fetch(pull, has_some=has_some)
        if not self._news.is_set():
            follow_s = _BEHIND_S if self._is_catching_up else _FOLLOW_S
            await self._wait(follow_s if has_some else 1.0)
            if has_some and not self._news.is_set():
                fetching.is_dry = True

    async def _mend(self, pull: Pull) -> None:
        """Have in hand what was lost on its way here, before anything newer is granted."""
        try:
            await self.mending.mend()
        except (OutcomeUnknown, Timeout) as error:
            if pull.number in self.pulls and pull.until_ns <= self.parts.runtime.now_ns():
                self._answer(pull, error)

    async def _fetch(self, pull: Pull, *, has_some: bool) -> None:
        runtime, fetching = self.parts.runtime, self.fetching
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
        if pull.number not in self.pulls or fetching.is_under_way or self.is_ended:
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
        seen = self._last_sequence or 0
        if self._is_catching_up and seen == self._caught_up_to:
            # It is not to come: purged, or too old.
            self._looked_at = max(self._looked_at, self._sought_to)
        last = self.topic.last_sequence
        if last <= max(seen, self._looked_at):
            return
        if await self._is_delivered(last):
            # Somebody else has it.
            self._looked_at = max(self._looked_at, last)
            return
        self.fetching.is_dry, self._is_catching_up = False, True
        self._caught_up_to, self._sought_to = seen, last

    async def _is_delivered(self, sequence: int) -> bool:
        """Whether the consumer has delivered that far; False if it does not tell."""
        try:
            info = await self.parts.api.consumer(self.topic.stream, self.consumer)
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

    async def _check_consumer(self) -> None:
        """End the reader if its consumer is gone.

        Raises:
            TopicNotFound, NotSubscribed: it is.
        """
        api = self.parts.api
        try:
            if await api.consumer(self.topic.stream, self.consumer) is not None:
                return
            topic, _ = await self.parts.registry.look(self.topic.name)
        except Timeout:
            return
        if topic.topic_id != self.topic.topic_id:
            raise TopicNotFound(topic=self.topic.name)
        if self.is_durable:
            raise NotSubscribed(topic=self.topic.name, subscriber=self.subscriber)
        # It was in the memory of a node that is gone.
        at = self.position
        self.forget_held()
        await self.parts.consumers.revive(topic, self.subscriber, self.options, at)
        self.begin_at(at)

    # --- what is in hand ------------------------------------------------------------------

    def take(self, reply: Reply, delivery: Delivery) -> Held | None:
        """A batch that came; None if it is in hand already, or on its way out."""
        sequence, now_ns = delivery.sequence, self.parts.runtime.now_ns()
        self.topic.saw(sequence)
        self._note_gap(delivery)
        known = (
            self.held.get(sequence)
            or self.recalling.under_way.get(sequence)
            or self.keeping.acknowledged(sequence)
        )
        if known is not None:
            # JetStream had not heard of it for too long, as in an election.
            known.reply, known.delivered, known.touched_ns = reply.reply, delivery.delivered, now_ns
            return None
        return Held(
            sequence,
            count=batches.count_of(reply.body),
            body=reply.body,
            timestamp=delivery.timestamp,
            delivered=delivery.delivered,
            reply=reply.reply,
            place=self.parts.new_place(),
            now_ns=now_ns,
        )

    def _note_gap(self, delivery: Delivery) -> None:
        sequence, last = delivery.sequence, self._last_sequence
        self.saw(sequence)
        if last is None or sequence <= last + 1:
            return
        if not self.is_durable:
            self.skipped += sequence - last - 1
        else:
            self.mending.doubt(below=sequence)

    def is_next(self, delivery: Delivery) -> bool:
        """Whether a delivery is a first one, and comes after all that were seen here.

        What a node delivers that has led before and does not know yet that it does not is not.
        """
        is_first = delivery.delivered == 1 and delivery.consumer_sequence > 1
        return is_first and delivery.sequence > (self._last_sequence or 0)

    def saw(self, sequence: int) -> None:
        """Note that all up to there was delivered, here or elsewhere."""
        self._last_sequence = max(sequence, self._last_sequence or 0)

    def moved(self) -> None:
        """Let go of all that is in hand: the subscription was moved, or is about to be."""
        self.forget_held()
        self.confirmed.forget()
        if self.is_durable:
            self._last_sequence = None
        self.mending.doubt()

    def pause(self) -> None:
        """Take nothing while the subscription is moved, and let go of all that is in hand."""
        self.is_paused = True
        self.moved()

    def go_on(self) -> None:
        """Take what comes from the place it was moved to."""
        self.is_paused = False
        self.fetching.go_on()
        self.wake()

    def begin_at(self, sequence: int) -> None:
        """Note where an ephemeral subscription stands, so that it is told what it misses."""
        self._last_sequence = sequence - 1

    @property
    def position(self) -> int:
        """The first sequence that this server has not seen read."""
        return min(self.held, default=(self._last_sequence or 0) + 1)

    def keep(self, held: Held) -> None:
        """Take a batch in hand."""
        if self.is_ended:
            self.parts.link.publish(held.reply, b"-NAK")
            return
        self.held[held.sequence] = held
        self.changed(held)

    def drop(self, held: Held) -> None:
        """Let a batch be in hand no more."""
        self.held.pop(held.sequence, None)
        self._set_open(held, is_open=False)

    def changed(self, held: Held) -> None:
        """See to what a batch in hand asks for now."""
        held.joined()
        if held.is_done:
            self.drop(held)
            return
        self._set_open(held, is_open=held.has(NEW, READY) and not held.is_leaving)
        self._alarm.set(held.next_ns())
        if held.has(EXHAUSTED):
            self.keeping.move_dead_letters(held)
        elif not held.has(NEW, READY, LEASED, DELAYED):
            self.keeping.give_back(held)
        self._news.set()

    def _set_open(self, held: Held, *, is_open: bool) -> None:
        at = bisect_left(self._open, held.sequence)
        is_there = at < len(self._open) and self._open[at] == held.sequence
        if is_open and not is_there:
            insort(self._open, held.sequence)
        elif is_there and not is_open:
            del self._open[at]

    @property
    def open(self) -> list[int]:
        """The sequences of batches in hand that have something to grant, in order."""
        return list(self._open)

    def _in_hand(self) -> tuple[int, int]:
        """How many messages and bytes there are to grant; about, and no more than one may get."""
        messages = size = 0
        for sequence in self._open[:PIECES_MAX]:
            held = self.held[sequence]
            count = held.total(NEW, READY)
            messages += count
            size += held.size * count // held.count + PIECE_BYTES
        return messages, size

    def _has_enough(self, pull: Pull) -> bool:
        if len(self._open) >= PIECES_MAX:
            return True
        messages, size = self._in_hand()
        return messages >= pull.max_messages or size >= pull.max_bytes

    async def _grant(self, pull: Pull) -> None:
        """Lease to a pull what is in hand, and answer it."""
        chosen = self.granting.choose(pull)
        missing = [held for held, _ in chosen if held.body is None]
        if missing:
            # What comes back meanwhile may be chosen in its stead: it is looked at again.
            await self.keeping.fetch_bodies(missing)
        elif chosen:
            self._answer(pull, self.granting.lease(pull, chosen))
        elif pull.until_ns <= self.parts.runtime.now_ns():
            # All that is in hand waits for something else: there are too many ranges.
            self.cancel(pull.number)
        else:
            await self._wait(1.0)

    # --- ends of leases -------------------------------------------------------------------

    def end_lease(self, part: Part, *, ready_ns: int | None = None) -> None:
        """Let a part be granted again, or not any more if it was as often as it may be."""
        most = self.options.max_deliveries
        if most is not None and part.deliveries >= most:
            part.state = PARKED if self.options.dead_letter is None else EXHAUSTED
        elif ready_ns is None:
            part.state = READY
        else:
            part.state, part.until_ns = DELAYED, ready_ns

    def _ring(self) -> None:
        now_ns = self.parts.runtime.now_ns()
        for held in list(self.held.values()):
            due = [
                part
                for part in held.parts
                if part.state in (LEASED, DELAYED) and part.until_ns <= now_ns
            ]
            for part in due:
                if part.state is LEASED:
                    self.end_lease(part)
                else:
                    part.state = READY
            if due:
                self.changed(held)
        nexts = [at for held in self.held.values() if (at := held.next_ns()) is not None]
        self._alarm.set(min(nexts, default=None))
        self.wake()

    def release(self, member: bytes) -> None:
        """End the leases and pulls of a process whose connection is gone."""
        for pull in [one for one in self.pulls.values() if one.member == member]:
            self.cancel(pull.number)
        self.members.discard(member)
        for held in list(self.held.values()):
            with_it = [p for p in held.parts if p.state is LEASED and p.member == member]
            for part in with_it:
                self.end_lease(part)
            if with_it:
                self.changed(held)
        if not self.members:
            self.give_back_all()
        self.wake()

    def give_back_all(self) -> None:
        """Let go of all that nobody has leased."""
        for held in sorted(self.held.values(), key=lambda one: one.sequence):
            if not held.has(LEASED, EXHAUSTED):
                self.keeping.give_back(held)

    # --- now and then ---------------------------------------------------------------------

    def tend(self, now_ns: int) -> None:
        """Renew what JetStream lends, and give back what nobody pulls."""
        lease_ns = round(self.parts.options.server_lease_s * NS_PER_S)
        is_idle = not self.pulls and now_ns - self._pulled_ns > _IDLE_NS
        for held in list(self.held.values()):
            if is_idle and not held.has(LEASED, EXHAUSTED):
                self.keeping.give_back(held)
            elif now_ns - held.touched_ns > lease_ns // 3:
                held.touched_ns = now_ns
                self.parts.link.publish(held.reply, b"+WPI")

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it is of any use here."""
        return not (self.members or self.held or self.pulls or self.keeping.is_busy)

    def end(self, why: MbctlError) -> None:
        """Serve nothing more, and tell who waits why."""
        self.is_ended = True
        self._alarm.cancel()
        self.fetching.stop()
        self.parts.spawn(self.fetching.close())
        self.forget_held()
        for pull in list(self.pulls.values()):
            self._answer(pull, why)
        self.parts.forget_reader(self)
        self._news.set()

    def forget_held(self) -> None:
        """Let nothing be in hand any more: it is not ours, or was given up."""
        self.held.clear()
        self.recalling.under_way.clear()
        self._open.clear()

    def leased(self, states: Iterable[str]) -> int:
        """How many messages in hand are in one of these states."""
        return sum(held.total(*states) for held in self.held.values())
