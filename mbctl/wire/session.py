"""One end of a connection, without the connection: bytes in, messages out.

The server's end walks two states. In NEW only a ``hello`` of at most
``limits.first_frame_bytes`` is accepted; it lifts the bound to ``limits.frame_bytes``
and the session is OPEN. The client's end is the same with ``welcome``.

``feed`` never raises. What a peer got wrong comes back as an event:

    Rejected   this frame was no valid message; answer with the error and go on
    Fatal      the framing or the order is lost; answer, close, feed no more
"""

from functools import cache
from typing import Generic, TypeVar

import msgspec

from mbctl.errors import MbctlError, NotSupported, ProtocolError, VersionMismatch, from_wire
from mbctl.model import LIMITS, Limits
from mbctl.wire.frames import FrameReader
from mbctl.wire.messages import VERSION, Error, Hello, Message, Reply, Request, Welcome

M = TypeVar("M", bound=Message)

# A listing of everything (100,000 subscriptions) is the longest reply; arbitrary, it fits.
REPLY_FRAMES = 8


class Rejected(msgspec.Struct, frozen=True):
    """A frame that held no valid message; ``id`` is its request's, or 0 if unreadable."""

    id: int
    error: MbctlError


class Fatal(msgspec.Struct, frozen=True):
    """The end of this session; nothing after it can be read."""

    error: MbctlError


class Session(Generic[M]):
    """Frames to messages, with the opening enforced. Use one of its two subclasses."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[M], frame_bytes: int) -> None:
        self._decoder = decoder
        self._frames = FrameReader(frame_bytes)
        self._open = False
        self._closed = False

    @property
    def buffered(self) -> int:
        """Bytes held of an incomplete frame."""
        return self._frames.buffered

    @property
    def is_open(self) -> bool:
        """Whether the opening message has come."""
        return self._open

    def feed(self, data: bytes) -> list[M | Rejected | Fatal]:
        """The messages that ``data`` completes, in order. After a Fatal there is none."""
        events: list[M | Rejected | Fatal] = []
        if self._closed:
            return events
        self._frames.feed(data)
        while not self._closed:
            try:
                content = self._frames.next_frame()
            except ProtocolError as error:
                events.append(self._fatal(error))
                break
            if content is None:
                break
            event = self._decode(content)
            if not self._open and not isinstance(event, Fatal):
                event = self._opening(event)
            events.append(event)
        return events

    def _decode(self, content: bytes) -> M | Rejected | Fatal:
        try:
            return self._decoder.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return self._explain(content, error)

    def _explain(self, content: bytes, error: Exception) -> Rejected | Fatal:
        """Find out which request a bad frame was, so that it can be answered."""
        try:
            tag, id_ = _envelope.decode(content)[:2]
            verb, request_id = _tag.decode(tag), _id.decode(id_)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            return self._fatal(ProtocolError(reason=f"a frame that is no message: {error}"))
        if verb not in KNOWN_VERBS:
            return Rejected(request_id, NotSupported(what=f"the verb {verb[:40]!r}"))
        return Rejected(request_id, ProtocolError(reason=f"a malformed {verb}: {error}"))

    def _opening(self, event: M | Rejected) -> M | Rejected | Fatal:
        raise NotImplementedError

    def _fatal(self, error: MbctlError) -> Fatal:
        self._closed = True
        return Fatal(error)


class ServerSession(Session[Request]):
    """The server's end: requests come out."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        super().__init__(_request_decoder(), limits.first_frame_bytes)
        self._limits = limits

    def _opening(self, event: Request | Rejected) -> Request | Rejected | Fatal:
        if not isinstance(event, Hello):
            return self._fatal(ProtocolError(reason="the first frame must be a hello"))
        if not event.version_min <= VERSION <= event.version_max:
            return self._fatal(
                VersionMismatch(
                    client=f"{event.version_min} to {event.version_max}", server=str(VERSION)
                )
            )
        self._frames.limit = self._limits.frame_bytes
        self._open = True
        return event


class ClientSession(Session[Reply]):
    """The client's end: replies come out. An error with id 0 ends the session."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        super().__init__(_reply_decoder(), REPLY_FRAMES * limits.frame_bytes)

    def _decode(self, content: bytes) -> Reply | Rejected | Fatal:
        event = super()._decode(content)
        if isinstance(event, Error) and event.id == 0:
            return self._fatal(from_wire(event.code, event.details))
        if isinstance(event, Rejected):
            return self._fatal(event.error)
        return event

    def _opening(self, event: Reply | Rejected) -> Reply | Rejected | Fatal:
        if isinstance(event, Error):
            return self._fatal(from_wire(event.code, event.details))
        if not isinstance(event, Welcome):
            return self._fatal(ProtocolError(reason="the first reply must be a welcome"))
        self._open = True
        return event


@cache
def _request_decoder() -> msgspec.msgpack.Decoder[Request]:
    return msgspec.msgpack.Decoder(Request)


@cache
def _reply_decoder() -> msgspec.msgpack.Decoder[Reply]:
    return msgspec.msgpack.Decoder(Reply)


_envelope = msgspec.msgpack.Decoder(list[msgspec.Raw])
_tag = msgspec.msgpack.Decoder(str)
_id = msgspec.msgpack.Decoder(int)


def _tags(union: object) -> frozenset[str]:
    return frozenset(
        str(member.__struct_config__.tag)
        for member in union.__args__  # type: ignore[attr-defined]
    )


KNOWN_VERBS = _tags(Request) | _tags(Reply)
