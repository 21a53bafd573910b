"""A server that answers as the test says, for what a real one never does."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from mbctl.model import LIMITS
from mbctl.wire import messages as wire
from mbctl.wire.session import ServerSession

Answer = Callable[[wire.Message], bytes]


def opening(request: wire.Message) -> bytes:
    """Answer what a connection begins with, and nothing else."""
    match request:
        case wire.Hello():
            welcome = wire.Welcome(request.id, wire.VERSION, "0", "fake", "memory", LIMITS)
            return wire.encode(welcome)
        case wire.RegisterPublisher():
            return wire.encode(wire.Done(request.id))
        case wire.RegisterSubscriber():
            return wire.encode(wire.Registered(request.id, "fake"))
    return b""


class FakeServer:
    """Listens, and writes what ``answer`` returns for each request.

    ``greet`` is what a new connection is told at once. An answer that ends with ``HANG_UP``
    closes the connection after it.
    """

    HANG_UP = b"<hang up>"

    def __init__(
        self, answer: Answer = opening, greet: bytes = b"", *, receive_bytes: int | None = None
    ) -> None:
        self._answer = answer
        self._greet = greet
        self._open: list[socket.socket] = []
        self._is_over = False
        self.connections = 0
        """How many there have been."""
        self.requests: list[wire.Message] = []
        """All that were understood."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        if receive_bytes is not None:
            # How much the system takes for a server that does not read.
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.address = "{}:{}".format(*self._listener.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "FakeServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End all connections there are."""
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                self._open.append(sock)
                if self._is_over:
                    # It came while this was ended, which has not seen it, maybe.
                    sock.close()
                    return
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        session = ServerSession()
        with suppress(OSError):
            sock.sendall(self._greet)
            while content := sock.recv(65_536):
                for request in session.feed(content):
                    assert isinstance(request, wire.Message)
                    self.requests.append(request)
                    answer = self._answer(request)
                    sock.sendall(answer.removesuffix(self.HANG_UP))
                    if answer.endswith(self.HANG_UP):
                        sock.close()
                        return
