"""Publisher sessions as one server knows them: the answers to their last sends.

Another server knows nothing of them. What keeps a retry there from being stored twice is
JetStream, by the id of the message; and as a send's order is kept by the one who sends, a
session that comes here anew begins at whatever number it goes on with.
"""

from collections import OrderedDict

from mbctl.core.publisher import Refused
from mbctl.engine.interface import Done
from mbctl.errors import Detail, LimitExceeded, MbctlError, OutcomeUnknown, from_wire
from mbctl.model import NAME_LENGTH_MAX, NS_PER_S, Limits, Receipt

# As sends can be retried for a minute, nothing is asked about an older one.
_IDLE_NS = 120 * NS_PER_S


class Session:
    """The window of one publisher's answers."""

    __slots__ = ("answers", "highest", "used_ns")

    def __init__(self) -> None:
        self.answers: dict[int, Receipt | Refused | list[Done[Receipt]]] = {}
        """By number: the answer, or who waits for it."""
        self.highest = 0
        self.used_ns = 0

    def begin(self, sequence: int, done: Done[Receipt], window: int) -> bool:
        """Whether send ``sequence`` is new; if not, it is answered as the first one, in time.

        Raises:
            MbctlError: the refusal it was given before.
            OutcomeUnknown: it is older than the window.
        """
        known = self.answers.get(sequence)
        if known is None:
            if sequence <= self.highest:
                raise OutcomeUnknown(what=f"send {sequence}, which is older than the last answers,")
            self.highest = sequence
            self.answers[sequence] = [done]
            self._bound(window)
            return True
        if isinstance(known, Refused):
            raise from_wire(known.code, known.details)
        if isinstance(known, Receipt):
            done(known)
        else:
            known.append(done)
        return False

    def end(self, sequence: int, answer: Receipt | MbctlError) -> None:
        """Answer all who wait for send ``sequence``, and keep the answer."""
        waiting = self.answers.get(sequence)
        if not isinstance(waiting, list):
            return
        if isinstance(answer, OutcomeUnknown):
            # A retry may find out.
            del self.answers[sequence]
            self.highest = min(self.highest, sequence - 1)
        elif isinstance(answer, MbctlError):
            self.answers[sequence] = Refused(answer.code, _short(answer.details))
        else:
            self.answers[sequence] = answer
        for done in waiting:
            done(answer)

    def _bound(self, window: int) -> None:
        while len(self.answers) > window:
            oldest = next(iter(self.answers))
            if isinstance(self.answers[oldest], list):
                return
            del self.answers[oldest]


class Sessions:
    """All sessions that this server has seen lately, by id."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._known: OrderedDict[bytes, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def use(self, id: bytes, now_ns: int) -> Session:
        """The session of that id, new if it is not known.

        Raises:
            LimitExceeded: there are as many as may be, and all have sent something.
        """
        session = self._known.get(id)
        if session is None:
            self._make_room(now_ns)
            session = self._known[id] = Session()
        session.used_ns = now_ns
        self._known.move_to_end(id)
        return session

    def _make_room(self, now_ns: int) -> None:
        while self._known:
            id, oldest = next(iter(self._known.items()))
            if now_ns - oldest.used_ns < _IDLE_NS:
                break
            del self._known[id]
        if len(self._known) < self._limits.sessions:
            return
        unused = next((id for id, one in self._known.items() if not one.highest), None)
        if unused is None:
            raise LimitExceeded(what="publisher sessions", limit=self._limits.sessions)
        del self._known[unused]


def _short(details: dict[str, Detail]) -> dict[str, Detail]:
    """``details`` without more text than a name may have: a session keeps many of them."""
    return {
        name: value[:NAME_LENGTH_MAX] if isinstance(value, str) else value
        for name, value in details.items()
    }
