"""The local engine: core decides, the journal stores, both in this process.

A turn: verbs of one turn of the loop change core and append records. At its end one
commit covers them all; when that is done the sends and acks of the turn are answered,
their messages become visible, waiting pulls are served, and dead places are released.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from mbctl import batch as batches
from mbctl.batch import Buffer
from mbctl.core.broker import Broker, Moved
from mbctl.core.subscription import Subscription
from mbctl.core.topic import Topic
from mbctl.engine import describe
from mbctl.engine.deliveries import Deliveries
from mbctl.engine.interface import Created, Done, EngineStatus, Pulled, Runtime, Timer
from mbctl.engine.rates import Rates
from mbctl.errors import (
    DiskFull,
    InvalidArgument,
    MbctlError,
    NotSupported,
    RequestRefused,
)
from mbctl.journal.records import (
    BatchHead,
    Journal,
    SubscriptionDeleted,
    SubscriptionState,
    TopicCreated,
    TopicDeleted,
)
from mbctl.model import (
    LIMITS,
    NS_PER_MS,
    Limits,
    Range,
    Receipt,
    Subscribed,
    SubscribeOptions,
    SubscriptionInfo,
    TopicHolds,
    TopicInfo,
    TopicSettings,
)

# Places of a deleted topic released in one turn, so that millions do not hold the loop.
_RELEASED_A_TURN = 20_000


T = TypeVar("T")


class _Turn:
    """What one commit will make durable, and who waits for it."""

    __slots__ = ("answers", "deleted", "ended", "moved", "reveals")

    def __init__(self) -> None:
        self.answers: list[tuple[Done[Any], Any]] = []
        self.reveals: dict[int, int] = {}
        """By topic id, up to which offset its messages are part of this turn."""
        self.moved: list[Moved] = []
        self.ended: list[Subscription] = []
        """The durable subscriptions that were deleted."""
        self.deleted: list[Topic] = []


class LocalEngine:
    """Core and journal behind the Engine interface."""

    name = "local"

    def __init__(
        self,
        journal: Journal,
        runtime: Runtime,
        limits: Limits = LIMITS,
        *,
        max_bytes: int,
    ) -> None:
        self.durability = journal.durability
        self.max_bytes = max_bytes
        # Without a journal on disk nobody remembers the ids of an earlier process. Time
        # makes them new all the same: no process creates a topic every microsecond.
        self.core = Broker(limits, first_topic_id=runtime.wall_ns() // 1000)
        self._limits = limits
        self._journal = journal
        self._runtime = runtime
        self._turn = _Turn()
        self._turn_is_due = False
        self._alarm: Timer | None = None
        self._alarm_ns = 0
        self._is_closed = False
        self._deliveries = Deliveries(self.core, journal, runtime)
        self._garbage: list[Iterator[int]] = []
        self._messages_in = self._bytes_in = 0
        self._rates = Rates(runtime.now_ns())

    # --- publishers -----------------------------------------------------------------------

    def register_publisher(self, session: bytes, done: Done[None]) -> None:
        """Make a publisher session known."""
        now_ns = self._runtime.now_ns()
        self._answer(done, lambda: self.core.register_publisher(session, now_ns))
        self._set_alarm()

    def send(
        self,
        session: bytes,
        sequence: int,
        topic: str,
        batch: Buffer,
        *,
        age_ms: int,
        done: Done[Receipt],
    ) -> None:
        """Validate and store a batch; answer at the end of the turn that makes it durable."""
        now_ns = self._runtime.now_ns()
        count, size, refusal = self._admit(batch)
        try:
            stored = self.core.send(
                session,
                sequence,
                topic,
                count=count,
                size=size,
                refusal=refusal,
                age_ns=age_ms * NS_PER_MS,
                now_ns=now_ns,
                wall_ns=self._runtime.wall_ns(),
            )
        except MbctlError as error:
            done(error)
            return
        receipt = stored.receipt
        if stored.is_new:
            head = BatchHead(
                stored.topic_id, receipt.offset, count, stored.timestamp, session, sequence
            )
            self.core.set_place(stored.topic_id, self._journal.append_batch(head, batch))
            self._turn.reveals[stored.topic_id] = receipt.offset + count
            self._messages_in += count
            self._bytes_in += size
        # A retry waits as well: its original may be part of a commit under way.
        self._after_commit(done, receipt)

    def _admit(self, batch: Buffer) -> tuple[int, int, RequestRefused | None]:
        """Count and size of a batch, and why it must not be stored if it must not."""
        size = memoryview(batch).nbytes
        try:
            count = batches.validate(batch, self._limits)
            if self._journal.taken + size > self.max_bytes:
                raise DiskFull(size=self._journal.taken, limit=self.max_bytes)
        except RequestRefused as refusal:
            return 0, size, refusal
        return count, size, None

    # --- topics ---------------------------------------------------------------------------

    def create_topic(
        self, topic: str, settings: TopicSettings, exist_ok: bool, done: Done[Created]
    ) -> None:
        """Create a topic, or find that it exists with equal settings."""
        try:
            _refuse_unbuilt_settings(settings)
            found, created = self.core.create_topic(
                topic, settings, exist_ok=exist_ok, created=self._runtime.wall_ns()
            )
        except MbctlError as error:
            done(error)
            return
        if created:
            self._journal.append(TopicCreated(found.topic_id, topic, settings, found.created))
        self._after_commit(done, Created(found.topic_id, created))

    def delete_topic(self, topic: str, done: Done[None]) -> None:
        """Delete a topic; its space is released over the next turns."""
        try:
            deleted, wakes = self.core.delete_topic(topic)
        except MbctlError as error:
            done(error)
            return
        self._journal.append(TopicDeleted(deleted.topic_id))
        self._turn.deleted.append(deleted)
        self._deliveries.wake(wakes)
        self._after_commit(done, None)

    # --- subscribers ----------------------------------------------------------------------

    def register_subscriber(self, member: bytes, name: str | None, done: Done[str]) -> None:
        """Make a reading process known; the answer is its subscriber's name."""
        try:
            registered, wakes = self.core.register_subscriber(member, name, self._runtime.now_ns())
        except MbctlError as error:
            done(error)
            return
        self._deliveries.wake(wakes)
        self._set_alarm()
        done(registered.subscriber)

    def close_member(self, member: bytes) -> None:
        """Release the leases of a process whose connection is gone."""
        self._deliveries.wake(self.core.close_member(member, self._runtime.now_ns()))
        self._set_alarm()

    def subscribe(
        self, member: bytes, topic: str, options: SubscribeOptions, done: Done[Subscribed]
    ) -> None:
        """Create the subscription or keep its place; answer when that is durable."""
        try:
            _refuse_unbuilt_options(options)
            subscribed = self.core.subscribe(
                self.core.member(member), topic, options, wall_ns=self._runtime.wall_ns()
            )
        except MbctlError as error:
            done(error)
            return
        self._after_commit(done, subscribed)

    def unsubscribe(self, topic: str, subscriber: str, done: Done[None]) -> None:
        """Delete a subscription; what only it held is released."""
        try:
            ended, wakes = self.core.unsubscribe(topic, subscriber)
        except MbctlError as error:
            done(error)
            return
        if ended.durable:
            self._journal.append(SubscriptionDeleted(ended.topic.topic_id, subscriber))
            self._turn.ended.append(ended)
        self._deliveries.wake(wakes)
        self._after_commit(done, None)

    def pull(
        self,
        member: bytes,
        topic: str,
        *,
        max_messages: int,
        max_bytes: int,
        wait_ms: int,
        done: Done[Pulled],
    ) -> int | None:
        """Answer with messages as soon as there are some, empty after ``wait_ms``."""
        max_bytes = min(max_bytes, self._limits.pull_bytes)
        number = self._deliveries.expect(member, max_bytes, done)
        try:
            if max_messages < 1 or max_bytes < 1:
                raise InvalidArgument(reason="a pull asks for at least 1 message and 1 byte")
            grant = self.core.pull(
                self.core.member(member),
                topic,
                max_messages=max_messages,
                max_bytes=max_bytes,
                wait_ns=wait_ms * NS_PER_MS,
                token=number,
                now_ns=self._runtime.now_ns(),
                wall_ns=self._runtime.wall_ns(),
            )
        except MbctlError as error:
            self._deliveries.answer(number, error)
            return None
        self._set_alarm()
        if grant is None:
            return number
        self._deliveries.answer(number, grant)
        return None

    def cancel_pull(self, pull: int) -> None:
        """Answer a waiting pull now, empty; nothing if it has been answered."""
        self._deliveries.wake(self.core.cancel_pull(pull))

    def ack(
        self, member: bytes, topic: str, topic_id: int, ranges: list[Range], done: Done[int]
    ) -> None:
        """Acknowledge; answer when that is durable."""
        try:
            count = self._ack(member, topic, topic_id, ranges)
        except MbctlError as error:
            done(error)
            return
        self._after_commit(done, count)

    def ack_with_pull(self, member: bytes, topic: str, topic_id: int, ranges: list[Range]) -> None:
        """Acknowledge what can be; what cannot is delivered again, as if nothing had been said."""
        with suppress(MbctlError):
            self._ack(member, topic, topic_id, ranges)

    def _ack(self, member: bytes, topic: str, topic_id: int, ranges: list[Range]) -> int:
        count, wakes = self.core.ack(
            self.core.member(member),
            topic,
            topic_id,
            ranges,
            now_ns=self._runtime.now_ns(),
            wall_ns=self._runtime.wall_ns(),
        )
        self._deliveries.wake(wakes)
        self._end_turn_soon()
        return count

    def nack(
        self,
        member: bytes,
        topic: str,
        topic_id: int,
        ranges: list[Range],
        *,
        delay_ms: int,
        counted: bool,
        done: Done[int],
    ) -> None:
        """Give leased messages back, at once or after ``delay_ms``."""
        try:
            count, wakes = self.core.nack(
                self.core.member(member),
                topic,
                topic_id,
                ranges,
                delay_ns=delay_ms * NS_PER_MS,
                counted=counted,
                now_ns=self._runtime.now_ns(),
            )
        except MbctlError as error:
            done(error)
            return
        self._deliveries.wake(wakes)
        self._set_alarm()
        done(count)

    def extend(
        self, member: bytes, topic: str, topic_id: int, ranges: list[Range], done: Done[int]
    ) -> None:
        """Renew leases."""
        now_ns = self._runtime.now_ns()
        core = self.core
        self._answer(
            done, lambda: core.extend(core.member(member), topic, topic_id, ranges, now_ns)
        )
        self._set_alarm()

    # --- read-only ------------------------------------------------------------------------

    def topics(self, done: Done[list[TopicInfo]]) -> None:
        """All topics, by name."""
        topics = sorted(self.core.topics, key=lambda topic: topic.name)
        done([describe.topic(topic, self.durability) for topic in topics])

    def topic(self, topic: str, done: Done[TopicInfo]) -> None:
        """One topic."""
        self._answer(done, lambda: describe.topic(self.core.topics.named(topic), self.durability))

    def why(self, topic: str, done: Done[TopicHolds]) -> None:
        """Who keeps the messages of a topic alive."""
        self._answer(done, lambda: describe.holds(self.core.topics.named(topic)))

    def subscriptions(self, topic: str | None, done: Done[list[SubscriptionInfo]]) -> None:
        """All subscriptions, or those of one topic."""
        self._answer(done, lambda: describe.subscriptions(self.core, topic))

    def subscription(self, topic: str, subscriber: str, done: Done[SubscriptionInfo]) -> None:
        """One subscription."""
        core = self.core
        self._answer(done, lambda: describe.subscription(core.subscription(topic, subscriber)))

    def status(self, done: Done[EngineStatus]) -> None:
        """Counters and sizes."""
        core, delivered = self.core, self._deliveries
        counts = (self._messages_in, delivered.messages)
        in_per_s, out_per_s = self._rates.per_second(self._runtime.now_ns(), *counts)
        done(
            EngineStatus(
                engine=self.name,
                durability=self.durability,
                topics=len(core.topics),
                subscriptions=core.subscription_count,
                publishers=core.session_count,
                messages=sum(topic.messages for topic in core.topics),
                bytes=self._journal.size,
                max_bytes=self.max_bytes,
                messages_in=self._messages_in,
                messages_out=delivered.messages,
                bytes_in=self._bytes_in,
                bytes_out=delivered.bytes,
                messages_in_per_s=in_per_s,
                messages_out_per_s=out_per_s,
            )
        )

    def close(self, done: Callable[[], None]) -> None:
        """Answer waiting pulls, commit and answer what was accepted, then call ``done``."""
        self._deliveries.cancel_all()
        self._end_turn()
        self._is_closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        self._journal.commit(done)

    # --- the end of a turn ----------------------------------------------------------------

    def _answer(self, done: Done[T], verb: Callable[[], T]) -> None:
        """Answer with what ``verb`` returns or refuses."""
        try:
            answer = verb()
        except MbctlError as error:
            done(error)
        else:
            done(answer)

    def _after_commit(self, done: Done[T], answer: T) -> None:
        self._turn.answers.append((done, answer))
        self._end_turn_soon()

    def _end_turn_soon(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self._runtime.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turn_is_due = False
        if self._is_closed:
            return
        turn, self._turn = self._turn, _Turn()
        turn.moved = self.core.take_moved()
        for move in turn.moved:
            self._journal.append(_state_of(move.subscription))
        self._journal.commit(partial(self._committed, turn))

    def _committed(self, turn: _Turn) -> None:
        """The turn is durable: show it, answer it, and release what it set free."""
        now_ns = self._runtime.now_ns()
        for topic_id, next_offset in turn.reveals.items():
            self._deliveries.wake(self.core.reveal(topic_id, next_offset, now_ns))
        for done, answer in turn.answers:
            done(answer)
        self._journal.release(self.core.reclaim(turn.moved, turn.ended))
        self._garbage += [iter(topic.index.places()) for topic in turn.deleted]
        self._release_garbage()
        self._rates.sample(now_ns, self._messages_in, self._deliveries.messages)
        self._set_alarm()

    def _release_garbage(self) -> None:
        """Release some places of deleted topics, the rest in turns to come."""
        if not self._garbage:
            return
        places = list(islice(self._garbage[-1], _RELEASED_A_TURN))
        self._journal.release(places)
        if len(places) < _RELEASED_A_TURN:
            self._garbage.pop()
        if self._garbage:
            self._end_turn_soon()

    # --- deadlines ------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        """Have one timer stand at core's nearest deadline, or earlier."""
        when_ns = self.core.next_deadline_ns()
        if when_ns is None or self._is_closed:
            return
        if self._alarm is not None and self._alarm_ns <= when_ns:
            # A timer that comes too early only looks again; moving it costs more.
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_ns = when_ns
        self._alarm = self._runtime.call_at(when_ns, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if not self._is_closed:
            self._deliveries.wake(self.core.expire(self._runtime.now_ns()))
            self._set_alarm()


def _state_of(subscription: Subscription) -> SubscriptionState:
    return SubscriptionState(
        subscription.topic.topic_id,
        subscription.subscriber,
        subscription.cursor,
        list(subscription.acknowledged),
        subscription.ack_wait_ns,
        subscription.created,
    )


def _refuse_unbuilt_settings(settings: TopicSettings) -> None:
    for bound in (settings.max_messages, settings.max_bytes):
        if bound is not None and bound < 1:
            raise InvalidArgument(reason=f"a bound of a topic is at least 1, not {bound}")
    for name in ("max_age", "retain_age", "retain_bytes"):
        if getattr(settings, name) is not None:
            raise NotSupported(what=f"the topic setting {name}")
    if settings.when_full != "refuse":
        raise NotSupported(what=f"when_full={settings.when_full!r}")


def _refuse_unbuilt_options(options: SubscribeOptions) -> None:
    for name in ("max_deliveries", "dead_letter"):
        if getattr(options, name) is not None:
            raise NotSupported(what=f"the subscription option {name}")
