"""Turns: what one turn of the loop changed is stored together, and answered when it is durable.

    current ──end──▶ under way ──committed──▶ shown, answered, released
       └──────────────────┴────────fail──────▶ answered with OutcomeUnknown

Turns are committed in the order in which they ended.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from mbctl.core.broker import Broker
from mbctl.core.changes import Changes
from mbctl.core.subscription import Subscription
from mbctl.core.topic import Topic, Trimmed
from mbctl.engine.interface import Done, Runtime, Timer
from mbctl.errors import DiskFull, OutcomeUnknown
from mbctl.journal.records import (
    Acknowledged,
    Journal,
    Redelivered,
    SubscriptionState,
    TopicTrimmed,
)
from mbctl.model import NS_PER_MS

# What a count of deliveries takes in a record, at most: three numbers, a head and a flag.
_COUNT_BYTES = 28
# How long an acknowledgement that nobody waits for may be in memory only.
_CARRIED_NS = 100 * NS_PER_MS

T = TypeVar("T")


class Turn:
    """What one commit will make durable, and who waits for it."""

    __slots__ = ("answers", "deleted", "reveals", "trimmed")

    def __init__(self) -> None:
        self.answers: list[tuple[Done[Any], Any]] = []
        self.reveals: dict[int, int] = {}
        """By topic id, up to which offset its messages are part of this turn."""
        self.trimmed: list[Sequence[int]] = []
        """The places of batches that every subscription has read."""
        self.deleted: list[Topic] = []


class Turns:
    """The turn that gathers, and those that are on their way to the disk."""

    def __init__(
        self,
        core: Broker,
        journal: Journal,
        runtime: Runtime,
        on_committed: Callable[[Turn], None],
    ) -> None:
        self.current = Turn()
        self.under_way: deque[Turn] = deque()
        self._core = core
        self._journal = journal
        self._runtime = runtime
        self._on_committed = on_committed
        # Where a commit costs nothing, waiting would only add to the work of the next send.
        self._is_free = journal.durability == "memory"
        self._is_due = False
        self._is_over = False
        self._is_failed = False
        self._timer: Timer | None = None
        # What was given up while there was no room to store that: stored later, and kept
        # until then.
        self._postponed: list[Trimmed] = []

    @property
    def are_storing(self) -> bool:
        """Whether something is on its way to the disk, or goes there next."""
        return bool(self.under_way) or (self._is_due and not self._is_free)

    def answer_when_durable(self, done: Done[T], answer: T) -> None:
        """Call ``done`` when all that happened so far is durable."""
        if self._is_failed:
            done(_unknown())
            return
        self.current.answers.append((done, answer))
        self.end_soon()

    def reserve(self, size: int, *, is_carried: bool = False) -> None:
        """Use what is kept back for changes that may free space, about ``size`` bytes of it.

        Raises:
            DiskFull: even that is used up.
        """
        self._journal.check_room(size, is_reserved=True)
        # Also when core refuses then: the end of the turn gives back what was not used.
        if is_carried:
            self.end_in_a_while()
        else:
            self.end_soon()

    def end_soon(self) -> None:
        """End the turn when what this turn of the loop brought in has been handled."""
        if not self._is_due and not self._is_over:
            self._is_due = True
            self._runtime.call_soon(self.end)

    def end_in_a_while(self) -> None:
        """End the turn a little later, unless it ends before that for another reason."""
        if self._is_free:
            self.end_soon()
        elif not self._is_due and not self._is_over and self._timer is None:
            when_ns = self._runtime.now_ns() + _CARRIED_NS
            self._timer = self._runtime.call_at(when_ns, self.end)

    def end(self) -> None:
        """Store what changed, and begin to make durable all of this turn."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_due = False
        if self._is_over:
            return
        turn, self.current = self.current, Turn()
        self.under_way.append(turn)
        if self._core.has_changes or self._postponed:
            self._append(self._core.take_changes(), turn)
        self._journal.commit(partial(self._committed, turn))

    def _append(self, changes: Changes, turn: Turn) -> None:
        """Store what no verb has stored itself."""
        for subscription, ranges in changes.acknowledged:
            topic_id = subscription.topic.topic_id
            self._journal.append(Acknowledged(topic_id, subscription.subscriber, ranges))
        for subscription, counts in changes.redelivered:
            # A full disk may make a count come out short after a crash, and no pull waits.
            if self._has_room(len(counts) * _COUNT_BYTES + len(subscription.subscriber)):
                topic_id = subscription.topic.topic_id
                self._journal.append(Redelivered(topic_id, subscription.subscriber, counts))
        postponed, self._postponed = self._postponed, []
        for trimmed in (*postponed, *changes.trimmed):
            topic_id = trimmed.topic.topic_id
            if self._core.topics.with_id(topic_id) is None:
                # That it is deleted is stored, and says as much.
                turn.trimmed.append(trimmed.places)
            elif not self._postponed and self._has_room(0):
                self._journal.append(TopicTrimmed(topic_id, trimmed.first_offset, trimmed.reason))
                turn.trimmed.append(trimmed.places)
            else:
                # What time gives up can wait, and what comes after it then waits as well.
                self._postponed.append(trimmed)
        if self._postponed:
            self.end_in_a_while()

    def _has_room(self, size: int) -> bool:
        try:
            self._journal.check_room(size, is_reserved=True)
        except DiskFull:
            return False
        return True

    def end_for_good(self) -> None:
        """End the turn, which is the last one."""
        self.end()
        self._is_over = True

    def fail(self) -> None:
        """Tell all who wait that it is unknown what became of their requests."""
        self._is_failed = self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        turns = [*self.under_way, self.current]
        self.under_way.clear()
        self.current = Turn()
        for turn in turns:
            for done, _ in turn.answers:
                done(_unknown())

    def _committed(self, turn: Turn) -> None:
        if self._is_failed:
            return
        first = self.under_way.popleft()
        assert first is turn
        self._on_committed(turn)


def state_of(subscription: Subscription) -> SubscriptionState:
    """All that is stored of a durable subscription, as it stands now."""
    subscription.skip_reclaimed()
    return SubscriptionState(
        subscription.topic.topic_id,
        subscription.subscriber,
        subscription.cursor,
        list(subscription.acknowledged),
        subscription.ack_wait_ns,
        subscription.created,
        subscription.max_deliveries,
        subscription.dead_letter,
        subscription.counts(),
        subscription.dropped,
        subscription.expired,
    )


def _unknown() -> OutcomeUnknown:
    return OutcomeUnknown(what="the request, which was under way when the server failed,")
