"""Answers pulls: from what core granted, through the journal, to the one who asked."""

from collections import deque
from functools import partial

from mbctl.batch import Buffer
from mbctl.core.broker import Broker
from mbctl.core.grant import Grant, Wake
from mbctl.engine.cuts import Cuts
from mbctl.engine.interface import Done, Pulled, Runtime
from mbctl.errors import MbctlError
from mbctl.journal.records import Journal


class _Pull:
    """Who asked, how much may be answered, and how."""

    __slots__ = ("done", "max_bytes", "member")

    def __init__(self, member: bytes, max_bytes: int, done: Done[Pulled]) -> None:
        self.member = member
        self.max_bytes = max_bytes
        self.done = done


class Deliveries:
    """The pulls that have no answer yet; counts what was delivered."""

    def __init__(self, core: Broker, journal: Journal, runtime: Runtime) -> None:
        self.messages = 0
        self.bytes = 0
        self._core = core
        self._journal = journal
        self._runtime = runtime
        self._cuts = Cuts()
        self._pulls: dict[int, _Pull] = {}
        self._next_number = 1
        self._wakes: deque[Wake] = deque()
        self._is_waking = False

    def expect(self, member: bytes, max_bytes: int, done: Done[Pulled]) -> int:
        """Note a pull; the number by which it is answered, later or at once."""
        number = self._next_number
        self._next_number += 1
        self._pulls[number] = _Pull(member, max_bytes, done)
        return number

    def answer(self, number: int, result: Grant | MbctlError) -> None:
        """Answer a pull with what it was granted, or with its refusal."""
        pull = self._pulls.pop(number)
        if isinstance(result, MbctlError):
            pull.done(result)
        elif result.pieces:
            places = [piece.place for piece in result.pieces]
            self._journal.read(places, partial(self._answer_with, result, pull))
        else:
            pull.done(Pulled(result.topic_id, result.skipped, []))

    def wake(self, wakes: list[Wake]) -> None:
        """Answer pulls that had been waiting."""
        # What does not fit into one answer wakes the next pull. That is done here in a loop:
        # thousands may wait, and calls within calls do not go that deep.
        self._wakes += wakes
        if self._is_waking:
            return
        self._is_waking = True
        try:
            while self._wakes:
                wake = self._wakes.popleft()
                assert isinstance(wake.token, int)
                self.answer(wake.token, wake.result)
        finally:
            self._is_waking = False

    def cancel_all(self) -> None:
        """Answer all pulls that wait with nothing."""
        for number in list(self._pulls):
            self.wake(self._core.cancel_pull(number))

    def _answer_with(self, grant: Grant, pull: _Pull, bodies: list[Buffer]) -> None:
        pieces, over = self._cuts.pieces(grant.pieces, bodies, pull.max_bytes)
        self.messages += sum(piece.next - piece.first for piece in grant.pieces)
        self.messages -= sum(next_offset - first for first, next_offset in over)
        self.bytes += sum(memoryview(piece[3]).nbytes for piece in pieces)
        pull.done(Pulled(grant.topic_id, grant.skipped, pieces))
        if over:
            # The mean message size promised more than fits: the rest goes back, unseen.
            now_ns = self._runtime.now_ns()
            self.wake(self._core.take_back(pull.member, grant, over, now_ns))
