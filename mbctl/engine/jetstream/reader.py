"""One subscription as this server serves it: pulls that wait, and batches in hand.

    JetStream ──fetching──▶ in hand ──granted──▶ members ──acknowledged──▶ JetStream
                               └──given back──▶ JetStream, for any server

Batches are asked for when a pull wants them. What of a batch is not acknowledged stays in hand,
where its messages are leased one by one; JetStream lends the batch as a whole, to this server,
which renews that while it has it. What nobody here wants goes back.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mbctl import batch as batches
from mbctl.engine.alarm import Alarm
from mbctl.engine.jetstream import names
from mbctl.engine.jetstream.confirmed import Confirmed
from mbctl.engine.jetstream.fetching import Delivery, Fetching
from mbctl.engine.jetstream.held import DELAYED, EXHAUSTED, LEASED, NEW, PARKED, READY, Held, Part
from mbctl.engine.jetstream.keeping import Keeping
from mbctl.engine.jetstream.link import Reply
from mbctl.engine.jetstream.mending import Mending
from mbctl.engine.jetstream.recalling import Recalling
from mbctl.engine.jetstream.serving import Serving
from mbctl.engine.jetstream.topics import Topic
from mbctl.errors import MbctlError
from mbctl.model import NS_PER_S, SubscribeOptions

if TYPE_CHECKING:
    from mbctl.engine.jetstream.parts import Parts
    from mbctl.engine.jetstream.serving import Pull

# How long what nobody pulls is kept before it goes back to be read elsewhere.
_IDLE_NS = NS_PER_S // 2


class Reader:
    """A subscription's pulls and batches at this server."""

    def __init__(
        self, parts: "Parts", topic: Topic, subscriber: str, options: SubscribeOptions
    ) -> None:
        self.parts = parts
        self.topic = topic
        self.subscriber = subscriber
        self.is_durable = not names.is_ephemeral(subscriber)
        self.consumer = "" if self.is_durable else names.consumer_of(subscriber, topic.topic_id)
        """The name of its consumer; empty while it is to be found out, which mending does."""
        self.options = options
        self.members: set[bytes] = set()
        """The processes here that read it."""
        self.held: dict[int, Held] = {}
        self.skipped = 0
        """Batches of an ephemeral one that were given up before it got them."""
        self.fetching = Fetching(self)
        self.keeping = Keeping(self)
        self.serving = Serving(self)
        self.confirmed = Confirmed(parts, topic, subscriber, self._found_moved)
        self.recalling = Recalling(self)
        self.mending = Mending(self)
        self.is_ended = False
        self.times_moved = 0
        """So often all that was in hand was let go of, as the subscription was moved."""
        self._pauses = 0
        self._open: list[int] = []
        """The sequences of batches in hand that have something to grant."""
        self._last_sequence: int | None = None
        self._alarm = Alarm(parts.runtime, self._ring)

    @property
    def ack_wait_ns(self) -> int:
        """How long a lease lasts."""
        return round(self.options.ack_wait * NS_PER_S)

    def is_of(self, reply: str) -> bool:
        """Whether what is acknowledged there is of the consumer that the subscription has now."""
        return bool(self.consumer) and f".{self.consumer}." in reply

    def batch_key(self, sequence: int) -> str:
        """The entry of a batch that was read in part."""
        mark = names.mark_of(self.consumer)
        return names.batch_key(self.topic.topic_id, self.subscriber, mark, sequence)

    @property
    def pulls(self) -> "dict[int, Pull]":
        """Its pulls that wait here."""
        return self.serving.pulls

    def wake(self) -> None:
        """Look again at what can be granted to whom."""
        self.serving.wake()

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

    @property
    def last_sequence(self) -> int | None:
        """The highest that was delivered, as far as is known; None at first."""
        return self._last_sequence

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
        self.times_moved += 1
        self.forget_held()
        self.keeping.forget()
        self.confirmed.forget()
        if self.is_durable:
            # It has another consumer.
            self.consumer, self._last_sequence = "", None
            self.fetching.forget()
        self.mending.doubt()

    def reads(self, consumer: str) -> None:
        """That is the consumer of the subscription: it was moved, if another one is known."""
        if self.consumer not in ("", consumer):
            self.moved()

    def _found_moved(self) -> None:
        """Somebody has moved the subscription, and what told so was not heard."""
        self.moved()
        self.wake()

    @property
    def is_paused(self) -> bool:
        """Whether the subscription is being moved from here."""
        return self._pauses > 0

    def pause(self) -> None:
        """Take nothing while the subscription is moved, and let go of all that is in hand."""
        self._pauses += 1
        self.moved()

    def go_on(self) -> None:
        """Take what comes from the place it was moved to, by the last who moves it."""
        self._pauses -= 1
        if self._pauses == 0:
            self.confirmed.forget()
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
        self.serving.note()

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
        return self._open

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
            self.serving.cancel(pull.number)
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
        is_idle = not self.pulls and now_ns - self.serving.pulled_ns > _IDLE_NS
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
        self.serving.refuse_all(why)
        self.parts.forget_reader(self)

    def forget_below(self, sequence: int) -> None:
        """Let nothing be in hand that was given up; what was sent since then may be leased."""
        for held in [one for one in self.held.values() if one.sequence < sequence]:
            self.drop(held)
        under_way = self.recalling.under_way
        for gone in [one for one in under_way if one < sequence]:
            del under_way[gone]

    def forget_held(self) -> None:
        """Let nothing be in hand any more: it is not ours."""
        self.held.clear()
        self.recalling.under_way.clear()
        self._open.clear()

    def leased(self, states: Iterable[str]) -> int:
        """How many messages in hand are in one of these states."""
        return sum(held.total(*states) for held in self.held.values())
