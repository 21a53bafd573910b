"""The verbs that only look: topics, subscriptions, messages, the engine; and the backup."""

from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

from mbctl.engine import describe
from mbctl.engine.interface import Done, EngineStatus, Pulled
from mbctl.engine.parts import Parts
from mbctl.errors import InvalidArgument, MbctlError
from mbctl.journal.records import Backup
from mbctl.model import Start, SubscriptionInfo, TopicHolds, TopicInfo

# So many items of a list are looked at in one turn: arbitrary, about a millisecond.
_LISTED_A_TURN = 100

T = TypeVar("T")


class Looking(Parts):
    """Tells what there is, and changes nothing."""

    name = "local"

    def topics(self, done: Done[list[TopicInfo]]) -> None:
        """All topics, by name."""
        topics = sorted(self.core.topics, key=lambda topic: topic.name)
        self._list(done, (describe.topic(topic, self.durability) for topic in topics))

    def topic(self, topic: str, done: Done[TopicInfo]) -> None:
        """One topic."""
        self._answer(done, lambda: describe.topic(self.core.topics.named(topic), self.durability))

    def why(self, topic: str, done: Done[TopicHolds]) -> None:
        """Who keeps the messages of a topic alive."""
        self._answer(done, lambda: describe.holds(self.core.topics.named(topic)))

    def subscriptions(self, topic: str | None, done: Done[list[SubscriptionInfo]]) -> None:
        """All subscriptions, or those of one topic."""
        self._list(done, describe.subscriptions(self.core, topic))

    def _list(self, done: Done[list[T]], items: Iterator[T]) -> None:
        """Answer with all items, looked at a portion a turn: there may be 100,000."""
        found: list[T] = []

        def look_at_some() -> bool:
            try:
                self._check_running()
                portion = list(islice(items, _LISTED_A_TURN))
            except MbctlError as error:
                done(error)
                return False
            found.extend(portion)
            if len(portion) == _LISTED_A_TURN:
                return True
            done(found)
            return False

        # The first portion at once, for most lists are short.
        if look_at_some():
            self._portions.add(look_at_some)

    def subscription(self, topic: str, subscriber: str, done: Done[SubscriptionInfo]) -> None:
        """One subscription."""
        core = self.core
        self._answer(done, lambda: describe.subscription(core.subscription(topic, subscriber)))

    def peek(
        self, topic: str, start: Start, *, max_messages: int, max_bytes: int, done: Done[Pulled]
    ) -> None:
        """Show messages without a subscription, from ``start`` or the first kept after it on."""
        max_bytes = min(max_bytes, self._limits.pull_bytes)
        try:
            self._check_running()
            if max_messages < 1 or max_bytes < 1:
                raise InvalidArgument(reason="a peek asks for at least 1 message and 1 byte")
            found, pieces = self.core.peek(
                topic, start, max_messages=max_messages, max_bytes=max_bytes
            )
        except MbctlError as error:
            done(error)
            return
        self._deliveries.show(found, pieces, max_bytes, done)

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

    def backup(self, done: Done[Backup]) -> None:
        """All that is durable now, to be read piece by piece."""
        try:
            self._check_running()
        except MbctlError as error:
            done(error)
            return
        self._journal.backup(done)
