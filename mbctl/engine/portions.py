"""Long work beside the verbs: a portion in each turn, one piece of work after the other."""

from collections import deque
from collections.abc import Callable

from mbctl.engine.interface import Runtime


class Portions:
    """Work that is under way. However much there is, a turn has one portion of it.

    What is begun is finished before the next is gone on with: a list that is being made takes
    memory, and there may be many that wait.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._steps: deque[Callable[[], bool]] = deque()

    def add(self, step: Callable[[], bool]) -> None:
        """Call ``step`` once a turn, until it returns False."""
        self._steps.append(step)
        if len(self._steps) == 1:
            self._runtime.call_soon(self._work)

    def _work(self) -> None:
        if not self._steps[0]():
            self._steps.popleft()
        if self._steps:
            self._runtime.call_soon(self._work)
