"""How often and how long something is tried that a cluster in an election does not answer.

Nobody says when a leader is there again, so it is asked often while an election may go on. If it
is longer than that, the cluster is merely slow, and gets more time for each attempt.
"""

import asyncio

# nats-server elects within 9 s of the last word of a leader; some more for the votes.
_ELECTION_S = 10.0
# What comes on top of an election, at worst.
_ATTEMPT_S = 0.5
_SLOW_ATTEMPT_S = 4.0
_PAUSE_S = 0.05
_PAUSE_MAX_S = 0.25


class Attempts:
    """The attempts of one request, from now on, for so long."""

    def __init__(self, patience_s: float) -> None:
        self._begun = self._now()
        self._patience_s = patience_s
        self._pause_s = _PAUSE_S

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    @property
    def timeout_s(self) -> float:
        """How long the next attempt may take."""
        is_election = self._now() - self._begun < _ELECTION_S
        return _ATTEMPT_S if is_election else _SLOW_ATTEMPT_S

    @property
    def are_over(self) -> bool:
        """Whether there is no time for another attempt."""
        return self._now() - self._begun + self._pause_s > self._patience_s

    async def pause(self) -> None:
        """Wait before the next attempt, a little longer each time."""
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _PAUSE_MAX_S)
