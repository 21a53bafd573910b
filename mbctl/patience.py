"""How long to look for input before sleeping until there is some.

To put a process to sleep and wake it again takes a virtual machine 20 to 60 microseconds, as long
as all the work on a request. Where the next input comes sooner than that, as when two processes
ask and answer in turn, it is found while looking. Where it does not, looking is given up soon, and
tried again now and then.
"""

import os

# Beyond this to sleep costs less than to look. A lone send and its answer take less, also when it
# is synced and both sides have to be woken for it. Measured.
_MOST_NS = 150_000
# What usually takes longer than that, up to this, is slept through by half before it is looked for.
_USUAL_MAX_NS = 1_000_000
# How much the newest wait counts in what is usual: an eighth.
_USUAL_SHARE = 8
# When looking does not pay, so many inputs pass before another try: it takes 1 us of each.
_TRIED_EVERY = 128
# Each look that paid allows for one in vain, at most so many: it goes on where most looks pay.
_CREDIT_MAX = 4


class Patience:
    """Learns from the last looks whether the next one pays."""

    __slots__ = ("_credit", "_may_look", "_passed", "_usual_ns")

    def __init__(self) -> None:
        # On a single core nobody else could bring any input meanwhile.
        self._may_look = _cores() > 1
        self._credit = 0
        self._passed = 0
        self._usual_ns = 0

    def ns(self) -> int:
        """For how many nanoseconds to look now; 0 for not at all."""
        if self._credit:
            return _MOST_NS
        if not self._may_look:
            return 0
        self._passed = (self._passed + 1) % _TRIED_EVERY
        return 0 if self._passed else _MOST_NS

    @property
    def nap_s(self) -> float:
        """How long to sleep before looking, in seconds."""
        is_slow = _MOST_NS < self._usual_ns < _USUAL_MAX_NS
        return self._usual_ns / 2e9 if is_slow else 0.0

    def took(self, ns: int) -> None:
        """Note how long something took to come."""
        self._usual_ns += (min(ns, 2 * _USUAL_MAX_NS) - self._usual_ns) // _USUAL_SHARE

    def paid(self) -> None:
        """Note that something came while looking."""
        if self._may_look and self._credit < _CREDIT_MAX:
            self._credit += 1

    def failed(self) -> None:
        """Note that nothing came."""
        if self._credit:
            self._credit -= 1


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
