"""The broker inside a process that does other things too."""

import asyncio
import os
import socket
import threading
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Self

from mbctl import forks
from mbctl.errors import ServerError
from mbctl.model import DEFAULT_HOST, LIMITS, Limits
from mbctl.server.ending import Ending
from mbctl.server.options import ServerOptions
from mbctl.server.runtime import loop_factory
from mbctl.server.server import Server as Listener
from mbctl.server.starting import listen, open_engine

# How long a stop may take in all, and how long a server whose disk has failed lets the
# answers leave that it had given before.
_STOP_S = 10.0
_FAREWELL_S = 0.5
# How long such a server may take to let go of its files.
_LET_GO_S = 2.0


class Server:
    """A broker of this process, on a thread with an event loop of its own.

    By default it keeps everything in memory and listens on a free port of the loopback.
    It touches nothing of its process: no signal handlers, no umask, no logging configuration.

    Also with ``async with`` it has its own thread. On the loop of who uses it, a sync client
    called there would wait for a server that waits for that call to return; and whatever else
    blocks that loop would let leases run out.

    It stays with its process: in the child of a fork nothing of it runs, and leaving the block
    there ends nothing. ``address`` is where the parent's listens.
    """

    def __init__(
        self,
        *,
        host: str = DEFAULT_HOST,
        port: int = 0,
        memory: bool | None = None,
        data: str | os.PathLike[str] | None = None,
        sync: str | None = None,
        max_bytes: int | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        self.options = ServerOptions(
            host=host,
            port=port,
            memory=data is None if memory is None else memory,
            data=os.fspath(data) if isinstance(data, os.PathLike) else data,
            sync=sync,
            max_bytes=max_bytes,
            limits=limits,
        )
        """As ``mbctl server`` has them; in memory, unless ``data`` names a directory."""
        self.options.check()
        self._life: _Life | None = None

    @property
    def address(self) -> str:
        """Where it listens, as HOST:PORT; empty while it does not run."""
        return "" if self._life is None else self._life.address

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        life = self._end()
        if life is not None:
            failure = life.ended.result()
            life.thread.join()
            if failure is not None and kind is None:
                raise failure

    async def __aenter__(self) -> Self:
        life = self._begin()
        try:
            failure = await asyncio.shield(asyncio.wrap_future(life.begun))
        except BaseException:
            self._end()
            raise
        self._check(life, failure)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        life = self._end()
        if life is not None:
            # Cancelled, it ends all the same; only nobody waits for that.
            failure = await asyncio.shield(asyncio.wrap_future(life.ended))
            life.thread.join()
            if failure is not None and kind is None:
                raise failure

    def start(self) -> None:
        """Start, and return when it can be connected to.

        Raises:
            ServerError: it runs already, the address cannot be listened on, or the data
                directory not be used.
            StorageCorrupt, NewerFormat: what is in the data directory cannot be served.
        """
        life = self._begin()
        try:
            failure = life.begun.result()
        except BaseException:
            self._end()
            raise
        self._check(life, failure)

    def stop(self) -> None:
        """Stop accepting, answer what is in flight, make all durable, and end.

        Raises:
            StorageFailed: it had stopped by itself, as a write to disk failed.
        """
        self.__exit__(None, None, None)

    def _begin(self) -> "_Life":
        if self._life is not None:
            raise ServerError(reason="this Server runs already")
        self._life = _Life(self.options)
        return self._life

    def _check(self, life: "_Life", failure: Exception | None) -> None:
        """Raise what kept it from starting."""
        if failure is not None:
            self._life = None
            life.thread.join()
            raise failure

    def _end(self) -> "_Life | None":
        """Let it end; what can be waited for, unless it runs in another process."""
        life, self._life = self._life, None
        if life is None or life.process != os.getpid():
            return None
        life.end()
        return life


class _Life:
    """One run of a Server, from its thread's beginning to that thread's end."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._ending: Ending | None = None
        """Set while it serves."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_to_end = False
        self.process = os.getpid()
        self.address = ""
        self.begun: Future[Exception | None] = Future()
        """Done when it can be connected to, or with what kept it from that."""
        self.ended: Future[Exception | None] = Future()
        """Done when nothing of it is left but a thread that returns; with why, if it failed."""
        # A daemon: whoever forgets to stop it can leave the process all the same.
        self.thread = threading.Thread(target=self._work, name="mbctl-server", daemon=True)
        forks.watch(self)
        self.thread.start()

    def _in_child(self) -> None:
        # Its connections, its port and its lock are the parent's, and end with the parent. The
        # event loop shares its poll with the parent's, so nothing of it must be closed in
        # order; another file takes the place of each.
        directory = self._options.data_directory
        within = None if directory is None else str(directory.resolve())
        port = self.address.rpartition(":")[2]
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in map(int, os.listdir("/dev/fd")):
            if _is_of(descriptor, port, within):
                os.dup2(null, descriptor, inheritable=False)
        os.close(null)

    def end(self) -> None:
        """Let it end, now or as soon as it serves. May be called from any thread."""
        with self._lock:
            self._is_to_end = True
            if self._ending is not None and self._loop is not None:
                self._loop.call_soon_threadsafe(self._ending.ask)

    def _work(self) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                failure = runner.run(self._serve())
        except Exception as error:
            failure = error
        if not self.begun.done():
            self.begun.set_result(failure)
        self.ended.set_result(failure)

    async def _serve(self) -> Exception | None:
        """Serve until told to end; why it ended if nobody told it to."""
        loop = asyncio.get_running_loop()
        ending = Ending(loop)
        engine = await open_engine(self._options, ending)
        if engine is None:
            # Told to end it is only later, so something has failed.
            return _failure(ending)
        server = Listener(engine, engine.limits, loop)
        try:
            await listen(server, self._options)
        except ServerError:
            await ending.within(_STOP_S, server.close_engine())
            raise
        self.address = server.address
        self._serving(ending, loop)
        await ending.wait()
        self._serving(None, loop)
        if ending.failure is None and await ending.within(_STOP_S, server.stop()):
            return None
        failure = _failure(ending)
        await server.abandon(_FAREWELL_S)
        if ending.failure is not None:
            # The process goes on: what the engine holds is let go, if that can be.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LET_GO_S):
                    await server.close_engine()
        return failure

    def _serving(self, ending: Ending | None, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._ending, self._loop = ending, loop
            if ending is not None and self._is_to_end:
                ending.ask()
        if ending is not None:
            self.begun.set_result(None)


def _is_of(descriptor: int, port: str, within: str | None) -> bool:
    """Whether a descriptor is of the server at ``port`` with its files ``within``."""
    try:
        path = os.readlink(f"/dev/fd/{descriptor}")
        # The directory itself is open while it is synced.
        if within is not None and (path == within or path.startswith(f"{within}/")):
            return True
        sock = socket.socket(fileno=descriptor)
    except OSError:
        return False
    try:
        # Of a client in this process it is the peer that has the server's port.
        is_internet = sock.family in (socket.AF_INET, socket.AF_INET6)
        return is_internet and str(sock.getsockname()[1]) == port
    except OSError:
        return False
    finally:
        sock.detach()


def _failure(ending: Ending) -> Exception:
    """What the user of a server is told that did not end in good order."""
    if isinstance(ending.failure, Exception):
        return ending.failure
    return ServerError(reason=f"the server did not stop within {_STOP_S:g} s")
