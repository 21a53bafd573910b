"""A connection to RabbitMQ on a blocking socket: frames of AMQP 0-9-1.

pika encodes and decodes what is said seldom. A message is three frames, which cost pika 25 µs on
either side; their bytes are nearly always the same, and cost one when they are kept.
"""

import socket
from collections.abc import Sequence
from typing import Any

from pika import frame, spec

from mbctl.bench.systems.sockets import connected, send_parts

_READ_BYTES = 1 << 20
CHANNEL = 1
END = b"\xce"


class RabbitConnection:
    """One socket with one channel. Nothing is read but when somebody asks."""

    def __init__(self, address: str) -> None:
        self._socket = connected(address)
        self.buffer = b""
        """What was read and nobody has used yet."""
        self.body_bytes_max = self._open()
        """Bytes of a payload that fit into one frame."""

    def _open(self) -> int:
        self.send(b"AMQP\0\0\x09\x01")
        self._answer()
        properties = {"capabilities": {"publisher_confirms": True, "basic.nack": True}}
        login = "\0guest\0guest"
        tune = self.call(spec.Connection.StartOk(properties, "PLAIN", login, "en_US"), channel=0)
        tuned = spec.Connection.TuneOk(tune.channel_max, tune.frame_max, 0)
        self.send(frame.Method(0, tuned).marshal())
        self.call(spec.Connection.Open("/"), channel=0)
        self.call(spec.Channel.Open())
        return int(tune.frame_max) - 8

    def send(self, data: bytes) -> None:
        """Write frames."""
        self._socket.sendall(data)

    def send_parts(self, parts: Sequence[bytes]) -> None:
        """Write large parts without copying them."""
        send_parts(self._socket, parts)

    def call(self, method: Any, channel: int = CHANNEL) -> Any:
        """Send a method that has an answer, and wait for that."""
        self.send(frame.Method(channel, method).marshal())
        return self._answer()

    def _answer(self) -> Any:
        """The next frame, which is a method."""
        while not (found := frame.decode_frame(self.buffer))[0]:
            self.fill()
        size, answer = found
        self.buffer = self.buffer[size:]
        refuse_close(answer)
        return answer.method

    def fill(self, timeout_s: float | None = None, missing: int = 1) -> bool:
        """Read at least ``missing`` bytes; whether something came in that time."""
        self._socket.settimeout(timeout_s)
        parts = [self.buffer]
        try:
            while missing > 0:
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    raise ConnectionError("RabbitMQ closed the connection")
                parts.append(data)
                missing -= len(data)
        except TimeoutError:
            return False
        finally:
            self._socket.settimeout(None)
            self.buffer = b"".join(parts)
        return True

    def close(self) -> None:
        """End the connection once the server has taken what was sent."""
        self.send(frame.Method(0, spec.Connection.Close(200, "", 0, 0)).marshal())
        self._socket.shutdown(socket.SHUT_WR)
        while self._socket.recv(_READ_BYTES):
            pass
        self._socket.close()


def refuse_close(answer: Any) -> None:
    """Raise what the server said if this is how it ends a channel or the connection."""
    if isinstance(answer.method, (spec.Channel.Close, spec.Connection.Close)):
        raise ConnectionError(f"RabbitMQ refused: {answer.method.reply_text}")
