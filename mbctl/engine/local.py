"""The local engine: core decides, the journal stores, both in this process.

A turn: verbs of one turn of the loop change core and append records. At its end one
commit covers them all; when that is done the sends and acks of the turn are answered,
their messages become visible, waiting pulls are served, and dead places are released.

Room is asked for before core is touched. After that nothing is refused any more: when the
journal fails, the engine answers that the outcome is unknown, and stops.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from mbctl import batch as batches
from mbctl.batch import Buffer
from mbctl.core.broker import Broker
from mbctl.core.members import Member
from mbctl.engine import describe
from mbctl.engine.alarm import Alarm
from mbctl.engine.deliveries import Deliveries
from mbctl.engine.garbage import Garbage
from mbctl.engine.interface import Created, Done, EngineStatus, Pulled, Runtime
from mbctl.engine.rates import Rates
from mbctl.engine.restore import Clamped, Restored, restore
from mbctl.engine.turn import Turn, Turns, state_of
from mbctl.engine.unbuilt import refuse_unbuilt_options, refuse_unbuilt_settings
from mbctl.errors import InvalidArgument, MbctlError, RequestRefused, ServerStopping
from mbctl.journal.records import (
    BatchHead,
    Journal,
    Recovered,
    SubscriptionDeleted,
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

# What a range of offsets takes in a record, at most: two numbers and a head.
_RANGE_BYTES = 20

T = TypeVar("T")


class LocalEngine:
    """Core and journal behind the Engine interface."""

    name = "local"

    def __init__(
        self,
        journal: Journal,
        runtime: Runtime,
        limits: Limits = LIMITS,
        recovered: Recovered | None = None,
    ) -> None:
        self.durability = journal.durability
        if recovered is None:
            # Without a journal on disk nobody remembers the ids of an earlier process. Time
            # makes them new all the same: no process creates a topic every microsecond.
            self.core = Broker(limits, first_topic_id=runtime.wall_ns() // 1000)
        else:
            self.core = Broker(limits, first_topic_id=recovered.next_topic_id)
        self.clamped: list[Clamped] = []
        """The recovered subscriptions whose place shows that messages were lost."""
        self.on_failure: Callable[[MbctlError], None] = _nobody
        self._limits = limits
        self._journal = journal
        self._runtime = runtime
        self._is_stopped = False
        self._closed: Callable[[], None] | None = None
        self._turns = Turns(self.core, journal, runtime, self._show_committed)
        self._deliveries = Deliveries(self.core, journal, runtime, self._turns)
        self._garbage = Garbage(journal, runtime)
        self._alarm = Alarm(runtime, self._ring)
        self._messages_in = self._bytes_in = 0
        self._rates = Rates(runtime.now_ns())
        journal.on_failure = self._fail
        if recovered is not None:
            self._begin_with(restore(self.core, recovered, runtime.now_ns()))

    def _begin_with(self, restored: Restored) -> None:
        self.clamped = restored.clamped
        for clamped in restored.clamped:
            # Stored as it stands now: its old place would count messages to come as read.
            subscription = self.core.subscription(clamped.topic, clamped.subscriber)
            self._journal.append(state_of(subscription))
        for places in restored.places:
            self._garbage.add(places)
        self._turns.end_soon()
        self._set_alarm()

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
        try:
            self._check_running()
            count, size, refusal = self._admit(batch)
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
            self._turns.current.reveals[stored.topic_id] = receipt.offset + count
            self._messages_in += count
            self._bytes_in += size
        # A retry waits as well: its original may be part of a commit under way.
        self._turns.answer_when_durable(done, receipt)

    def _admit(self, batch: Buffer) -> tuple[int, int, RequestRefused | None]:
        """Count and size of a batch, and why it must not be stored if it must not."""
        size = memoryview(batch).nbytes
        try:
            count = batches.validate(batch, self._limits)
            self._journal.check_room(size)
        except RequestRefused as refusal:
            return 0, size, refusal
        return count, size, None

    # --- topics ---------------------------------------------------------------------------

    def create_topic(
        self, topic: str, settings: TopicSettings, exist_ok: bool, done: Done[Created]
    ) -> None:
        """Create a topic, or find that it exists with equal settings."""

        def verb() -> Created:
            refuse_unbuilt_settings(settings)
            if topic not in self.core.topics:
                self._journal.check_room(0)
            found, created = self.core.create_topic(
                topic, settings, exist_ok=exist_ok, created=self._runtime.wall_ns()
            )
            if created:
                self._journal.append(TopicCreated(found.topic_id, topic, settings, found.created))
            return Created(found.topic_id, created)

        self._answer_when_durable(done, verb)

    def delete_topic(self, topic: str, done: Done[None]) -> None:
        """Delete a topic; its space is released over the next turns."""

        def verb() -> None:
            self._turns.reserve(0)
            deleted, wakes = self.core.delete_topic(topic)
            self._journal.append(TopicDeleted(deleted.topic_id))
            self._turns.current.deleted.append(deleted)
            self._deliveries.wake(wakes)

        self._answer_when_durable(done, verb)

    # --- subscribers ----------------------------------------------------------------------

    def register_subscriber(self, member: bytes, name: str | None, done: Done[str]) -> None:
        """Make a reading process known; the answer is its subscriber's name."""

        def verb() -> str:
            registered, wakes = self.core.register_subscriber(member, name, self._runtime.now_ns())
            self._deliveries.wake(wakes)
            return registered.subscriber

        self._answer(done, verb)
        self._set_alarm()

    def close_member(self, member: bytes) -> None:
        """Release the leases of a process whose connection is gone."""
        self._deliveries.wake(self.core.close_member(member, self._runtime.now_ns()))
        self._set_alarm()

    def subscribe(
        self, member: bytes, topic: str, options: SubscribeOptions, done: Done[Subscribed]
    ) -> None:
        """Create the subscription or keep its place; answer when that is durable."""

        def verb() -> Subscribed:
            refuse_unbuilt_options(options)
            reader = self.core.member(member)
            self._check_room_to_subscribe(reader, topic)
            subscribed, changed = self.core.subscribe(
                reader, topic, options, wall_ns=self._runtime.wall_ns()
            )
            if changed is not None:
                self._journal.append(state_of(changed))
            return subscribed

        self._answer_when_durable(done, verb)

    def _check_room_to_subscribe(self, reader: Member, topic: str) -> None:
        """Refuse what there is no room for. Coming back to a subscription may free space."""
        earlier = self.core.topics.named(topic).subscriptions.get(reader.subscriber)
        if earlier is not None:
            self._turns.reserve(earlier.ranges * _RANGE_BYTES + len(reader.subscriber))
        elif reader.durable:
            self._journal.check_room(0)

    def unsubscribe(self, topic: str, subscriber: str, done: Done[None]) -> None:
        """Delete a subscription; what only it held is released."""

        def verb() -> None:
            self._turns.reserve(len(subscriber))
            ended, wakes = self.core.unsubscribe(topic, subscriber)
            if ended.durable:
                self._journal.append(SubscriptionDeleted(ended.topic.topic_id, subscriber))
            self._deliveries.wake(wakes)

        self._answer_when_durable(done, verb)

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
            self._check_running()
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
        self._answer_when_durable(done, lambda: self._ack(member, topic, topic_id, ranges))

    def ack_with_pull(self, member: bytes, topic: str, topic_id: int, ranges: list[Range]) -> None:
        """Acknowledge what can be; what cannot is delivered again, as if nothing had been said.

        It is stored with the next turn that ends, a little later if nothing else ends one.
        """
        with suppress(MbctlError):
            self._check_running()
            self._ack(member, topic, topic_id, ranges, is_carried=True)

    def _ack(
        self,
        member: bytes,
        topic: str,
        topic_id: int,
        ranges: list[Range],
        *,
        is_carried: bool = False,
    ) -> int:
        reader = self.core.member(member)
        size = len(ranges) * _RANGE_BYTES + len(reader.subscriber)
        self._turns.reserve(size, is_carried=is_carried)
        count, wakes = self.core.ack(
            reader,
            topic,
            topic_id,
            ranges,
            now_ns=self._runtime.now_ns(),
            wall_ns=self._runtime.wall_ns(),
        )
        self._deliveries.wake(wakes)
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

        def verb() -> int:
            count, wakes = self.core.nack(
                self.core.member(member),
                topic,
                topic_id,
                ranges,
                delay_ns=delay_ms * NS_PER_MS,
                counted=counted,
                now_ns=self._runtime.now_ns(),
            )
            self._deliveries.wake(wakes)
            return count

        self._answer(done, verb)
        self._set_alarm()

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
        self._answer(done, lambda: [describe.topic(topic, self.durability) for topic in topics])

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
        self._answer(done, self._status)

    def _status(self) -> EngineStatus:
        core, delivered = self.core, self._deliveries
        counts = (self._messages_in, delivered.messages)
        in_per_s, out_per_s = self._rates.per_second(self._runtime.now_ns(), *counts)
        return EngineStatus(
            engine=self.name,
            durability=self.durability,
            topics=len(core.topics),
            subscriptions=core.subscription_count,
            publishers=core.session_count,
            messages=sum(topic.messages for topic in core.topics),
            bytes=sum(topic.index.size for topic in core.topics),
            max_bytes=self._journal.max_bytes,
            messages_in=self._messages_in,
            messages_out=delivered.messages,
            bytes_in=self._bytes_in,
            bytes_out=delivered.bytes,
            messages_in_per_s=in_per_s,
            messages_out_per_s=out_per_s,
            syncs=self._journal.syncs,
        )

    # --- answers --------------------------------------------------------------------------

    def _check_running(self) -> None:
        if self._is_stopped:
            raise ServerStopping

    def _answer(self, done: Done[T], verb: Callable[[], T]) -> None:
        """Answer with what ``verb`` returns or refuses."""
        try:
            self._check_running()
            answer = verb()
        except MbctlError as error:
            done(error)
        else:
            done(answer)

    def _answer_when_durable(self, done: Done[T], verb: Callable[[], T]) -> None:
        """Answer with what ``verb`` returns when that is durable, or refuses now."""
        try:
            self._check_running()
            answer = verb()
        except MbctlError as error:
            done(error)
        else:
            self._turns.answer_when_durable(done, answer)

    def _show_committed(self, turn: Turn) -> None:
        """The turn is durable: show it, answer it, and release what it set free."""
        now_ns = self._runtime.now_ns()
        for topic_id, next_offset in turn.reveals.items():
            self._deliveries.wake(self.core.reveal(topic_id, next_offset, now_ns))
        for done, answer in turn.answers:
            done(answer)
        for places in turn.trimmed:
            self._garbage.add(places)
        for topic in turn.deleted:
            self._garbage.add(topic.index.places())
        self._rates.sample(now_ns, self._messages_in, self._deliveries.messages)
        self._set_alarm()
        self._close_when_idle()

    # --- deadlines ------------------------------------------------------------------------

    def _set_alarm(self) -> None:
        if not self._is_stopped:
            self._alarm.set(self.core.next_deadline_ns())

    def _ring(self) -> None:
        self._deliveries.wake(self.core.expire(self._runtime.now_ns()))
        self._set_alarm()

    # --- the end --------------------------------------------------------------------------

    def close(self, done: Callable[[], None]) -> None:
        """Answer waiting pulls, commit and answer what was accepted, then call ``done``."""
        self._is_stopped = True
        self._alarm.cancel()
        self._turns.end_for_good()
        self._closed = done
        self._deliveries.close(self._close_when_idle)

    def _close_when_idle(self) -> None:
        """Close the journal once the last turn is durable and the last read is answered."""
        if self._closed is not None and not self._turns.under_way and not self._deliveries.count:
            done, self._closed = self._closed, None
            self._garbage.stop()
            self._journal.close(done)

    def _fail(self, error: MbctlError) -> None:
        """The journal ended: nothing that is under way will be known to be durable."""
        self._is_stopped = True
        # First, so that the process ends whatever comes of telling the others.
        self.on_failure(error)
        self._alarm.cancel()
        self._garbage.stop()
        self._turns.fail()
        self._deliveries.fail()
        self._close_when_idle()


def _nobody(error: MbctlError) -> None:
    """Nobody is to be told."""
