"""Keeps the loop from sleeping while the next request is about to come."""

import asyncio
import time
from collections.abc import Callable

from mbctl.patience import Patience


class Alert:
    """Goes round the loop for a moment after an answer, as long as that finds the next request."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, is_elsewhere: Callable[[], bool] = lambda: False
    ) -> None:
        """``is_elsewhere``: whether what comes next comes from a thread, which needs the turn."""
        self._loop = loop
        self._is_elsewhere = is_elsewhere
        self._patience = Patience()
        self._until_ns = 0
        self._is_looking = False

    def expect(self) -> None:
        """Look for the next request: somebody has an answer, and may go on."""
        look_ns = 0 if self._is_elsewhere() else self._patience.ns()
        if look_ns:
            self._until_ns = time.monotonic_ns() + look_ns
            if not self._is_looking:
                self._is_looking = True
                self._loop.call_soon(self._look)

    def came(self) -> None:
        """Note that a request came."""
        if self._until_ns:
            self._until_ns = 0
            self._patience.paid()

    def _look(self) -> None:
        if self._is_elsewhere():
            self._until_ns = 0
        elif time.monotonic_ns() < self._until_ns:
            self._loop.call_soon(self._look)
            return
        self._is_looking = False
        if self._until_ns:
            self._until_ns = 0
            self._patience.failed()
