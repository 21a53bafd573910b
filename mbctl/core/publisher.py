"""Publisher sessions: the answers kept so that a send can be retried safely.

A session numbers its sends. The answers of the last ``window`` are kept, refusals too,
so a retry gets the answer of the first attempt and is stored once. A number below the
highest seen that has left the window cannot be told from one that was never here: it is
refused, which also keeps the order.
"""

from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from mbctl.core.heap import Heap
from mbctl.errors import Detail, LimitExceeded, MbctlError, OutcomeUnknown, from_wire
from mbctl.model import NAME_LENGTH_MAX, NS_PER_S, Limits, Receipt

# A session is forgotten a while after its sends became too old to retry, so that a retry
# which is young enough always finds its answer, also when it took long to arrive.
_SESSION_GRACE_NS = 60 * NS_PER_S


class Stored(msgspec.Struct, frozen=True):
    """What became of a send: new, or (not ``is_new``) a retry of one that is stored already."""

    receipt: Receipt
    topic_id: int
    timestamp: int
    is_new: bool


class Refused(msgspec.Struct, frozen=True):
    """A refusal as it is remembered.

    Not the error itself: that holds, through its traceback, whatever the code that raised
    it had in hand, and so the refused batch.
    """

    code: str
    details: dict[str, Detail]


class PublisherSession:
    """The window of one publisher's answers."""

    __slots__ = ("_answers", "highest", "id", "used_ns", "window")

    def __init__(self, id: bytes, window: int, now_ns: int) -> None:
        self.id = id
        self.window = window
        self.highest = 0
        """The highest sequence number seen."""
        self.used_ns = now_ns
        # Of a plain dict, to find the first after many have gone is to pass over all of them.
        self._answers: OrderedDict[int, Receipt | Refused] = OrderedDict()

    def earlier_answer(self, sequence: int) -> Receipt | None:
        """The receipt given to ``sequence`` before, or None if it is new.

        Raises:
            MbctlError: the refusal it was given before.
            OutcomeUnknown: it is older than the window.
        """
        answer = self._answers.get(sequence)
        if isinstance(answer, Refused):
            raise from_wire(answer.code, answer.details)
        if answer is None and sequence <= self.highest:
            raise OutcomeUnknown(what=f"send {sequence}, which is older than the last answers,")
        return answer

    def remember(self, sequence: int, answer: Receipt | MbctlError) -> None:
        """Keep the first answer to ``sequence``, giving up the one that leaves the window."""
        assert sequence > self.highest
        self.highest = sequence
        if isinstance(answer, MbctlError):
            self._answers[sequence] = Refused(answer.code, _short(answer.details))
        else:
            self._answers[sequence] = answer
        if len(self._answers) > self.window:
            self._answers.popitem(last=False)

    def check(self) -> None:
        """Assert that the window is bounded and below the highest number."""
        assert len(self._answers) <= self.window
        assert list(self._answers) == sorted(self._answers)
        assert all(sequence <= self.highest for sequence in self._answers)


class Publishers:
    """All sessions that were in use lately, by id."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sessions: dict[bytes, PublisherSession] = {}
        self.deadlines: Heap[PublisherSession] = Heap()
        """When ``expire`` is to look at each session."""
        # Those that had sent nothing when they began, the oldest first.
        self._unused: OrderedDict[bytes, PublisherSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def use(self, session_id: bytes, now_ns: int) -> PublisherSession:
        """The session of that id, new if it is not known, not idle from now on.

        Raises:
            LimitExceeded: there are ``limits.sessions`` others, and all have sent something.
        """
        session = self._sessions.get(session_id)
        if session is None:
            if len(self._sessions) >= self._limits.sessions:
                self._forget_unused()
            session = PublisherSession(session_id, self._limits.sends_in_flight, now_ns)
            self._sessions[session_id] = session
            self.deadlines.set(session, now_ns + self._idle_ns)
            self._unused[session_id] = session
        session.used_ns = now_ns
        return session

    def _forget_unused(self) -> None:
        """Forget the oldest session that sent nothing: there is nothing to be told again.

        Else whoever connects often enough would keep everybody from sending for ten minutes.
        """
        while self._unused:
            session_id, session = self._unused.popitem(last=False)
            if session.highest == 0 and self._sessions.get(session_id) is session:
                del self._sessions[session_id]
                self.deadlines.remove(session)
                return
        raise LimitExceeded(what="publisher sessions", limit=self._limits.sessions)

    def restore(
        self, session_id: bytes, answers: Iterable[tuple[int, Receipt]], now_ns: int
    ) -> None:
        """Remember a session of an earlier process by its ``answers``, of rising sequence."""
        window = self._limits.sends_in_flight
        session = PublisherSession(session_id, window, now_ns)
        for sequence, receipt in answers:
            if sequence <= session.highest:
                # It had been idle for so long that it was forgotten, and began anew.
                session = PublisherSession(session_id, window, now_ns)
            session.remember(sequence, receipt)
        assert session_id not in self._sessions
        self._sessions[session_id] = session
        self.deadlines.set(session, now_ns + self._idle_ns)

    def check_age(self, sequence: int, age_ns: int) -> None:
        """Refuse a retry that comes too long after its first attempt."""
        if age_ns > self._limits.session_idle_s * NS_PER_S:
            raise OutcomeUnknown(what=f"send {sequence}, first tried too long ago,")

    @property
    def _idle_ns(self) -> int:
        return self._limits.session_idle_s * NS_PER_S + _SESSION_GRACE_NS

    def expire(self, now_ns: int) -> None:
        """Forget the sessions that were idle for too long."""
        while (session := self.deadlines.pop_through(now_ns)) is not None:
            # Using a session does not move its deadline; it shows here whether that is true.
            forget_ns = session.used_ns + self._idle_ns
            if forget_ns <= now_ns:
                del self._sessions[session.id]
                self._unused.pop(session.id, None)
            else:
                self.deadlines.set(session, forget_ns)

    def check(self) -> None:
        """Assert that the sessions are bounded and that each has a deadline."""
        assert len(self.deadlines) == len(self._sessions) <= self._limits.sessions
        for session in self._sessions.values():
            session.check()
            assert session in self.deadlines
        self.deadlines.check()


def _short(details: dict[str, Detail]) -> dict[str, Detail]:
    """``details`` without more text than a name may have: a session keeps many of them."""
    return {
        name: value[:NAME_LENGTH_MAX] if isinstance(value, str) else value
        for name, value in details.items()
    }
