"""What ends the wait of the thread that reads from a connection when another has work for it."""

import os
from contextlib import suppress
from weakref import finalize

from mbctl import forks


class Bell:
    """Rung by any thread; heard by the one that polls it. Its end is that of the object."""

    def __init__(self) -> None:
        self._ear, self._mouth = os.pipe()
        os.set_blocking(self._mouth, False)
        self._is_rung = False
        self._finalize = finalize(self, _close, self._ear, self._mouth)
        forks.watch(self)

    def fileno(self) -> int:
        """What is readable while it rings."""
        return self._ear

    def ring(self) -> None:
        """End the wait, if there is one, or else the next one."""
        if not self._is_rung:
            self._is_rung = True
            # If it is full, it rings.
            with suppress(BlockingIOError):
                os.write(self._mouth, b"!")

    def silence(self) -> None:
        """Stop ringing. Whoever rings from now on is heard.

        What others rang for before that is to be looked for after it.
        """
        # In this order: who rings in between is not heard, but is looked for. The other way round
        # the ring would be read away and still count as one, and none would be heard again.
        os.read(self._ear, 64)
        self._is_rung = False

    def _in_child(self) -> None:
        self._finalize()


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
