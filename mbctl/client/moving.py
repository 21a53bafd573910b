"""What copies a topic from one server to another needs beside the verbs that all clients have."""

from mbctl.client.admin import Admin
from mbctl.client.publisher import Publisher
from mbctl.client.pulled import Peeked
from mbctl.client.window import SendWindow


class PartAdmin(Admin):
    """An Admin that looks at messages reply by reply, whatever their size."""

    def peek_part(self, topic: str, offset: int, count: int) -> Peeked:
        """Look at messages from ``offset`` on: as many as one reply brings, at most ``count``.

        Raises: as ``peek``.
        """
        return self._run(self._peek_part(topic, offset, count))


class ContinuingPublisher(Publisher):
    """A publisher that goes on with the session of another, which has ended.

    A send that the other has made already, under the same number, is not stored again as long
    as the server remembers the session: ``session_idle_s`` of its limits after the last send.
    """

    def __init__(self, server: str, session: bytes, sequence: int, *, timeout: float) -> None:
        self._continued = session, sequence
        super().__init__(server, timeout=timeout)

    def _begin_session(self) -> None:
        self._session, sequence = self._continued
        self._window = SendWindow(self._buffers, sequence)
