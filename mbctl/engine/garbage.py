"""Places that nobody needs: released a portion at a time, for there may be millions."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from mbctl.engine.interface import Runtime
from mbctl.journal.records import Journal

# So many places are released in one turn, so that a large topic does not hold the loop.
_RELEASED_A_TURN = 20_000
# So few are not worth a line: the places of what one message takes away. Arbitrary.
_FEW = 16


class Garbage:
    """The places to be released, the oldest first."""

    def __init__(self, journal: Journal, runtime: Runtime) -> None:
        self._journal = journal
        self._runtime = runtime
        self._waiting: deque[Sequence[int]] = deque()
        self._places: Iterator[int] = chain.from_iterable(self._taken())
        self._is_due = False
        self._is_over = False

    def add(self, places: Sequence[int]) -> None:
        """Have ``places`` released: now as far as it is their turn, or soon."""
        if self._is_over:
            return
        if len(places) <= _FEW and not self._is_due:
            self._journal.release(places)
        elif places:
            self._waiting.append(places)
            if not self._is_due:
                self._release()

    def stop(self) -> None:
        """Release nothing any more."""
        self._is_over = True
        self._waiting.clear()

    def _taken(self) -> Iterator[Sequence[int]]:
        while self._waiting:
            yield self._waiting.popleft()

    def _release(self) -> None:
        self._is_due = False
        if self._is_over:
            return
        places = list(islice(self._places, _RELEASED_A_TURN))
        if len(places) < _RELEASED_A_TURN:
            # That iterator has come to its end and will not go on.
            self._places = chain.from_iterable(self._taken())
        self._journal.release(places)
        if len(places) == _RELEASED_A_TURN:
            self._is_due = True
            self._runtime.call_soon(self._release)
