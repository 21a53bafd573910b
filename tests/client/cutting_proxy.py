"""A proxy that cuts connections, and the ledger: what a topic really holds."""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

from mbctl import Subscriber

UP, DOWN = "up", "down"


class CuttingProxy:
    """Passes bytes on between clients and a server, and cuts a connection when told to.

    ``cut_after(up=17)`` lets 17 more bytes of the client through and then closes both sides;
    ``down`` counts the server's bytes. Later connections pass again until the next order.
    """

    def __init__(self, server: str) -> None:
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self._lock = threading.Lock()
        self._left: dict[str, int | None] = {UP: None, DOWN: None}
        self._resets = False
        self._again: Callable[[], int] | None = None
        self._open: list[socket.socket] = []
        self.refuses = False
        """Whether new connections are closed at once."""
        self.cuts = 0
        """How many connections were cut."""
        self.passed = {UP: 0, DOWN: 0}
        """Bytes passed on in each direction."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(
        self, *, up: int | None = None, down: int | None = None, resets: bool = False
    ) -> None:
        """Cut the connection after so many more bytes; with ``resets``, by RST."""
        with self._lock:
            self._left = {UP: up, DOWN: down}
            self._resets = resets

    def cut_always(self, next_size: Callable[[], int], *, resets: bool = False) -> None:
        """Cut again and again, each time after ``next_size()`` bytes in either direction."""
        with self._lock:
            self._resets = resets
            self._again = next_size
            self._left = {UP: next_size(), DOWN: next_size()}

    def cut_no_more(self) -> None:
        """Let everything pass."""
        with self._lock:
            self._again = None
            self._left = {UP: None, DOWN: None}

    def cut_now(self) -> None:
        """Cut all connections."""
        with self._lock:
            doomed, self._open = self._open, []
        self._cut(doomed)

    def close(self) -> None:
        """Stop; all connections are closed."""
        with suppress(OSError):
            # Wakes the thread that accepts, which would take one more connection.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_now()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuses:
                client.close()
                continue
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                continue
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open += [client, server]
            for ends in ((client, server, UP), (server, client, DOWN)):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        pair = [source, target]
        try:
            while content := source.recv(65_536):
                keep = self._keep(direction, len(content))
                with self._lock:
                    # Before it passes: whoever has the answer can rely on the count.
                    self.passed[direction] += len(content[:keep])
                target.sendall(content[:keep])
                if keep is not None:
                    self.cuts += 1
                    break
        except OSError:
            pass
        self._cut(pair)

    def _keep(self, direction: str, size: int) -> int | None:
        """How much of ``size`` bytes passes before the cut; None if there is no cut in it."""
        with self._lock:
            left = self._left[direction]
            if left is None:
                return None
            if size < left:
                self._left[direction] = left - size
                return None
            again = self._again
            self._left = {name: None if again is None else again() for name in (UP, DOWN)}
            return left

    def _cut(self, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            if self._resets:
                linger = struct.pack("ii", 1, 0)
                try:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                except OSError:
                    continue
            with suppress(OSError):
                # Wakes the thread that reads from it, which a close does not.
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def read_all(server: str, topic: str) -> list[bytes]:
    """All messages of ``topic``, read by a subscriber that comes after the fact."""
    payloads: list[bytes] = []
    with Subscriber(server) as subscriber:
        subscriber.subscribe(topic, start="earliest")
        while batch := subscriber.pull(topic, 10_000, wait=0):
            payloads += batch.payloads
        assert not batch.skipped
    return payloads
