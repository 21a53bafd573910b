"""One blocking connection: requests out, replies in. It reconnects to nothing."""

import select
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress

from mbctl import forks
from mbctl.client.address import Address, lost
from mbctl.client.bell import Bell
from mbctl.client.deadline import Deadline
from mbctl.errors import ConnectionLost, InvalidArgument, MbctlError
from mbctl.model import KIB
from mbctl.patience import Patience
from mbctl.wire.messages import Message
from mbctl.wire.session import ClientSession, Fatal, Rejected

# How much longer than its deadline a call may take.
_TIMEOUT_SLACK_S = 0.05
# What a socket may be told to wait at most: far above any deadline, and any system takes it.
_WAIT_MAX_S = 1_000_000.0
# The system takes 1,024 buffers at once.
_BUFFERS_MAX = 1000
# Up to this size one copy costs less than to name several buffers to the system.
_JOINED_BYTES = 4 * KIB
_TIMEVAL = struct.Struct("ll")


class Channel:
    """A socket and the client's end of a session. Not for several threads at once."""

    def __init__(self, sock: socket.socket, address: Address) -> None:
        self._socket = sock
        self._address = address
        self._session = ClientSession(receives=True)
        self._timeout = 0.0
        """What the socket was told last; 0 before."""
        self.end: MbctlError | None = None
        """Why the server ended the connection; told once no reply is left to take."""
        self._patience = Patience()
        self._is_brief = True
        """Whether little went and came last: then the other end may be about to answer."""
        self._unwanted: set[int] = set()
        self.replies: dict[int, Message] = {}
        """Replies that have come and nobody has taken, by request id."""
        forks.watch(self)

    @classmethod
    def connect(cls, address: Address, timeout: float) -> "Channel":
        """Connect within ``timeout`` seconds.

        Raises:
            ConnectionLost: nobody listens there, or nobody answered in time.
        """
        try:
            sock = socket.create_connection(address, max(timeout, 0.001))
        except OSError as error:
            raise lost(address, error) from error
        except ValueError as error:
            # A name that cannot be looked up at all: empty or overlong between two dots.
            raise InvalidArgument(reason=f"{str(address)!r} is no address") from error
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return cls(sock, address)

    def close(self) -> None:
        """Let go of the socket; the server releases the leases."""
        self._socket.close()

    def _in_child(self) -> None:
        # The connection is the parent's: it goes on, and ends there.
        self._socket.close()

    def write(self, buffers: Sequence[bytes | bytearray], deadline: Deadline) -> None:
        """Write all of ``buffers``.

        Raises:
            ConnectionLost: the connection broke; how much was written is unknown.
            Timeout: the server did not take it in time; the channel is of no more use.
            MbctlError: the server ended the connection, with this reason.
        """
        try:
            self._wait_at_most(deadline.remaining)
            size = sum(map(len, buffers))
            if size <= _JOINED_BYTES:
                self._socket.sendall(b"".join(buffers))
                return
            self._is_brief = False
            for at in range(0, len(buffers), _BUFFERS_MAX):
                self._send_all(buffers[at : at + _BUFFERS_MAX])
        except BlockingIOError as error:
            raise deadline.timeout("writing to the server") from error
        except OSError as error:
            # The server's last words may have come before it closed.
            with suppress(MbctlError):
                self.poll()
            raise self.end or lost(self._address, error) from error

    def _send_all(self, buffers: Sequence[bytes | bytearray]) -> None:
        written = self._socket.sendmsg(buffers)
        if written < sum(map(len, buffers)):
            self._socket.sendall(memoryview(b"".join(buffers))[written:])

    def read(self, deadline: Deadline) -> None:
        """Wait until something comes, and take it into ``replies``.

        Raises:
            ConnectionLost: the connection broke.
            Timeout: nothing came; the channel is as it was.
            MbctlError: the server ended the connection, with this reason.
        """
        if self.end is not None:
            raise self.end
        try:
            self._wait_at_most(deadline.remaining)
            began_ns = time.monotonic_ns()
            count = self._found(began_ns)
            if not count:
                count = self._receive()
                if self._is_brief:
                    self._patience.took(time.monotonic_ns() - began_ns)
            self._take(count)
        except BlockingIOError as error:
            raise deadline.timeout("the answer") from error
        except OSError as error:
            raise lost(self._address, error) from error

    def comes_within(self, seconds: float) -> bool:
        """Wait for so long; whether there is something to read then."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def is_there(self, bell: Bell, deadline: Deadline) -> bool:
        """Wait until something comes or time is up; False if ``bell`` was rung before that."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(bell, select.POLLIN)
        ready = poll.poll(max(deadline.remaining, 0) * 1000)
        return [descriptor for descriptor, _ in ready] != [bell.fileno()]

    def poll(self) -> None:
        """Take what has come already into ``replies``, without waiting.

        Raises: as ``read``, without Timeout.
        """
        try:
            self._take(self._receive(socket.MSG_DONTWAIT))
        except BlockingIOError:
            return
        except OSError as error:
            raise lost(self._address, error) from error

    def _wait_at_most(self, seconds: float) -> None:
        """Let the next call on the socket take no longer, give or take a little.

        The kernel waits: Python's own timeouts ask it before each call whether it would. To
        set it takes system calls too, which the many calls with the same time left do without.
        """
        if not 0 <= self._timeout - seconds <= _TIMEOUT_SLACK_S:
            self._timeout = seconds = min(max(seconds, 0.001), _WAIT_MAX_S)
            timeval = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

    def _found(self, began_ns: int) -> int:
        """Look for a moment whether something comes; how many bytes, 0 for none."""
        look_ns = self._patience.ns() if self._is_brief else 0
        if not look_ns:
            return 0
        if nap_s := self._patience.nap_s:
            time.sleep(nap_s)
        looked_ns = now_ns = time.monotonic_ns()
        room = self._session.room()
        assert room is not None
        while now_ns < looked_ns + look_ns:
            with suppress(BlockingIOError):
                count = self._socket.recv_into(room, 0, socket.MSG_DONTWAIT)
                # What was there when the nap ended may have been there for long.
                self._patience.took(now_ns - began_ns if now_ns > looked_ns else 0)
                self._patience.paid()
                return count
            now_ns = time.monotonic_ns()
        self._patience.failed()
        return 0

    def _receive(self, flags: int = 0) -> int:
        """Receive what there is; how many bytes."""
        room = self._session.room()
        assert room is not None
        return self._socket.recv_into(room, 0, flags)

    def _take(self, count: int) -> None:
        if not count:
            raise ConnectionLost(address=str(self._address), reason="the server closed it")
        self._is_brief = count <= _JOINED_BYTES
        self._session.received(count)
        for event in self._session.events():
            if isinstance(event, (Fatal, Rejected)):
                self.end = event.error
            elif event.id in self._unwanted:
                self._unwanted.discard(event.id)
            else:
                self.replies[event.id] = event
        # What came together with the end is an answer all the same.
        if self.end is not None and not self.replies:
            raise self.end

    def reply(self, id: int, deadline: Deadline) -> Message:
        """Wait for the reply to request ``id``.

        Raises: as ``read``.
        """
        while id not in self.replies:
            self.read(deadline)
        return self.replies.pop(id)

    def ignore(self, id: int) -> None:
        """Let the reply to request ``id`` be dropped when it comes."""
        self._unwanted.add(id)


def nap(seconds: float) -> None:
    """Wait between two attempts."""
    time.sleep(max(seconds, 0))
