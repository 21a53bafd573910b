"""Frames that have begun to come and are not complete: how much they hold, and who may go on.

Many that send large frames at the same time must not take all memory, and must not be refused
either. Above half of the bound only the frame that was begun first is read on, the others are
held: each is complete soon, and makes room for the next. Who is read from meanwhile and sends
little gives way. Above the bound itself who comes is refused.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING

from mbctl.errors import LimitExceeded
from mbctl.model import KIB

if TYPE_CHECKING:
    from mbctl.server.connection import Connection
    from mbctl.server.turns import Turns

# One read brings at most this much, also of a frame that has room for more. Frames shorter
# than a quarter of it are never held.
READ_BYTES = 256 * KIB
FRAME_SHORT = READ_BYTES // 4
# What must come between two looks of who keeps others waiting: a quarter of what lets the
# largest frame be complete in its time.
_PROGRESS_BYTES = 64 * KIB
# So many of those held are read on at each look, to see whether they send.
_TRIED = 32


class Partial:
    """What has been read of all connections and not been acted on."""

    def __init__(self, limit: int, turns: "Turns") -> None:
        self.bytes = 0
        self._limit = limit
        self._turns = turns
        self._begun: OrderedDict[Connection, list[int]] = OrderedDict()
        """Who has begun a large frame, the first one first: its size, and that at a look."""
        self._held: OrderedDict[Connection, None] = OrderedDict()
        """Those of them that are not read from."""
        self._tried: dict[Connection, None] = {}
        """Those that were, and are read from again, to see whether they send."""

    def note(self, connection: "Connection", size: int, before: int) -> None:
        """``connection`` holds ``size`` bytes now, and held ``before``."""
        self.bytes += size - before
        if size > FRAME_SHORT:
            self._begun.setdefault(connection, [0, -1])[0] = size
        elif connection in self._begun:
            del self._begun[connection]
            self._held.pop(connection, None)
            self._tried.pop(connection, None)
            if self._held:
                self._release()

    def holds(self, connection: "Connection") -> bool:
        """Whether ``connection`` is not to be read from for now."""
        if connection not in self._begun:
            return False
        bound = self._bound_of(connection)
        is_held = self.bytes > bound and next(iter(self._begun)) is not connection
        if is_held:
            self._hold(connection)
            self._hold_others()
        else:
            self._held.pop(connection, None)
        return is_held

    def _bound_of(self, connection: "Connection") -> int:
        """Up to how many bytes in all it is read from: a quarter more where that is a try."""
        return 3 * self._limit // 4 if connection in self._tried else self._limit // 2

    def _hold(self, connection: "Connection") -> None:
        self._tried.pop(connection, None)
        self._held[connection] = None
        # It is not its fault that nothing comes now.
        self._begun[connection][1] = -1

    def _hold_others(self) -> None:
        """Hold all but the first at once: together they bring much with one more read of each."""
        first = next(iter(self._begun))
        if len(self._held) + (first not in self._held) == len(self._begun):
            return
        for connection in self._begun:
            is_read = connection is not first and connection not in self._held
            if is_read and self.bytes > self._bound_of(connection):
                self._hold(connection)
                connection.hold()

    def bound(self, connection: "Connection") -> None:
        """End ``connection``, which was read from last, if all together are too much."""
        if self.bytes > self._limit and connection.buffered:
            self._end(connection)

    def look(self) -> None:
        """Once a second: end those who sent little since the last look, while others wait."""
        if not self._held:
            return
        for connection, sizes in [c for c in self._begun.items() if c[0] not in self._held]:
            size, seen = sizes
            sizes[1] = size
            if 0 <= seen <= size < seen + _PROGRESS_BYTES:
                self._end(connection)
        self._let_go(_TRIED)

    def _end(self, connection: "Connection") -> None:
        connection.end(LimitExceeded(what="bytes of partial frames", limit=self._limit))

    def _release(self) -> None:
        """Let go on as many as there is room for, and the first in any case."""
        first = next(iter(self._begun))
        if first in self._held:
            del self._held[first]
            self._turns.line_up(first)
        self._let_go((self._limit // 2 - self.bytes) // READ_BYTES)

    def _let_go(self, count: int) -> None:
        for _ in range(min(count, len(self._held))):
            connection, _ = self._held.popitem(last=False)
            self._tried[connection] = None
            self._turns.line_up(connection)
