"""One client's connection: frames in, requests to the engine, replies out.

    data_received → session → requests → _VERBS → engine ─┐
    writelines ← flush, once a turn ← replies ← done  ◀───┘

A connection takes no more requests while it is congested: while what it has not read
yet, or what it has sent and has no answer for, is above its bound. Nothing is dropped;
the socket is just not read.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mbctl import __version__
from mbctl.batch import Buffer
from mbctl.engine.interface import Done, Pulled
from mbctl.errors import (
    ConnectionFatal,
    LimitExceeded,
    MbctlError,
    ProtocolError,
    ServerStopping,
)
from mbctl.model import KIB, MIB, NS_PER_S
from mbctl.server import log
from mbctl.server.verbs import VERBS
from mbctl.wire import messages as wire
from mbctl.wire.session import Fatal, Rejected, ServerSession

if TYPE_CHECKING:
    from mbctl.server.server import Server

T = TypeVar("T")

# Unsent output above which a connection takes no more requests.
_OUTPUT_HIGH = MIB
# Requests are shorter than this, but for sends, which come on connections that are read.
_FRAME_SHORT = 64 * KIB
# How long a connection that the server ends may stay, for the peer to see why: with nothing
# to send but the reason, and with replies that the peer has yet to read.
_LINGER_S = 1.0
_LINGER_UNSENT_S = 5.0


class Connection(asyncio.Protocol):
    """The server's side of one connection."""

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.limits = server.limits
        self.engine = server.engine
        self.session: bytes | None = None
        """The publisher session registered here."""
        self.member: bytes | None = None
        """The reading process registered here."""
        self.subscriber = ""
        self.pulls: dict[int, int] = {}
        """Waiting pulls: from request id to the engine's number."""
        self.sends = 0
        """Sends without an answer yet."""
        self.peer = "?"
        self.deadline_ns: int | None = None
        """When the frame under way, or the first one, must be complete."""
        self.stalled_since_ns: int | None = None
        """Since when the peer has not read what waits for it."""
        self._wire = ServerSession(server.limits)
        self._transport: asyncio.Transport | None = None
        self._events: deque[wire.Request | Rejected | Fatal] = deque()
        self.buffered = 0
        """Bytes of the frame under way."""
        self._requests = 0
        self._request_bytes = 0
        self._out: list[Buffer] = []
        self._out_bytes = 0
        self._is_paused = False
        self._is_closing = False

    # --- the transport's calls --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many connections."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_OUTPUT_HIGH)
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "?"
        _keep_alive(transport.get_extra_info("socket"))
        if self.server.is_stopping:
            self.end(ServerStopping())
        elif not self.server.admit(self):
            self.end(LimitExceeded(what="connections", limit=self.server.connections_max))
        else:
            self.watch(self.limits.first_frame_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release what the client had; the answers still to come go nowhere."""
        self._transport = None
        self._is_closing = True
        self._events.clear()
        self._out.clear()
        self._count_buffered(0)
        self.server.forget(self)

    def data_received(self, data: bytes) -> None:
        """Take what came and act on it, as far as this connection may."""
        if self._is_closing:
            return
        events = self._wire.feed(data)
        self._count_buffered(self._wire.buffered)
        if self.buffered == 0:
            self.deadline_ns = None if self._wire.is_open else self.deadline_ns
        elif events or self.deadline_ns is None:
            self.watch(self.limits.frame_s)
        self.server.bound_partial_frames()
        self._events.extend(events)
        self.proceed()

    def pause_writing(self) -> None:
        """The peer does not read as fast as it asks."""
        self.stalled_since_ns = self.server.now_ns()
        self.server.stalled[self] = None
        # Messages for its waiting pulls would only pile up here; it may ask again.
        self._cancel_pulls()

    def resume_writing(self) -> None:
        """The peer has read; go on with what it asked since."""
        self.stalled_since_ns = None
        self.server.stalled.pop(self, None)
        self.proceed()

    # --- requests ---------------------------------------------------------------------------

    @property
    def is_congested(self) -> bool:
        """Whether requests have to wait until replies are read or answers are there."""
        return (
            self.server.is_stopping
            or self.stalled_since_ns is not None
            or self._out_bytes > _OUTPUT_HIGH
            or self._request_bytes > self.limits.connection_bytes
            or self.server.request_bytes > self.limits.server_bytes
        )

    def proceed(self) -> None:
        """Act on the requests that came, until there is none or the connection is congested."""
        while self._events and not self._is_closing and not self.is_congested:
            self._act(self._events.popleft())
        must_pause = bool(self._events) or self.is_congested
        if self._transport is None or self._is_closing or must_pause == self._is_paused:
            return
        self._is_paused = must_pause
        if must_pause:
            self._transport.pause_reading()
            self.server.congested[self] = None
        else:
            self._transport.resume_reading()
            self.server.congested.pop(self, None)
            if self.deadline_ns is not None:
                # The time in which it was not read from does not count.
                self.watch(self.limits.frame_s)

    def _act(self, event: wire.Request | Rejected | Fatal) -> None:
        if isinstance(event, Fatal):
            self.end(event.error)
        elif isinstance(event, Rejected):
            self.send([wire.encode(wire.Error.of(event.id, event.error))])
        elif isinstance(event, wire.Hello):
            self._welcome(event.id)
        elif self._requests >= self.limits.connection_requests:
            limit = self.limits.connection_requests
            self.refuse(event.id, LimitExceeded(what="requests in flight", limit=limit))
        else:
            VERBS[type(event)](self, event)

    def _welcome(self, id_: int) -> None:
        engine = self.engine
        self.send(
            [
                wire.encode(
                    wire.Welcome(
                        id_, wire.VERSION, __version__, engine.name, engine.durability, self.limits
                    )
                )
            ]
        )

    def done(
        self, request: wire.Request, reply: Callable[[int, T], wire.Message], size: int = 0
    ) -> Done[T]:
        """The callback that answers ``request``, which counts as in flight until then."""
        id_ = request.id
        self._count_request(1, size)

        def answer(result: T | MbctlError) -> None:
            self._count_request(-1, -size)
            message: Any
            if isinstance(result, MbctlError):
                message = wire.Error.of(id_, result)
            else:
                message = reply(id_, result)
            self.send([wire.encode(message)])

        return answer

    def done_pull(self, id_: int) -> Done[Pulled]:
        """The callback that answers a pull."""
        self._count_request(1, 0)

        def answer(result: Pulled | MbctlError) -> None:
            self._count_request(-1, 0)
            self.pulls.pop(id_, None)
            if isinstance(result, MbctlError):
                self.send([wire.encode(wire.Error.of(id_, result))])
            else:
                self.send(wire.encode_pulled(id_, result.topic_id, result.skipped, result.pieces))

        return answer

    def refuse(self, id_: int, error: MbctlError) -> None:
        """Answer that a request is refused, or end the connection if it is of no more use."""
        if isinstance(error, ConnectionFatal):
            self.end(error)
        else:
            self.send([wire.encode(wire.Error.of(id_, error))])

    def _count_request(self, count: int, size: int) -> None:
        self._requests += count
        self._request_bytes += size
        self.server.count_bytes(size)
        if count < 0 and self._is_paused and not self.is_congested:
            self.server.loop.call_soon(self.proceed)

    def _count_buffered(self, size: int) -> None:
        self.server.partial_bytes += size - self.buffered
        self.buffered = size

    # --- output -----------------------------------------------------------------------------

    def send(self, buffers: list[Buffer] | list[bytes]) -> None:
        """Queue one frame; all of a turn's frames are written at once."""
        if self._is_closing:
            return
        if not self._out:
            self.server.loop.call_soon(self._flush)
        self._out += buffers
        for buffer in buffers:
            self._out_bytes += memoryview(buffer).nbytes

    def _flush(self) -> None:
        if self._transport is None or not self._out:
            return
        out, self._out = self._out, []
        was_congested = self._out_bytes > _OUTPUT_HIGH
        self._out_bytes = 0
        self._transport.writelines(cast("list[bytes]", out))
        if was_congested:
            self.proceed()

    def end(self, error: MbctlError) -> None:
        """Say why, then close. What was queued before is still sent."""
        if self._is_closing or self._transport is None:
            return
        if not isinstance(error, ServerStopping):
            log.event(
                logging.INFO, "connection ended", peer=self.peer, code=error.code, reason=str(error)
            )
        self.send([wire.encode(wire.Error.of(0, error))])
        self._is_closing = True
        self._events.clear()
        # What came of a frame is not kept until the peer has closed.
        self._wire = ServerSession(self.limits)
        self._count_buffered(0)
        self.server.release_member(self)
        self._flush()
        self._linger()

    def _linger(self) -> None:
        """Close after the peer, or when it takes too long to do so.

        A socket closed with input unread resets the connection, and what was sent last is
        lost. So input is read, and dropped, until the peer has had the time to see the end.
        """
        assert self._transport is not None
        if not self.server.may_linger(self):
            self._transport.close()
            return
        if self._is_paused:
            self._transport.resume_reading()
        try:
            self._transport.write_eof()
        except OSError:
            # The peer has gone and the loop is about to find out.
            self._transport.abort()
            return
        patience_s = _LINGER_UNSENT_S if self.unsent_bytes else _LINGER_S
        self.server.loop.call_later(patience_s, self.abort)

    def finish(self) -> None:
        """Close once all is sent, whether or not the peer has seen the end."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, without another word."""
        self._is_closing = True
        self._events.clear()
        if self._transport is not None:
            self._transport.abort()

    def stop(self) -> None:
        """Say that the server is stopping, and close."""
        self.end(ServerStopping())

    def _cancel_pulls(self) -> None:
        for number in list(self.pulls.values()):
            self.engine.cancel_pull(number)

    # --- time -------------------------------------------------------------------------------

    def watch(self, seconds: int) -> None:
        """Let the frame that is under way be complete within ``seconds``."""
        self.deadline_ns = self.server.now_ns() + seconds * NS_PER_S
        self.server.watched[self] = None

    def check_deadline(self, now_ns: int) -> None:
        """End the connection if its frame took too long; stop watching if there is none."""
        if self.deadline_ns is None or self._is_closing:
            del self.server.watched[self]
        elif self.deadline_ns <= now_ns and (not self._is_paused or self._hoards):
            what = "a frame" if self._wire.is_open else "the first frame"
            self.end(ProtocolError(reason=f"{what} took too long to arrive"))

    @property
    def _hoards(self) -> bool:
        """Whether it is paused because its peer does not read, with much of a frame begun.

        The rest of a short frame may well have come and not been read.
        """
        return self.stalled_since_ns is not None and self.buffered > _FRAME_SHORT

    @property
    def unsent_bytes(self) -> int:
        """Output that the peer has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()


def _keep_alive(sock: socket.socket | None) -> None:
    """Have the kernel find out within two minutes that a silent peer is gone."""
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
