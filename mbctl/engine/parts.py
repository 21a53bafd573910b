"""What the verbs of the local engine share: its parts, and how a verb is answered."""

from collections.abc import Callable
from typing import TypeVar

from mbctl.core.broker import Broker
from mbctl.engine.alarm import Alarm
from mbctl.engine.cuts import Cuts
from mbctl.engine.dead_letters import DeadLetters
from mbctl.engine.deliveries import Deliveries
from mbctl.engine.garbage import Garbage
from mbctl.engine.interface import Done, Runtime
from mbctl.engine.portions import Portions
from mbctl.engine.rates import Rates
from mbctl.engine.turn import Turn, Turns
from mbctl.errors import MbctlError, ServerStopping
from mbctl.journal.records import Journal
from mbctl.model import Limits

# What a range of offsets takes in a record, at most: two numbers and a head.
RANGE_BYTES = 20

T = TypeVar("T")


class Parts:
    """Core, journal, and what stands between them."""

    def __init__(self, core: Broker, journal: Journal, runtime: Runtime, limits: Limits) -> None:
        self.durability = journal.durability
        self.core = core
        self._journal = journal
        self._runtime = runtime
        self.limits = self._limits = limits
        self._is_stopped = False
        self._turns = Turns(core, journal, runtime, self._show_committed)
        self._deliveries = Deliveries(core, journal, runtime, self._turns, Cuts())
        self._dead_letters = DeadLetters(core, journal, runtime, self._turns, limits)
        self._garbage = Garbage(journal, runtime)
        self._portions = Portions(runtime)
        self._alarm = Alarm(runtime, self._ring)
        self._messages_in = self._bytes_in = 0
        self._rates = Rates(runtime.now_ns())

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

    # --- what a verb leaves to be done ----------------------------------------------------

    def _follow_up(self) -> None:
        """See to what core has to do later: what is due, is to be moved, or stored."""
        if self._is_stopped:
            return
        if self.core.has_exhausted:
            self._dead_letters.move()
        if self.core.has_changes:
            self._turns.end_in_a_while()
        if self.core.may_be_due_before(self._alarm.at_ns):
            self._alarm.set(self.core.next_deadline_ns())

    def _show_committed(self, turn: Turn) -> None:
        raise NotImplementedError

    def _ring(self) -> None:
        raise NotImplementedError
