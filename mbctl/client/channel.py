"""One blocking connection: requests out, replies in. It reconnects to nothing."""

import socket
import time

from mbctl.batch import Buffer
from mbctl.client.address import Address
from mbctl.client.deadline import Deadline
from mbctl.errors import ConnectionLost, MbctlError
from mbctl.model import KIB, MIB
from mbctl.wire.messages import Message
from mbctl.wire.session import ClientSession, Fatal, Rejected

_READ_BYTES = 64 * KIB
# While a long frame is arriving: fewer calls for it.
_READ_MORE_BYTES = MIB


class Channel:
    """A socket and the client's end of a session. Not for several threads at once."""

    def __init__(self, sock: socket.socket, address: Address) -> None:
        self._socket = sock
        self._address = address
        self._session = ClientSession()
        self.replies: dict[int, Message] = {}
        """Replies that have come and nobody has taken, by request id."""

    @classmethod
    def connect(cls, address: Address, timeout: float) -> "Channel":
        """Connect within ``timeout`` seconds.

        Raises:
            ConnectionLost: nobody listens there, or nobody answered in time.
        """
        try:
            sock = socket.create_connection(address, max(timeout, 0.001))
        except OSError as error:
            raise ConnectionLost(address=str(address), reason=_reason(error)) from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return cls(sock, address)

    def close(self) -> None:
        """Let go of the socket; the server releases the leases."""
        self._socket.close()

    def write(self, buffers: list[Buffer] | list[bytes], deadline: Deadline) -> None:
        """Write all of ``buffers``.

        Raises:
            ConnectionLost: the connection broke; how much was written is unknown.
            Timeout: the server did not take it in time; the channel is of no more use.
        """
        try:
            self._socket.settimeout(max(deadline.remaining, 0.001))
            if len(buffers) == 1:
                self._socket.sendall(buffers[0])
                return
            size = sum(memoryview(buffer).nbytes for buffer in buffers)
            written = self._socket.sendmsg(buffers)
            if written < size:
                self._socket.sendall(memoryview(b"".join(buffers))[written:])
        except TimeoutError as error:
            raise deadline.timeout("writing to the server") from error
        except OSError as error:
            raise self._lost(error) from error

    def read(self, deadline: Deadline) -> None:
        """Wait until something comes, and take it into ``replies``.

        Raises:
            ConnectionLost: the connection broke.
            Timeout: nothing came; the channel is as it was.
            MbctlError: the server ended the connection, with this reason.
        """
        try:
            self._socket.settimeout(max(deadline.remaining, 0.001))
            self._take(self._socket.recv(self._read_bytes))
        except TimeoutError as error:
            raise deadline.timeout("the answer") from error
        except OSError as error:
            raise self._lost(error) from error

    def poll(self) -> None:
        """Take what has come already into ``replies``, without waiting.

        Raises: as ``read``, without Timeout.
        """
        try:
            self._socket.settimeout(0)
            self._take(self._socket.recv(self._read_bytes))
        except BlockingIOError:
            return
        except OSError as error:
            raise self._lost(error) from error

    @property
    def _read_bytes(self) -> int:
        return _READ_MORE_BYTES if self._session.buffered else _READ_BYTES

    def _take(self, data: bytes) -> None:
        if not data:
            raise ConnectionLost(address=str(self._address), reason="the server closed it")
        for event in self._session.feed(data):
            if isinstance(event, Fatal | Rejected):
                raise event.error
            self.replies[event.id] = event

    def reply(self, id: int, deadline: Deadline) -> Message:
        """Wait for the reply to request ``id``.

        Raises: as ``read``.
        """
        while id not in self.replies:
            self.read(deadline)
        return self.replies.pop(id)

    def _lost(self, error: OSError) -> MbctlError:
        return ConnectionLost(address=str(self._address), reason=_reason(error))


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (error.strerror or str(error)).lower()


def nap(seconds: float) -> None:
    """Wait between two attempts."""
    time.sleep(max(seconds, 0))
