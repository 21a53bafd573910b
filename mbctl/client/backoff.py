"""How long to wait before the next attempt to connect."""

import random

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
