"""Keeps the loop from sleeping while the next request is about to come.

Also after a request that has no answer yet, as a pull that waits: where a message is on its
way to a subscriber, what comes next comes from somebody else.
"""

import asyncio
import time
from collections.abc import Callable

from mbctl.model import KIB
from mbctl.patience import Patience

# Who sends or is answered this much works on it for longer than it is worth to look for what
# comes next; and looking would take the core from it.
_FEW_BYTES = 16 * KIB
# So many requests and answers in a row are small until that is over. Arbitrary: where much is
# pulled, every other one is.
_FEW_IN_A_ROW = 8


class Alert:
    """Goes round the loop for a moment, as long as that finds the next request."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, is_elsewhere: Callable[[], bool] = lambda: False
    ) -> None:
        """``is_elsewhere``: whether what comes next comes from a thread, which needs the turn."""
        self._loop = loop
        self._is_elsewhere = is_elsewhere
        self._patience = Patience()
        self._until_ns = 0
        self._is_looking = False
        self._too_much = 0
        """How many more have to be small."""

    def came(self) -> None:
        """Note that a request came."""
        if self._until_ns:
            self._until_ns = 0
            self._patience.paid()

    def expect(self, size: int) -> None:
        """Look for the next request: so many bytes were acted on or answered, and all wait."""
        if size >= _FEW_BYTES:
            self._too_much = _FEW_IN_A_ROW
        if self._too_much:
            self._too_much -= 1
            return
        look_ns = 0 if self._is_elsewhere() else self._patience.ns()
        if look_ns:
            self._until_ns = time.monotonic_ns() + look_ns
            if not self._is_looking:
                self._is_looking = True
                self._loop.call_soon(self._look)

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
