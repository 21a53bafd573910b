"""A connection to a NATS server on a blocking socket: lines of text, and payloads between them.

nats-py matches a pattern and awaits a coroutine for each message that comes, 10 µs in all; the
same bytes cut by hand take one.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from mbctl.bench.systems.sockets import connected, send_parts
from mbctl.bench.systems.spawn import host_and_port

_HELLO = (
    b'CONNECT {"verbose":false,"pedantic":false,"lang":"python","version":"1","protocol":1,'
    b'"headers":true,"no_responders":true}\r\nPING\r\n'
)
_READ_BYTES = 1 << 20


class Received(NamedTuple):
    """A message as it came: where an answer goes, its headers if any, its payload."""

    reply: bytes
    headers: bytes
    payload: bytes


class NatsConnection:
    """One socket. Nothing is read but when somebody asks for messages."""

    def __init__(self, address: str) -> None:
        self._socket = connected(address)
        self._buffer = b""
        # Bytes that the buffer lacks at least until it has a whole message.
        self._missing = 0
        self._subscriptions = 0
        self.send(_HELLO)
        while b"PONG\r\n" not in self._buffer:
            self._fill()
        self._buffer = self._buffer.partition(b"PONG\r\n")[2]

    def send(self, data: bytes) -> None:
        """Write protocol lines."""
        self._socket.sendall(data)

    def send_parts(self, parts: Sequence[bytes]) -> None:
        """Write large parts without copying them."""
        send_parts(self._socket, parts)

    def subscribe(self, subject: str) -> None:
        """Have messages of this subject sent here."""
        self._subscriptions += 1
        self.send(b"SUB %s %d\r\n" % (subject.encode(), self._subscriptions))

    def messages(self, timeout_s: float | None = None) -> list[Received]:
        """What came, at least one message; nothing only if nothing came for ``timeout_s``."""
        self._socket.settimeout(timeout_s)
        try:
            while not (found := self._cut()):
                self._fill()
        except TimeoutError:
            return []
        finally:
            self._socket.settimeout(None)
        return found

    def close(self) -> None:
        """Wait until the server has taken what was sent, and end the connection."""
        self.send(b"PING\r\n")
        while b"PONG\r\n" not in self._buffer:
            self._fill()
        self._socket.close()

    def _fill(self) -> None:
        """Read more, and go on while the message that began is known not to be whole."""
        parts = [self._buffer]
        self._missing = max(1, self._missing)
        try:
            while self._missing > 0:
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    raise ConnectionError("the NATS server closed the connection")
                parts.append(data)
                self._missing -= len(data)
        finally:
            self._buffer = b"".join(parts)

    def _cut(self) -> list[Received]:
        """Take all whole messages out of the buffer."""
        buffer, position, found = self._buffer, 0, []
        size = len(buffer)
        while (end := buffer.find(b"\r\n", position)) >= 0:
            words = buffer[position:end].split(b" ")
            verb = words[0]
            if verb == b"MSG":
                start = end + 2
                following = start + int(words[-1]) + 2
                if following > size:
                    self._missing = following - size
                    break
                reply = words[3] if len(words) == 5 else b""
                found.append(Received(reply, b"", buffer[start : following - 2]))
                position = following
            elif verb == b"HMSG":
                body = end + 2 + int(words[-2])
                following = end + 2 + int(words[-1]) + 2
                if following > size:
                    self._missing = following - size
                    break
                reply = words[3] if len(words) == 6 else b""
                found.append(Received(reply, buffer[end + 2 : body], buffer[body : following - 2]))
                position = following
            else:
                self._obey(buffer[position:end])
                position = end + 2
        self._buffer = buffer[position:]
        return found

    def _obey(self, line: bytes) -> None:
        if line == b"PING":
            self.send(b"PONG\r\n")
        elif line.startswith(b"-ERR"):
            raise ConnectionError(line.decode())


def url_of(address: str) -> str:
    """The address as nats-py wants it."""
    host, port = host_and_port(address)
    return f"nats://{host}:{port}"


def answer(message: Received) -> dict[str, Any]:
    """What JetStream answered.

    Raises:
        ConnectionError: it refused.
    """
    if not message.payload:
        raise ConnectionError(f"JetStream said {message.headers.decode().strip() or 'nothing'}")
    said: dict[str, Any] = json.loads(message.payload)
    if "error" in said or said.get("type") == "gap":
        raise ConnectionError(f"JetStream refused: {said}")
    return said
