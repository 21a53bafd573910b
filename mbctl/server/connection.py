"""One client's connection: frames in, requests to the engine, replies out.

    buffer_updated → session → requests → VERBS → engine ─┐
    writelines ← flush, once a turn ← replies ← done  ◀──┘

What came is acted on for a share of the loop's time; the rest waits in the line of all
connections. And a connection is acted on no further while it is full: while what its peer
has not read yet, or what it has asked and has no answer for, is above its bound. Nothing is
dropped; the socket is just not read.
"""

import asyncio
import logging
import socket
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
from mbctl.model import MIB, NS_PER_S, Receipt
from mbctl.server import log
from mbctl.server.memory import unset_memory
from mbctl.server.partial import FRAME_SHORT, READ_BYTES
from mbctl.server.verbs import VERBS
from mbctl.wire import messages as wire
from mbctl.wire.session import Fatal, Rejected, ServerSession

if TYPE_CHECKING:
    from mbctl.server.server import Server

T = TypeVar("T")
# Named here, because annotations of functions within functions are computed at each call.
_SendAnswer = Receipt | MbctlError
_PullAnswer = Pulled | MbctlError

# Unsent output above which a connection takes no more requests, until all of it is sent.
_OUTPUT_HIGH = MIB
# Who has sent this much is read on when it is its turn: a loop may read thirty times.
_READ_MUCH = MIB
# The least time for the rest of a frame once a connection is read from again.
_GRACE_NS = NS_PER_S
# How long a connection that the server ends may stay, for the peer to see why: with nothing
# to send but the reason, and with replies that the peer has yet to read.
_LINGER_S = 1.0
_LINGER_UNSENT_S = 5.0


