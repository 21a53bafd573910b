"""A client made of bytes: it speaks the protocol as far as it is told to, and no further."""

import os
import socket
import struct

from mbctl import batch as batches
from mbctl.wire import messages as wire
from mbctl.wire.session import ClientSession, Fatal


class Raw:
    """A socket that speaks frames."""

    def __init__(self, address: str, *, receive_bytes: int | None = None, source: str = "") -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if source:
            self.socket.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            self.socket.bind((source, 0))
        self.socket.settimeout(30)
        self.socket.connect((host, int(port)))
        self._session = ClientSession()
        self._replies: dict[int, wire.Message] = {}
        self._next_id = 0
        self.end: str | None = None
        """The code of the error that ended the connection."""

    def frame(self, request: wire.Message) -> bytes:
        """``request`` with the next id, as a frame."""
        self._next_id += 1
        request.id = self._next_id
        return wire.encode(request)

    def send_frame(self, topic: str, sequence: int, *payloads: bytes) -> bytes:
        """A send, as a frame."""
        self._next_id += 1
        batch = batches.encode(payloads)
        return b"".join(wire.encode_send(self._next_id, topic, sequence, 0, batch))

    def write(self, content: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(content)

    def reply(self) -> wire.Message:
        """The reply to the last request.

        Raises:
            ConnectionError: the server closed the connection.
        """
        while self._next_id not in self._replies:
            content = self.socket.recv(1 << 20)
            if not content:
                raise ConnectionError(f"closed by the server: {self.end}")
            for event in self._session.feed(content):
                if isinstance(event, Fatal):
                    self.end = event.error.code
                else:
                    assert isinstance(event, wire.Message)
                    self._replies[event.id] = event
        reply = self._replies.pop(self._next_id)
        self._replies.clear()
        return reply

    def ask(self, request: wire.Message) -> wire.Message:
        """The reply to ``request``."""
        self.write(self.frame(request))
        return self.reply()

    def hello(self) -> "Raw":
        """Open the connection."""
        self.ask(wire.Hello(0, wire.VERSION, wire.VERSION, "raw"))
        return self

    def publisher(self) -> "Raw":
        """Open the connection and register a publisher."""
        self.hello().ask(wire.RegisterPublisher(0, os.urandom(16)))
        return self

    def subscriber(self, name: str | None) -> "Raw":
        """Open the connection and register a subscriber."""
        self.hello().ask(wire.RegisterSubscriber(0, os.urandom(16), name))
        return self

    def close(self) -> None:
        """Close it as clients do."""
        self.socket.close()

    def reset(self) -> None:
        """Close with RST, as a process that was killed with unread input does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
