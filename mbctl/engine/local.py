"""The local engine: core decides, the journal stores, both in this process.

A turn: verbs of one turn of the loop change core and append records. At its end one
commit covers them all; when that is done the sends and acks of the turn are answered,
their messages become visible, waiting pulls are served, and dead places are released.

Room is asked for before core is touched. After that nothing is refused any more: when the
journal fails, the engine answers that the outcome is unknown, and stops.

The verbs are in ``publishing``, ``subscribing`` and ``looking``; here is what begins, what
ends, and what comes of time.
"""

from collections.abc import Callable, Sequence
from functools import partial

from mbctl.core.broker import Broker
from mbctl.engine.deliveries import Deliveries
from mbctl.engine.interface import Runtime
from mbctl.engine.looking import Looking
from mbctl.engine.publishing import Publishing
from mbctl.engine.restore import Clamped, Restored, restore
from mbctl.engine.subscribing import Subscribing
from mbctl.engine.turn import Turn, state_of
from mbctl.errors import MbctlError
from mbctl.journal.records import Journal, Recovered
from mbctl.model import LIMITS, NS_PER_MS, Limits

# How often the journal is asked whether it is nearly full, and what that is.
_PRESSURE_NS = 100 * NS_PER_MS
_PRESSURE_SHARE = 0.9


class LocalEngine(Publishing, Subscribing, Looking):
    """Core and journal behind the Engine interface."""

    def __init__(
        self,
        journal: Journal,
        runtime: Runtime,
        limits: Limits = LIMITS,
        recovered: Recovered | None = None,
    ) -> None:
        # Without a journal on disk nobody remembers the ids of an earlier process. Time
        # makes them new all the same: no process creates a topic every microsecond.
        first_id = runtime.wall_ns() // 1000 if recovered is None else recovered.next_topic_id
        super().__init__(Broker(limits, first_topic_id=first_id), journal, runtime, limits)
        self.clamped: list[Clamped] = []
        """The recovered subscriptions whose place shows that messages were lost."""
        self.on_failure: Callable[[MbctlError], None] = _nobody
        self._closed: Callable[[], None] | None = None
        self._asked_ns = runtime.now_ns()
        self._finishing = 0
        """Turns that are answered and leave something to be done."""
        journal.on_failure = self._fail
        journal.index = _Index(self.core, self._deliveries)
        if recovered is not None:
            self._begin_with(restore(self.core, recovered, runtime.now_ns()))

    def is_storing(self) -> bool:
        """Whether something is on its way to the disk, or goes there next."""
        return self._turns.are_storing

    def _begin_with(self, restored: Restored) -> None:
        self.clamped = restored.clamped
        for clamped in restored.clamped:
            # Stored as it stands now: its old place would count messages to come as read.
            subscription = self.core.subscription(clamped.topic, clamped.subscriber)
            self._journal.append(state_of(subscription))
        for places in restored.places:
            self._garbage.add(places)
        self._turns.end_soon()
        self._follow_up()

    # --- what is durable ------------------------------------------------------------------

    def _show_committed(self, turn: Turn) -> None:
        """The turn is durable: show it and answer it; the rest when the answers are out."""
        now_ns = self._runtime.now_ns()
        for topic_id, next_offset in turn.reveals.items():
            self._deliveries.wake(self.core.reveal(topic_id, next_offset, now_ns))
        for done, answer in turn.answers:
            done(answer)
        self._finishing += 1
        self._runtime.call_soon(partial(self._finish, turn, now_ns))

    def _finish(self, turn: Turn, now_ns: int) -> None:
        """Release what the turn set free, and see to what it leaves to be done."""
        self._finishing -= 1
        for places in turn.trimmed:
            # Some of it may have been granted, and wait its turn to be read.
            self._deliveries.after_wakes(partial(self._garbage.add, places))
        for topic in turn.deleted:
            self._deliveries.after_wakes(partial(self._garbage.add, topic.index.places()))
        self._rates.sample(now_ns, self._messages_in, self._deliveries.messages)
        if now_ns >= self._asked_ns + _PRESSURE_NS:
            self._relieve(now_ns)
        self._follow_up()
        if self._closed is not None:
            self._close_when_idle()

    def _relieve(self, now_ns: int) -> None:
        """Give up what is only retained before anything is refused for lack of room."""
        self._asked_ns = now_ns
        journal = self._journal
        if not self._is_stopped and journal.taken > _PRESSURE_SHARE * journal.max_bytes:
            self.core.give_up_retained()

    # --- deadlines ------------------------------------------------------------------------

    def _ring(self) -> None:
        runtime = self._runtime
        self._deliveries.wake(self.core.expire(runtime.now_ns(), runtime.wall_ns()))
        self._follow_up()

    # --- the end --------------------------------------------------------------------------

    def close(self, done: Callable[[], None]) -> None:
        """Answer waiting pulls, commit and answer what was accepted, then call ``done``."""
        self._is_stopped = True
        self._alarm.cancel()
        self._dead_letters.stop()
        self._turns.end_for_good()
        self._closed = done
        self._deliveries.close(self._close_when_idle)

    def _close_when_idle(self) -> None:
        """Close the journal once the last turn is durable and the last read is answered."""
        is_idle = not self._turns.under_way and not self._finishing and not self._deliveries.count
        if self._closed is not None and is_idle:
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
        self._dead_letters.stop()
        self._turns.fail()
        self._deliveries.fail()
        self._close_when_idle()


class _Index:
    """Where core says the batches are."""

    def __init__(self, core: Broker, deliveries: Deliveries) -> None:
        self._core = core
        self._deliveries = deliveries

    def live(self, topic_id: int, firsts: Sequence[int], places: Sequence[int]) -> Sequence[int]:
        """The positions, in these columns, of the batches that are kept and there."""
        return self._core.live_batches(topic_id, firsts, places)

    def move(self, topic_id: int, moves: Sequence[tuple[int, int, int]]) -> Sequence[int]:
        """Let batches be elsewhere; the new places of those that are not where they were."""
        left = self._core.move_batches(topic_id, moves)
        not_moved = set(left)
        self._deliveries.move(
            topic_id, {place: new for _, place, new in moves if new not in not_moved}
        )
        return left


def _nobody(error: MbctlError) -> None:
    """Nobody is to be told."""
