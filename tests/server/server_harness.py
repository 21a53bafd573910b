"""A server inside the test's process, which can be looked into, and a client made of bytes."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from broker_process import PATIENCE_S, wait_until

from mbctl import batch as batches
from mbctl.engine.local import LocalEngine
from mbctl.engine.opening import StorageOptions, open_storage
from mbctl.journal.memory import MemoryJournal
from mbctl.model import KIB, LIMITS, MIB, Limits
from mbctl.server.runtime import AsyncioRuntime, loop_factory
from mbctl.server.server import Server
from mbctl.wire import messages as wire
from mbctl.wire.session import ClientSession, Fatal

T = TypeVar("T")

_MAX_BYTES = 1024 * MIB


class HeldJournal(MemoryJournal):
    """Memory whose commits are done when the test says so, as a slow disk's would be."""

    def __init__(self) -> None:
        super().__init__(_MAX_BYTES)
        self._held: list[Callable[[], None]] = []

    def commit(self, done: Callable[[], None]) -> None:
        """Keep ``done`` for later."""
        self._held.append(done)

    def let_go(self) -> None:
        """All that was appended is durable now."""
        held, self._held = self._held, []
        for done in held:
            done()


class ServerInside:
    """A server on a loop of its own, in a thread of this process."""

    def __init__(
        self,
        limits: Limits = LIMITS,
        *,
        journal: MemoryJournal | None = None,
        data: Path | None = None,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        """What is sent is kept in ``data``, or else in the journal, which is in memory."""
        self.limits = limits
        self.data = data
        self.journal = journal or MemoryJournal(_MAX_BYTES)
        self.troubles: list[dict[str, Any]] = []
        """What the loop's exception handler was told."""
        self._runner = asyncio.Runner(loop_factory=loop_factory or _loop)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "ServerInside":
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        if kind is None:
            assert self.troubles == []
            self.check_empty()

    def _run(self) -> None:
        with self._runner as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda _, context: self.troubles.append(context))
        self._stopping = asyncio.Event()
        runtime = AsyncioRuntime(self._loop)
        if self.data is None:
            self.engine = LocalEngine(self.journal, runtime, self.limits)
        else:
            storage = open_storage(StorageOptions(directory=self.data), runtime, print)
            self.engine = storage.engine(runtime, self.limits)
        self.server = Server(self.engine, self.limits, self._loop)
        await self.server.start("127.0.0.1", 0)
        self.address = self.server.address
        self._ready.set()
        await self._stopping.wait()
        if isinstance(self.journal, HeldJournal):
            self.journal.let_go()
            self._loop.call_later(0.05, self.journal.let_go)
        await self.server.stop()

    def on_loop(self, call: Callable[[], T]) -> T:
        """Call in the server's thread; what it returned."""

        async def called() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(PATIENCE_S)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the server's thread from doing anything while the block lasts."""
        go_on, is_held = threading.Event(), threading.Event()

        def hold() -> None:
            is_held.set()
            assert go_on.wait(PATIENCE_S)

        self._loop.call_soon_threadsafe(hold)
        assert is_held.wait(PATIENCE_S)
        try:
            yield
        finally:
            go_on.set()

    def wait_until(self, condition: Callable[[], T]) -> T:
        """Wait until ``condition``, looked at in the server's thread, is true."""
        return wait_until(lambda: self.on_loop(condition))

    def check_empty(self) -> None:
        """Assert that nothing is counted or kept for connections that are gone."""
        server = self.server
        assert not server.connections
        assert not server.watched
        assert not server.stalled
        assert not server.congested
        assert not server._members
        assert not server._lingering
        assert (server.request_bytes, server.partial.bytes) == (0, 0)
        assert not server.partial._begun
        assert not server.partial._held
        assert not server.turns._line
        assert (len(server.unread), server.unread.bytes, server.unread.queued) == (0, 0, 0)

    def client(self) -> "RawClient":
        """A client that has said nothing yet."""
        return RawClient(self.address)


def _loop() -> asyncio.AbstractEventLoop:
    return (loop_factory() or asyncio.new_event_loop)()


class RawClient:
    """A socket that speaks frames, and anything else as well."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._session = ClientSession()
        self._replies: dict[int, wire.Message] = {}
        self._next_id = 0
        self.end: str | None = None
        """The code of the error that ended the connection."""

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def write(self, content: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(content)

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

    def reply(self, id_: int | None = None) -> wire.Message:
        """The reply to request ``id_``, or to the last one.

        Raises:
            ConnectionError: the server closed the connection.
        """
        id_ = self._next_id if id_ is None else id_
        while id_ not in self._replies:
            self._read()
        return self._replies.pop(id_)

    def ask(self, request: wire.Message) -> wire.Message:
        """The reply to ``request``."""
        self.write(self.frame(request))
        return self.reply()

    def refusal(self, request: wire.Message) -> str:
        """The code of the error that refuses ``request``."""
        reply = self.ask(request)
        assert isinstance(reply, wire.Error), reply
        return reply.code

    def hello(self) -> "RawClient":
        """Open the connection."""
        welcome = self.ask(wire.Hello(0, wire.VERSION, wire.VERSION, "raw"))
        assert isinstance(welcome, wire.Welcome)
        return self

    def publisher(self, session: bytes = b"p" * 16) -> "RawClient":
        """Open the connection and register a publisher."""
        assert isinstance(self.hello().ask(wire.RegisterPublisher(0, session)), wire.Done)
        return self

    def subscriber(self, name: str | None = None, member: bytes = b"m" * 16) -> "RawClient":
        """Open the connection and register a subscriber."""
        registered = self.hello().ask(wire.RegisterSubscriber(0, member, name))
        assert isinstance(registered, wire.Registered)
        return self

    def take_little(self) -> None:
        """Let the kernel take little for a client that does not read."""
        # Not less: two segments of the loopback must fit, or reading crawls.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * KIB)

    def rest(self) -> list[int]:
        """Read until the server closes; the ids of the replies that came, ``end`` is why."""
        try:
            while True:
                self._read()
        except ConnectionError:
            return list(self._replies)

    def reset(self) -> None:
        """Close with RST, as a process that was killed with unread input does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _read(self) -> None:
        content = self.socket.recv(MIB)
        if not content:
            raise ConnectionError("closed by the server")
        for event in self._session.feed(content):
            if isinstance(event, Fatal):
                self.end = event.error.code
            else:
                assert isinstance(event, wire.Message)
                self._replies[event.id] = event
