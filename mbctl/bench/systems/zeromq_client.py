"""Both ends of ZeroMQ's PUB and SUB, as someone writes them who wants speed and may lose nothing.

Each subscriber listens on a port of its own, which is noted in a file, and publishers connect to
all of a topic. They wait for the subscriptions before the first message, and while a queue is
full: by default PUB throws away what nobody asked for yet, and what a queue has no room for.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import zmq
from zmq.backend import Socket as BareSocket

from mbctl.bench.systems.interface import Publishing, Reading, Settings, Unavailable
from mbctl.bench.systems.spawn import free_port

_QUEUE_MESSAGES = 20_000
"""Room on either side for each subscriber; more makes it no faster."""
_GROUP_MESSAGES = 2000
_SUBSCRIPTION_S = 60
_LINGER_S = 60


def create(address: str, topic: str, subscribers: Sequence[str]) -> None:
    """Choose a port for each subscriber."""
    directory = Path(address) / topic
    directory.mkdir(parents=True)
    for subscriber in subscribers:
        (directory / subscriber).write_text(str(free_port()))


def drop(address: str, topic: str) -> None:
    """Forget the ports."""
    shutil.rmtree(Path(address) / topic)


def _endpoint(file: Path) -> str:
    return f"tcp://127.0.0.1:{file.read_text()}"


def _socket(kind: int, settings: Settings) -> zmq.Socket[bytes]:
    made: zmq.Socket[bytes] = zmq.Context().socket(kind)
    made.set_hwm(min(_QUEUE_MESSAGES, max(1, settings.batch * settings.in_flight)))
    made.setsockopt(zmq.SNDBUF, 4 << 20)
    made.setsockopt(zmq.RCVBUF, 4 << 20)
    made.setsockopt(zmq.RECONNECT_IVL, 10)
    made.setsockopt(zmq.LINGER, _LINGER_S * 1000)
    return made


def _end(socket: zmq.Socket[bytes]) -> None:
    """Close a socket and its context, which waits until everything is sent."""
    context = socket.context
    socket.close()
    context.term()


class PublishingEnd(Publishing):
    """An XPUB, which is a PUB that sees the subscriptions."""

    def __init__(self, address: str, topic: str, settings: Settings) -> None:
        files = sorted((Path(address) / topic).iterdir())
        if not files:
            raise Unavailable("ZeroMQ has no server: without a subscriber nobody takes a message")
        self._socket = _socket(zmq.XPUB, settings)
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        for file in files:
            self._socket.connect(_endpoint(file))
        self._missing = len(files)
        # Without the layer of Python around it, which takes as long again.
        self._send: Callable[[bytes], object] = BareSocket.send.__get__(self._socket)

    def publish(self, batches: Iterator[Sequence[bytes]]) -> int:
        """Hand over each message by a call; messages of several parts are slower."""
        self._wait_for_subscribers()
        send, sent = self._send, 0
        for batch in batches:
            for payload in batch:
                send(payload)
            sent += len(batch)
        return sent

    def publish_each(self, batches: Iterator[Sequence[bytes]]) -> int:
        """The same."""
        return self.publish(batches)

    def publish_one(self, payload: bytes) -> None:
        """Hand over one message; nobody tells when it arrives."""
        self._wait_for_subscribers()
        self._send(payload)

    def _wait_for_subscribers(self) -> None:
        while self._missing:
            if not self._socket.poll(_SUBSCRIPTION_S * 1000):
                raise Unavailable(f"{self._missing} subscribers of ZeroMQ are not there")
            if self._socket.recv().startswith(b"\1"):
                self._missing -= 1

    def close(self) -> None:
        """Wait until everything is on its way, and end the connections."""
        _end(self._socket)


class ReadingEnd(Reading):
    """A SUB that listens on the port of this subscriber."""

    def __init__(self, address: str, topic: str, subscriber: str, settings: Settings) -> None:
        self._socket = _socket(zmq.SUB, settings)
        self._socket.bind(_endpoint(Path(address) / topic / subscriber))
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._count = max(_GROUP_MESSAGES, settings.batch)

    def read(self, idle_s: float) -> Iterator[Sequence[bytes]]:
        """What has come. There is nothing to acknowledge."""
        receive, again = self._socket.recv, zmq.NOBLOCK
        while True:
            group: list[bytes] = []
            try:
                for _ in range(self._count):
                    group.append(receive(again))
            except zmq.Again:
                pass
            if group:
                yield group
            elif not self._socket.poll(int(idle_s * 1000)):
                return

    def close(self) -> None:
        """End the connections."""
        _end(self._socket)
