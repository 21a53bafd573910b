"""Memory that large batches are packed into again and again."""

from mbctl.model import KIB, MIB

# From this size on fresh memory costs more than what is done with it: the system has to make
# each of its pages first, at a microsecond or more for 4 KiB. Measured.
LARGE_BYTES = 16 * KIB
# What is kept for later, at most.
_SPARE_BYTES_MAX = 16 * MIB


class Buffers:
    """Buffers that nobody uses just now. May be shared by threads."""

    def __init__(self) -> None:
        self._spare: list[bytearray] = []
        self._bytes = 0

    def take(self) -> bytearray:
        """A buffer to pack into, which is as long as what it held last."""
        try:
            buffer = self._spare.pop()
        except IndexError:
            return bytearray()
        self._bytes -= len(buffer)
        return buffer

    def give_back(self, buffer: bytearray) -> None:
        """Let a buffer be used again, whose content nobody needs any more."""
        if self._bytes + len(buffer) <= _SPARE_BYTES_MAX:
            self._bytes += len(buffer)
            self._spare.append(buffer)
