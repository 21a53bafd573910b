"""One timer that stands at the nearest of core's deadlines, or earlier."""

from collections.abc import Callable

from mbctl.engine.interface import Runtime, Timer


class Alarm:
    """Calls ``ring`` when it is time. One that comes too early only looks again."""

    def __init__(self, runtime: Runtime, ring: Callable[[], None]) -> None:
        self._runtime = runtime
        self._ring = ring
        self._timer: Timer | None = None
        self._timer_ns = 0

    def set(self, when_ns: int | None) -> None:
        """Ring at ``when_ns`` at the latest, unless that is None."""
        # Moving the timer to a later time costs more than looking at the earlier one.
        if when_ns is None or (self._timer is not None and self._timer_ns <= when_ns):
            return
        self.cancel()
        self._timer_ns = when_ns
        self._timer = self._runtime.call_at(when_ns, self._rings)

    def cancel(self) -> None:
        """Do not ring before it is set again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rings(self) -> None:
        self._timer = None
        self._ring()
