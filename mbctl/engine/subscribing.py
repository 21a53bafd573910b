"""The verbs of subscribers, and those that an operator has for their subscriptions."""

from mbctl.core.members import Member
from mbctl.engine.interface import Done, Pulled
from mbctl.engine.parts import RANGE_BYTES, Parts
from mbctl.engine.turn import state_of
from mbctl.errors import InvalidArgument, MbctlError
from mbctl.journal.records import SubscriptionDeleted
from mbctl.model import NS_PER_MS, Range, Sought, Start, Subscribed, SubscribeOptions


class Subscribing(Parts):
    """Registers subscribers, grants what they pull, settles what they were granted."""

    def register_subscriber(self, member: bytes, name: str | None, done: Done[str]) -> None:
        """Make a reading process known; the answer is its subscriber's name."""

        def verb() -> str:
            registered, wakes = self.core.register_subscriber(member, name, self._runtime.now_ns())
            self._deliveries.wake(wakes)
            return registered.subscriber

        self._answer(done, verb)
        self._follow_up()

    def close_member(self, member: bytes) -> None:
        """Release the leases of a process whose connection is gone."""
        self._deliveries.wake(self.core.close_member(member, self._runtime.now_ns()))
        self._follow_up()

    def subscribe(
        self, member: bytes, topic: str, options: SubscribeOptions, done: Done[Subscribed]
    ) -> None:
        """Create the subscription or keep its place; answer when that is durable."""

        def verb() -> Subscribed:
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
            self._turns.reserve(earlier.ranges * RANGE_BYTES + len(reader.subscriber))
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
        self._follow_up()
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
        try:
            self._check_running()
            self._ack(member, topic, topic_id, ranges, is_carried=True)
        except MbctlError:
            pass

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
        size = len(ranges) * RANGE_BYTES + len(reader.subscriber)
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
        self._follow_up()

    def extend(
        self, member: bytes, topic: str, topic_id: int, ranges: list[Range], done: Done[int]
    ) -> None:
        """Renew leases."""
        now_ns = self._runtime.now_ns()
        core = self.core
        self._answer(
            done, lambda: core.extend(core.member(member), topic, topic_id, ranges, now_ns)
        )
        self._follow_up()

    # --- subscriptions by name ------------------------------------------------------------

    def seek(self, topic: str, subscriber: str, start: Start, done: Done[Sought]) -> None:
        """Move a subscription; its leases end and older acknowledgements change nothing."""

        def verb() -> Sought:
            self._turns.reserve(len(subscriber))
            sought, subscription, wakes = self.core.seek(
                topic,
                subscriber,
                start,
                now_ns=self._runtime.now_ns(),
                wall_ns=self._runtime.wall_ns(),
            )
            if subscription.durable:
                self._journal.append(state_of(subscription))
            self._deliveries.wake(wakes)
            return sought

        self._answer_when_durable(done, verb)
        self._follow_up()

    def release_parked(
        self, topic: str, subscriber: str, ranges: list[Range] | None, done: Done[int]
    ) -> None:
        """Let parked messages, of these ranges or all, be delivered again; how many."""

        def verb() -> int:
            self._reserve_for_parked(topic, subscriber)
            now_ns = self._runtime.now_ns()
            count, wakes = self.core.release_parked(topic, subscriber, ranges, now_ns=now_ns)
            self._deliveries.wake(wakes)
            return count

        self._answer_when_durable(done, verb)
        self._follow_up()

    def drop_parked(
        self, topic: str, subscriber: str, ranges: list[Range] | None, done: Done[int]
    ) -> None:
        """Acknowledge parked messages, of these ranges or all, for the subscription; how many."""

        def verb() -> int:
            self._reserve_for_parked(topic, subscriber)
            count, wakes = self.core.drop_parked(
                topic,
                subscriber,
                ranges,
                now_ns=self._runtime.now_ns(),
                wall_ns=self._runtime.wall_ns(),
            )
            self._deliveries.wake(wakes)
            return count

        self._answer_when_durable(done, verb)

    def _reserve_for_parked(self, topic: str, subscriber: str) -> None:
        ranges = self.core.subscription(topic, subscriber).parked_ranges()
        # Both edges may cut one, and a count is a little more than a range.
        self._turns.reserve((len(ranges) + 2) * 2 * RANGE_BYTES + len(subscriber))
