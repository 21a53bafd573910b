"""The lowest number at hand: deadlines, and the cursors that hold a topic's messages."""

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

# Below this many stale entries a rebuild is not worth it; arbitrary.
_STALE_MIN = 64


class Heap(Generic[K]):
    """At most one number a key. Setting and removing cost amortised O(log n).

    Entries that were changed or removed stay in the heap until they come to its top, or
    until they are more than the live ones.
    """

    __slots__ = ("_entries", "_serial", "heap")

    def __init__(self) -> None:
        self._entries: dict[K, tuple[int, int]] = {}
        self.heap: list[tuple[int, int, K]] = []
        """The numbers as ``heapq`` keeps them: the first one is the lowest, or lower."""
        self._serial = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def set(self, key: K, number: int) -> None:
        """Give ``key`` this number instead of the one it had."""
        # The serial orders equal numbers by age and spares comparing keys.
        self._serial += 1
        self._entries[key] = (number, self._serial)
        heappush(self.heap, (number, self._serial, key))
        # Asked here, as nearly always nothing is to be done.
        if len(self.heap) > 2 * len(self._entries) + _STALE_MIN:
            self._drop_stale()

    def remove(self, key: K) -> None:
        """Forget ``key``; no error if it has no number."""
        removed = self._entries.pop(key, None)
        if removed is not None and len(self.heap) > 2 * len(self._entries) + _STALE_MIN:
            self._drop_stale()

    def get(self, key: K) -> int | None:
        """The number of ``key``, or None."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def lowest(self) -> int | None:
        """The lowest number, or None if there is none."""
        while self.heap:
            number, serial, key = self.heap[0]
            if self._entries.get(key) == (number, serial):
                return number
            heappop(self.heap)
        return None

    def pop_through(self, number: int) -> K | None:
        """Take out the key of the lowest number, if that is at most ``number``."""
        lowest = self.lowest()
        if lowest is None or lowest > number:
            return None
        _, _, key = heappop(self.heap)
        del self._entries[key]
        return key

    def _drop_stale(self) -> None:
        self.heap[:] = [(number, serial, k) for k, (number, serial) in self._entries.items()]
        heapify(self.heap)

    def check(self) -> None:
        """Assert that every number is in the heap, and not much else."""
        assert len(self.heap) <= 2 * len(self._entries) + _STALE_MIN
        stored = set(self.heap)
        for key, (number, serial) in self._entries.items():
            assert (number, serial, key) in stored
