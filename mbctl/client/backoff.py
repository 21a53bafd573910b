"""Which losses a call survives, and how long it waits before the next attempt to connect."""

import random

from mbctl.errors import ConnectionLost, MbctlError, ServerStopping

# How long a first connection that is refused is tried again: a server that was started a
# moment ago is found, and a wrong address is told soon.
FIRST_CONNECT_S = 3.0
# How long before the end the last attempt begins.
LAST_ATTEMPT_S = 0.05

_FIRST_S = 0.02
_MOST_S = 1.0


class Backoff:
    """Waits that double up to a second, each shortened at random so that clients spread."""

    __slots__ = ("_bound",)

    def __init__(self) -> None:
        self._bound = _FIRST_S

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        bound = self._bound
        self._bound = min(2 * bound, _MOST_S)
        return bound * random.uniform(0.5, 1.0)


def is_survivable(error: BaseException, end: MbctlError | None) -> bool:
    """Whether only the connection is lost: it broke, or the server ended it for a while.

    ``end`` is the server's reason, if it gave one. The next attempt may find the server back.
    """
    if isinstance(error, ConnectionLost | ServerStopping):
        return True
    return error is end and end is not None and end.retryable
