"""Publisher sessions: the answers kept so that a send can be retried safely.

A session numbers its sends. The answers of the last ``window`` are kept, refusals too,
so a retry gets the answer of the first attempt and is stored once. A number below the
highest seen that has left the window cannot be told from one that was never here: it is
refused, which also keeps the order.
"""

from mbctl.errors import MbctlError, OutcomeUnknown
from mbctl.model import Receipt


class PublisherSession:
    """The window of one publisher's answers."""

    __slots__ = ("_answers", "highest", "id", "used_ns", "window")

    def __init__(self, id: bytes, window: int, now_ns: int) -> None:
        self.id = id
        self.window = window
        self.highest = 0
        self.used_ns = now_ns
        self._answers: dict[int, Receipt | MbctlError] = {}

    def earlier_answer(self, sequence: int) -> Receipt | None:
        """The receipt given to ``sequence`` before, or None if it is new.

        Raises:
            MbctlError: the refusal it was given before.
            OutcomeUnknown: it is older than the window.
        """
        answer = self._answers.get(sequence)
        if isinstance(answer, MbctlError):
            raise answer
        if answer is None and sequence <= self.highest:
            raise OutcomeUnknown(what=f"send {sequence}, which is older than the last answers,")
        return answer

    def remember(self, sequence: int, answer: Receipt | MbctlError) -> None:
        """Keep the first answer to ``sequence``, giving up the one that leaves the window."""
        assert sequence > self.highest
        self.highest = sequence
        self._answers[sequence] = answer
        if len(self._answers) > self.window:
            del self._answers[next(iter(self._answers))]

    def check(self) -> None:
        """Assert that the window is bounded and below the highest number."""
        assert len(self._answers) <= self.window
        assert all(sequence <= self.highest for sequence in self._answers)
