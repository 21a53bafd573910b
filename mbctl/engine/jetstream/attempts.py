"""How often and how long something is asked that a cluster in an election does not answer.

Nobody says when a leader is there again, so what has no answer is sent again while the answer to
the first time is still waited for: one that is merely slow is not missed.
"""

import asyncio

from mbctl.engine.jetstream.link import Headers, Link, Reply
from mbctl.model import MIB

# What comes on top of an election, at worst; and after one must be over, twice.
_AGAIN_S = 0.5
_ELECTION_S = 20.0
_LATE_AGAIN_S = 4.0
# A large message is sent again less often: what a node that stands still does not take is kept.
_AGAIN_S_PER_MIB = 0.25
_PAUSE_S = 0.05
_PAUSE_MAX_S = 0.25


class Attempts:
    """The attempts of one request, from now on, for so long."""

    def __init__(self, link: Link, patience_s: float) -> None:
        self._link = link
        self._begun = self._now()
        self._patience_s = patience_s
        self._pause_s = _PAUSE_S

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    @property
    def left_s(self) -> float:
        """How long there is for all that is still tried."""
        return max(0.0, self._begun + self._patience_s - self._now())

    @property
    def are_over(self) -> bool:
        """Whether there is no time for another attempt."""
        return self.left_s < self._pause_s

    async def ask(self, subject: str, body: bytes, *, headers: Headers | None = None) -> Reply:
        """Send, again and again, until something comes back, or nothing in time.

        It may arrive more than once.
        """
        return await self._link.ask(
            subject, body, timeout=self.left_s, headers=headers, again_s=self._again_s(len(body))
        )

    def _again_s(self, size: int) -> float:
        is_election = self._now() - self._begun < _ELECTION_S
        return (_AGAIN_S if is_election else _LATE_AGAIN_S) + _AGAIN_S_PER_MIB * size / MIB

    async def pause(self) -> None:
        """Wait before the next attempt, a little longer each time."""
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _PAUSE_MAX_S)