class Connection(asyncio.BufferedProtocol):
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
        self.backup = server.backups.slot()
        """The backup that is read here."""
        self.peer = "?"
        self.deadline_ns: int | None = None
        """When the frame under way, or the first one, must be complete."""
        self.stalled_since_ns: int | None = None
        """Since when the peer has not read what waits for it."""
        self._wire = ServerSession(server.limits, unset_memory)
        self._transport: asyncio.Transport | None = None
        self.buffered = 0
        """Bytes that came and were not acted on: of the frame under way, and before it."""
        self._has_input = False
        """Whether there may be a request among them."""
        self._has_acted = False
        """Whether there was one since it was seen last that there is none."""
        self._receives = False
        """Whether what comes is the rest of a large frame, and goes where that is."""
        self._read_bytes = 0
        self.has_read_much = False
        """Whether it is not read from because it has sent much in this turn."""
        self._is_held = False
        self._is_listing = False
        """Whether it waits for a list, which may be long: one after the other."""
        self._is_unsent = False
        self._requests = 0
        self._request_bytes = 0
        self._out: list[Any] = []
        self._out_bytes = 0
        self._is_paused = False
        self._paused_ns = 0
        self._is_closing = False

    # --- the transport's calls --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many connections."""
        self._transport = cast(asyncio.Transport, transport)
        # To be told of all that is not sent at once: it is counted over all connections.
        self._transport.set_write_buffer_limits(high=0)
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
        self._drop_output()
        self._count_buffered(0)
        self.backup.end()
        self.server.forget(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Memory for what comes next: of the large frame under way, or the server's inbox."""
        room = self._wire.room()
        self._receives = room is not None
        if room is not None:
            return room[:READ_BYTES]
        return self.server.inbox_begin if self._wire.expects_large else self.server.inbox

    def buffer_updated(self, nbytes: int) -> None:
        """Take what came and act on it, as far as this connection may."""
        self.server.alert.came()
        if self._is_closing:
            return
        if self._receives:
            self._wire.received(nbytes)
        else:
            self._wire.take(self.server.inbox[:nbytes])
        self._has_input = True
        self._read_bytes += nbytes
        if self._read_bytes >= _READ_MUCH:
            self._read_bytes = 0
            self.has_read_much = True
            self.server.turns.line_up(self)
        else:
            self.server.turns.let_pass()
        self.proceed()
        if self.buffered:
            self._wire.keep()
            self.server.partial.bound(self)
        self.server.alert.expect(nbytes)

    def pause_writing(self) -> None:
        """Not all that was written could be sent."""
        self._is_unsent = True

    def resume_writing(self) -> None:
        """All is sent; go on with what the peer asked since."""
        self._is_unsent = False
        self.stalled_since_ns = None
        self.server.stalled.pop(self, None)
        self.server.unread.forget(self)
        self.proceed()

    # --- requests ---------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether requests have to wait until replies are read or answers are there."""
        return (
            self.server.is_stopping
            or self.stalled_since_ns is not None
            or self._out_bytes > _OUTPUT_HIGH
            or self._request_bytes > self.limits.connection_bytes
            or self._is_listing
        )

    def go_on(self) -> None:
        """It is this connection's turn, in the line."""
        self.has_read_much = False
        self.proceed()

    def proceed(self) -> None:
        """Act on what came, for a share of the turn, unless the connection is full."""
        if self._transport is None or self._is_closing:
            return
        until_ns, is_empty = 0, False
        while self._has_input and not self.is_full:
            now_ns = self.server.now_ns()
            until_ns = until_ns or now_ns + self.server.turns.share_ns(self, now_ns)
            if now_ns >= until_ns or not self.server.has_room:
                self.server.turns.line_up(self)
                break
            event = self._wire.next_event()
            if event is None:
                self._has_input = False
            else:
                self._has_acted = True
                self._act(event)
                if self._is_closing:
                    return
                self._has_input = self._wire.buffered > 0
                is_empty = not self._has_input
        # Asked anew only where it is not known: this is done with every request.
        buffered = 0 if is_empty else self._wire.buffered
        if buffered or self.buffered:
            self._count_buffered(buffered)
            self._is_held = self.server.partial.holds(self)
        if not buffered:
            # Also when it was acted on in turns: what was taken is let go of.
            self._wire.keep()
        if not self._has_input and (buffered or self.deadline_ns is not None):
            self._time_frame()
        self._pause_or_resume()

    def hold(self) -> None:
        """Read no more of the large frame under way until it is this connection's turn."""
        self._is_held = True
        self._pause_or_resume()

    def _time_frame(self) -> None:
        """See to it that the frame under way, if there is one, does not take too long."""
        if self.buffered == 0:
            self.deadline_ns = None if self._wire.is_open else self.deadline_ns
        elif self._has_acted or self.deadline_ns is None:
            self.watch(self.limits.frame_s)
        self._has_acted = False

    def _pause_or_resume(self) -> None:
        must_pause = self._has_input or self.has_read_much or self._is_held or self.is_full
        if self._transport is None or must_pause == self._is_paused:
            return
        self._is_paused = must_pause
        now_ns = self.server.now_ns()
        if must_pause:
            self._transport.pause_reading()
            self._paused_ns = now_ns
            self.server.congested[self] = None
        else:
            self._transport.resume_reading()
            self.server.congested.pop(self, None)
            if self.deadline_ns is not None:
                # The time in which it was not read from does not count.
                self.deadline_ns += now_ns - self._paused_ns
                self.deadline_ns = max(self.deadline_ns, now_ns + _GRACE_NS)

    def _act(self, event: wire.Request | Rejected | Fatal) -> None:
        request: Any = event
        verb = VERBS.get(type(request))
        if verb is None:
            self._act_on_other(event)
        elif self._requests >= self.limits.connection_requests:
            limit = self.limits.connection_requests
            self.refuse(request.id, LimitExceeded(what="requests in flight", limit=limit))
        else:
            verb(self, request)

    def _act_on_other(self, event: wire.Request | Rejected | Fatal) -> None:
        if isinstance(event, Fatal):
            self.end(event.error)
        elif isinstance(event, Rejected):
            self.send([wire.encode(wire.Error.of(event.id, event.error))])
        else:
            assert isinstance(event, wire.Hello)
            self._welcome(event.id)

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

        def answer(result: Any) -> None:
            self._count_request(-1, -size)
            message: Any
            if isinstance(result, MbctlError):
                message = wire.Error.of(id_, result)
            else:
                message = reply(id_, result)
            self.send([wire.encode(message)])

        return answer

    def done_send(self, id_: int, size: int) -> Done[Receipt]:
        """The callback that answers a send, which counts as in flight until then."""
        self.sends += 1
        self._count_request(1, size)

        def answer(result: _SendAnswer) -> None:
            self.sends -= 1
            self._count_request(-1, -size)
            if isinstance(result, MbctlError):
                self.send([wire.encode(wire.Error.of(id_, result))])
            else:
                self.send([wire.encode(wire.Sent(id_, result.offset, result.count))])

        return answer

    def done_list(self, request: wire.Request, reply: Callable[[int, T], wire.Message]) -> Done[T]:
        """The callback that answers with a list; no more requests are acted on until then."""
        self._is_listing = True
        answer = self.done(request, reply)

        def done(result: Any) -> None:
            self._is_listing = False
            answer(result)

        return done

    def done_pull(self, id_: int, size: int = 0) -> Done[Pulled]:
        """The callback that answers a pull or a peek.

        ``size`` bytes count as in flight until then: a peek may be asked for again and again
        at once, and each is read from disk.
        """
        self._count_request(1, size)

        def answer(result: _PullAnswer) -> None:
            self._count_request(-1, -size)
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
        if count < 0 and self._is_paused and not self.is_full:
            self.server.turns.line_up(self)

    def _count_buffered(self, size: int) -> None:
        if size != self.buffered:
            self.server.partial.note(self, size, self.buffered)
            self.buffered = size

    # --- output -----------------------------------------------------------------------------

    def send(self, buffers: list[Buffer] | list[bytes]) -> None:
        """Queue one frame; all of a turn's frames are written at once."""
        if self._is_closing:
            return
        if not self._out:
            self.server.loop.call_soon(self._flush)
        self._out += buffers
        size = 0
        for buffer in buffers:
            size += len(buffer) if type(buffer) is bytes else memoryview(buffer).nbytes
        self._out_bytes += size
        self.server.unread.queued += size

    def _flush(self) -> None:
        if self._transport is None or not self._out:
            return
        out, was_full = self._out, self._out_bytes > _OUTPUT_HIGH
        self.server.alert.expect(self._out_bytes)
        self._drop_output()
        self._transport.writelines(out)
        if self._is_unsent:
            self._note_unsent()
        if was_full:
            self.server.turns.line_up(self)

    def _drop_output(self) -> None:
        """Let go of what is queued."""
        self.server.unread.queued -= self._out_bytes
        self._out, self._out_bytes = [], 0

    def _note_unsent(self) -> None:
        """Count what the peer has yet to read; take no more requests while that is much."""
        now_ns = self.server.now_ns()
        size = self.unsent_bytes
        is_much = size > _OUTPUT_HIGH or self.server.unread.is_tight
        if is_much and self.stalled_since_ns is None:
            self.stalled_since_ns = now_ns
            self.server.stalled[self] = None
            # Messages for its waiting pulls would only pile up here; it may ask again.
            self._cancel_pulls()
        self.server.unread.note(self, size, now_ns)

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
        # What came of a frame is not kept until the peer has closed.
        self._wire = ServerSession(self.limits)
        self._count_buffered(0)
        self.backup.end()
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
        return self.stalled_since_ns is not None and self.buffered > FRAME_SHORT

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
