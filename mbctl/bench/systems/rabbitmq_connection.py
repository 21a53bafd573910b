"""A connection to RabbitMQ on a blocking socket: frames of AMQP 0-9-1.

pika encodes and decodes what is said seldom. A message is three frames, which cost pika 25 µs on
either side; their bytes are nearly always the same, and cost one when they are kept.
"""

import socket
from typing import Any

from pika import frame, spec

from mbctl.bench.systems.spawn import host_and_port

_READ_BYTES = 1 << 20
CHANNEL = 1
END = b"\xce"


class RabbitConnection:
    """One socket with one channel. Nothing is read but when somebody asks."""

    def __init__(self, address: str) -> None:
        self._socket = socket.create_connection(host_and_port(address))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
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

    def fill(self, timeout_s: float | None = None) -> bool:
        """Read what comes next; whether something came in that time."""
        self._socket.settimeout(timeout_s)
        try:
            data = self._socket.recv(_READ_BYTES)
        except TimeoutError:
            return False
        finally:
            self._socket.settimeout(None)
        if not data:
            raise ConnectionError("RabbitMQ closed the connection")
        self.buffer += data
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
