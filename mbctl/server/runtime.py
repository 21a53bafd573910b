"""The engine's time and turns, from asyncio."""

import asyncio
import time
from collections.abc import Callable

from mbctl.model import NS_PER_S


class AsyncioRuntime:
    """A Runtime on a running event loop."""

    # As they are: asked for the time a dozen times for each request, and each function of ours
    # around another takes as long as that.
    now_ns = staticmethod(time.monotonic_ns)
    wall_ns = staticmethod(time.time_ns)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.call_soon = loop.call_soon
        self.call_soon_threadsafe = loop.call_soon_threadsafe

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
