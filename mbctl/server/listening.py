"""The sockets that clients connect to, and what is done when descriptors run out.

The loop's own servers accept as many as wait, one after the other, and go on asking when the
system refuses: a thousand refusals a second, all of them logged. Here a few are accepted a
turn, and a refusal ends it for a moment.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mbctl.server import log

_BACKLOG = 128
# So many connections are accepted in one turn of the loop, so that a storm of them leaves
# time for those that are there.
_ACCEPTS_A_TURN = 8
# How long nobody is accepted after the system had no descriptor or memory for one.
_RETRY_S = 0.25
# It is not said more often than this.
_QUIET_S = 10.0
_ABSENT = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listening:
    """Listens on all addresses of one host, and makes a protocol for each connection."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, new_protocol: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self._loop = loop
        self._new_protocol = new_protocol
        self._sockets: list[socket.socket] = []
        self._beginning: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._is_short = False
        """Whether it was said that there is no descriptor."""
        self._told_s = -_QUIET_S

    async def open(self, host: str, port: int) -> str:
        """Listen; the first address, as HOST:PORT.

        Raises:
            OSError: the address cannot be listened on.
        """
        found = _numeric(host, port) or await self._loop.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        try:
            self._listen([(family, address[0]) for family, _, _, _, address in found], port)
        except OSError:
            self.close()
            raise
        self._begin()
        bound = self._sockets[0].getsockname()
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        return f"{shown}:{bound[1]}"

    def _listen(self, addresses: list[tuple[int, str | int]], port: int) -> None:
        missing = None
        for family, host in dict.fromkeys(addresses):
            try:
                listener = _listener(family, (host, port))
            except OSError as error:
                # A name may stand for an address of a family that this machine does not use.
                if error.errno not in _ABSENT:
                    raise
                missing = error
            else:
                self._sockets.append(listener)
                port = listener.getsockname()[1]
        if missing is not None and not self._sockets:
            raise missing

    def close(self) -> None:
        """Accept nobody any more."""
        if self._retry is not None:
            self._retry.cancel()
        self._pause()
        for listener in self._sockets:
            listener.close()
        self._sockets.clear()

    def _begin(self) -> None:
        for listener in self._sockets:
            self._loop.add_reader(listener, self._accept, listener)

    def _pause(self) -> None:
        for listener in self._sockets:
            self._loop.remove_reader(listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._refused(error)
                return
            if self._is_short:
                self._is_short = False
                log.event(logging.INFO, "accepting connections again")
            accepted.setblocking(False)
            # One of the two loops leaves that to who accepts.
            with suppress(OSError):
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._connect(accepted))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        """Let the loop serve a connection. It may have been reset already."""
        try:
            await self._loop.connect_accepted_socket(self._new_protocol, accepted)
        except OSError:
            accepted.close()

    def _refused(self, error: OSError) -> None:
        """Try again later; what waits in the backlog waits a little longer."""
        if error.errno in _EXHAUSTED:
            if not self._is_short and self._loop.time() - self._told_s >= _QUIET_S:
                self._is_short = True
                self._told_s = self._loop.time()
                log.event(
                    logging.WARNING,
                    "no connection can be accepted",
                    reason=error.strerror,
                    note="they wait until others have ended",
                )
            self._pause()
            self._retry = self._loop.call_later(_RETRY_S, self._begin)
        else:
            # The connection is gone, as accept(2) says of all the others; the next may be whole.
            log.event(logging.INFO, "a connection was not accepted", reason=error.strerror)


def _numeric(host: str, port: int) -> list[Any]:
    """What stands for ``host`` if it is an address: that takes no thread to find out."""
    flags = socket.AI_PASSIVE | socket.AI_NUMERICHOST
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror:
        return []


def _listener(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Else it would take the same port of the other family as well.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
