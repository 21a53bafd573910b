"""One timer that stands at the nearest of core's deadlines, or earlier."""

from collections.abc import Callable

from mbctl.engine.interface import Runtime, Timer

_NEVER = 2**63


class Alarm:
    """Calls ``ring`` when it is time. One that comes too early only looks again."""

    def __init__(self, runtime: Runtime, ring: Callable[[], None]) -> None:
        self._runtime = runtime
        self._ring = ring
        self._timer: Timer | None = None
        self.at_ns = _NEVER
        """When it rings."""

    def set(self, when_ns: int | None) -> None:
        """Ring at ``when_ns`` at the latest, unless that is None."""
        # Moving the timer to a later time costs more than looking at the earlier one.
        if when_ns is None or self.at_ns <= when_ns:
            return
        self.cancel()
        self.at_ns = when_ns
        self._timer = self._runtime.call_at(when_ns, self._rings)

    def cancel(self) -> None:
        """Do not ring before it is set again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.at_ns = _NEVER

    def _rings(self) -> None:
        self._timer = None
        self.at_ns = _NEVER
        self._ring()
