"""Whose turn it is at a connection that threads share.

One thread at a time has the turn, and works at the connection for the others as well. The
others wait in a line until what they wait for is done, or until they are the first.

The handler of a signal, or of garbage, may call in between any two steps, and a Ctrl-C may end
any call there. So there is no lock that a thread could meet itself at: a turn is taken and
given up in one step each, the line is one that changes in single steps, and who waits looks
around now and then, in case the one to wake it was interrupted.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, get_ident

from mbctl.client.deadline import Deadline

# How often who waits looks whether it was forgotten; arbitrary, it hardly ever is.
_LOOK_S = 0.5
# The one key of ``Turn.taken``.
OWNER = "owner"


class Turn:
    """Belongs to one thread, or to nobody.

    Who has it gives it up by deleting ``OWNER`` from ``taken``, and then wakes the next.
    """

    __slots__ = ("_line", "taken")

    def __init__(self) -> None:
        self.taken: dict[str, int] = {}
        """``OWNER``: the thread whose turn it is."""
        self._line: deque[_Waiter] = deque()

    @property
    def owner(self) -> int | None:
        """The thread whose turn it is."""
        return self.taken.get(OWNER)

    @property
    def waiting(self) -> int:
        """How many threads are in the line."""
        return len(self._line)

    def is_used_by(self, thread: int) -> bool:
        """Whether it is that thread's turn, or it waits for it."""
        if self.taken.get(OWNER) == thread:
            return True
        # Nobody waits, mostly, and then nothing is built to find that out.
        return bool(self._line) and any(
            waiter.thread == thread and not waiter.is_gone for waiter in list(self._line)
        )

    def take_now(self) -> bool:
        """Take the turn if nobody has it; whether that was so."""
        thread = get_ident()
        return self.taken.setdefault(OWNER, thread) == thread

    def take(self, deadline: Deadline, is_done: Callable[[], bool]) -> bool:
        """Wait for the turn; or until ``is_done``, and then False.

        Raises:
            Timeout: neither came in time.
        """
        if not self._line and self.take_now():
            return True
        waiter = _Waiter(is_done)
        try:
            self._line.append(waiter)
            while not is_done():
                if self._is_first(waiter) and self.take_now():
                    return True
                if deadline.remaining <= 0:
                    raise deadline.timeout("the calls of other threads")
                waiter.wait(min(deadline.remaining, _LOOK_S))
            return False
        finally:
            waiter.is_gone = True
            self._remove(waiter)

    def wake_next(self) -> None:
        """Wake the first in the line, now that the turn is nobody's."""
        for waiter in list(self._line):
            waiter.wake()
            if not waiter.is_over:
                break

    def wake_done(self) -> None:
        """Wake those in the line whose wait is over."""
        for waiter in list(self._line):
            if waiter.is_over:
                waiter.wake()

    def _is_first(self, waiter: "_Waiter") -> bool:
        """Whether the wait of all who came before is over."""
        for other in list(self._line):
            if other is waiter:
                break
            if not other.is_over:
                return False
            if other.is_gone:
                self._remove(other)
        return True

    def _remove(self, waiter: "_Waiter") -> None:
        with suppress(ValueError):
            self._line.remove(waiter)


class _Waiter:
    """A thread in the line."""

    __slots__ = ("_asleep", "_is_done", "is_gone", "thread")

    def __init__(self, is_done: Callable[[], bool]) -> None:
        self.thread = get_ident()
        self._is_done = is_done
        self.is_gone = False
        """Whether it waits no more, though it may not have left the line."""
        self._asleep = Lock()
        self._asleep.acquire()

    @property
    def is_over(self) -> bool:
        """Whether it waits for the turn no more."""
        return self.is_gone or self._is_done()

    def wait(self, seconds: float) -> None:
        """Return when woken, now or before, or after so long."""
        self._asleep.acquire(timeout=seconds)

    def wake(self) -> None:
        """End its wait."""
        # It is awake already.
        with suppress(RuntimeError):
            self._asleep.release()
