"""Whose requests are acted on when: a share of the loop's time for each connection.

A peer may send twenty thousand requests in one piece. Acting on all of them at once would
keep everybody else waiting, so what is not done within a share waits in a line, and the line
gets a part of each turn of the loop. A connection with little to ask never sees the line,
which also lets the turns pass that its answer takes: one to commit, one to write.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from mbctl.model import NS_PER_MS

if TYPE_CHECKING:
    from mbctl.server.connection import Connection

# How long one connection may be acted on without a break, and how long the line in a turn.
# Arbitrary, below what a client notices and far above what a turn itself costs (20 us).
_SHARE_NS = NS_PER_MS // 5
_LINE_NS = 2 * _SHARE_NS
# The share of one that has been alone for a while: what is done together is stored together.
_ALONE_SHARE_NS = 2 * NS_PER_MS
_ALONE_NS = 5 * NS_PER_MS
# So many of those that send much are read on in a turn: a read takes a quarter of its time.
_READS_A_TURN = 4
# How many turns the line lets pass after a request that did not wait in it, and how many at
# most one after the other.
_PASSED = 2
_PASSED_MAX = 6


class Turns:
    """The line of connections that have something to be acted on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, has_room: Callable[[], bool]) -> None:
        self._loop = loop
        self._has_room = has_room
        self._line: OrderedDict[Connection, None] = OrderedDict()
        self._is_due = False
        self._to_pass = 0
        self._passed = 0
        self._last: Connection | None = None
        self._last_ns = 0

    def share_ns(self, connection: "Connection", now_ns: int) -> int:
        """How long ``connection`` may be acted on now without a break."""
        if connection is not self._last:
            self._last = connection
            self._last_ns = now_ns
        is_alone = not self._line and now_ns - self._last_ns > _ALONE_NS
        return _ALONE_SHARE_NS if is_alone else _SHARE_NS

    def line_up(self, connection: "Connection") -> None:
        """Let ``connection`` go on when it is its turn, and when there is room."""
        self._line[connection] = None
        self.wake()

    def leave(self, connection: "Connection") -> None:
        """Expect nothing more of a connection that has ended."""
        if connection is self._last:
            self._last = None
        self._line.pop(connection, None)

    def let_pass(self) -> None:
        """A request was acted on that did not wait in the line."""
        self._to_pass = _PASSED

    def wake(self) -> None:
        """There may be room again."""
        if not self._is_due and self._line and self._has_room():
            self._is_due = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._is_due = False
        if self._to_pass and self._passed < _PASSED_MAX:
            self._to_pass -= 1
            self._passed += 1
            self.wake()
            return
        self._to_pass = self._passed = 0
        until_ns = time.monotonic_ns() + _LINE_NS
        reads = 0
        while self._line and self._has_room():
            connection, _ = self._line.popitem(last=False)
            reads += connection.has_read_much
            # It lines up again, at the end, if that was not all.
            connection.go_on()
            if reads >= _READS_A_TURN or time.monotonic_ns() >= until_ns:
                break
        self.wake()
