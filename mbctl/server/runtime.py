"""The engine's time and turns, from asyncio."""

import asyncio
import time
from collections.abc import Callable

from mbctl.model import NS_PER_S


class AsyncioRuntime:
    """A Runtime on a running event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now_ns(self) -> int:
        """Monotonic nanoseconds."""
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        return time.time_ns()

    def call_soon(self, call: Callable[[], None]) -> None:
        """Call after the input that is ready now has been handled."""
        self._loop.call_soon(call)

    def call_soon_threadsafe(self, call: Callable[[], None]) -> None:
        """As ``call_soon``, from any thread; it wakes the loop."""
        self._loop.call_soon_threadsafe(call)

    def call_at(self, when_ns: int, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Call when ``now_ns()`` has reached ``when_ns``."""
        # Half a millisecond late rather than early: a timer rounds to milliseconds.
        delay_s = max(0, when_ns - time.monotonic_ns()) / NS_PER_S + 0.0005
        return self._loop.call_later(delay_s, call)


def loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """uvloop's event loop where it is installed: it halves the cost of a turn."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop
