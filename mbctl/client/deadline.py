"""How much of a call's time is left."""

import time
from math import inf

from mbctl.errors import Timeout


class Deadline:
    """A moment in monotonic time that a call may not outlive."""

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left; 0 or less when time is up."""
        return self._end - time.monotonic()

    @property
    def is_endless(self) -> bool:
        """Whether it never comes."""
        return self._end == inf

    def within(self, seconds: float) -> "Deadline":
        """This moment, or the one in ``seconds`` if that is earlier."""
        return self if self.remaining <= seconds else Deadline(seconds)

    def timeout(self, what: str) -> Timeout:
        """The error that says that ``what`` took too long."""
        return Timeout(what=what, seconds=f"{self.seconds:g}")
