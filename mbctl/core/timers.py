"""Deadlines in virtual time: a heap that forgets what was cancelled."""

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

# Below this many stale entries a rebuild is not worth it; arbitrary.
_STALE_MIN = 64


class Timers(Generic[K]):
    """At most one deadline a key. Setting and cancelling cost amortised O(log n)."""

    __slots__ = ("_deadlines", "_heap", "_serial")

    def __init__(self) -> None:
        self._deadlines: dict[K, tuple[int, int]] = {}
        self._heap: list[tuple[int, int, K]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._deadlines)

    def set(self, key: K, when_ns: int) -> None:
        """Let ``key`` come due at ``when_ns``, instead of when it would have before."""
        # The serial orders equal deadlines by age and spares comparing keys.
        self._serial += 1
        self._deadlines[key] = (when_ns, self._serial)
        heappush(self._heap, (when_ns, self._serial, key))
        if len(self._heap) > 2 * len(self._deadlines) + _STALE_MIN:
            self._heap = [(when, serial, k) for k, (when, serial) in self._deadlines.items()]
            heapify(self._heap)

    def cancel(self, key: K) -> None:
        """Forget ``key``; no error if it has no deadline."""
        self._deadlines.pop(key, None)

    def when(self, key: K) -> int | None:
        """When ``key`` comes due, or None."""
        entry = self._deadlines.get(key)
        return None if entry is None else entry[0]

    def next_ns(self) -> int | None:
        """The nearest deadline, or None if there is none."""
        while self._heap:
            when_ns, serial, key = self._heap[0]
            if self._deadlines.get(key) == (when_ns, serial):
                return when_ns
            heappop(self._heap)
        return None

    def take_due(self, now_ns: int) -> list[K]:
        """Remove and return the keys whose deadline is at or before ``now_ns``, in order."""
        due: list[K] = []
        while (when_ns := self.next_ns()) is not None and when_ns <= now_ns:
            _, _, key = heappop(self._heap)
            del self._deadlines[key]
            due.append(key)
        return due
