"""One end of a connection, without the connection: bytes in, messages out.

The server's end walks two states. In NEW only a ``hello`` of at most
``limits.first_frame_bytes`` is accepted; it lifts the bound to ``limits.frame_bytes``
and the session is OPEN, where any request but ``hello`` is. The client's end is the same
with ``welcome``, which tells it how long a reply may be.

``feed`` and ``next_event`` never raise. What a peer got wrong comes back as an event:

    Rejected   this frame was no valid request; answer with the error and go on
    Fatal      the framing or the order is lost; answer, close, feed no more

Source: docs/protocol.md, "A connection's states".
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Generic, TypeVar, get_args

import msgspec

from mbctl.errors import (
    InvalidArgument,
    MbctlError,
    NotSupported,
    ProtocolError,
    VersionMismatch,
    from_wire,
)
from mbctl.model import LIMITS, Limits
from mbctl.wire.frames import FrameBuffer, FrameReader, Frames
from mbctl.wire.messages import (
    VERSION,
    Error,
    Hello,
    Message,
    OpenRequest,
    Pulled,
    Reply,
    Request,
    RequestId,
    Welcome,
)

M = TypeVar("M", bound=Message)

# A listing of everything (100,000 subscriptions) is the longest reply; arbitrary, it fits.
REPLY_FRAMES = 8
# The bound on what comes before a welcome, which names every limit; arbitrary, it leaves
# room for a hundred times as many.
WELCOME_BYTES = 64 * 1024

# How much of what a peer sent may come back in the text of an error.
_QUOTE_MAX = 200

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Rejected(msgspec.Struct, frozen=True):
    """A frame that held no valid request, and the id of what it would have been."""

    id: int
    error: MbctlError


class Fatal(msgspec.Struct, frozen=True):
    """The end of this session; nothing after it can be read."""

    error: MbctlError


class _Envelope(msgspec.Struct, array_like=True):
    """What every message begins with, whatever else is wrong with it."""

    tag: str
    id: RequestId


class Session(ABC, Generic[M]):
    """Frames to messages, with the opening enforced. Use one of its two subclasses."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[M], frames: Frames) -> None:
        self._decoder = decoder
        self._frames = frames
        # Theirs: each is called with every request.
        self.room = frames.room
        """Where to receive what comes next; None if that is to be taken."""
        self.received = frames.received
        """Note that so many bytes came into ``room``."""
        self.keep = frames.keep
        """Let go of what was taken: what is left of it is copied."""
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
        self.take(data)
        return self.events()

    def events(self) -> list[M | Rejected | Fatal]:
        """The messages that are complete, in order."""
        events = []
        frames = self._frames
        while frames.buffered and (event := self.next_event()) is not None:
            events.append(event)
        frames.keep()
        return events

    def take(self, data: bytes | memoryview) -> None:
        """Add what came from the peer, for ``next_event`` to read message by message.

        One who reads it bit by bit does other work in between, and holds what is not its
        turn yet as bytes, which take a tenth of the memory of messages. ``data`` must not
        change before ``keep`` is called.
        """
        if not self._closed:
            self._frames.feed(data)

    def next_event(self) -> M | Rejected | Fatal | None:
        """The next message of what was taken, or None if more bytes are needed."""
        if self._closed:
            return None
        try:
            content = self._frames.next_frame()
        except ProtocolError as error:
            return self._fatal(error)
        if content is None:
            return None
        event = self._decode(content)
        if not self._open and not isinstance(event, Fatal):
            event = self._opening(event)
        return event

    def _decode(self, content: bytes | bytearray | memoryview) -> M | Rejected | Fatal:
        try:
            return self._decoder.decode(content)
        except _UNREADABLE as error:
            reason = _quote(str(error))
        # Find out which message it was meant to be, so that it can be answered.
        try:
            envelope = _envelope_decoder.decode(content)
        except _UNREADABLE:
            return self._fatal(ProtocolError(reason=f"a frame that is no message: {reason}"))
        return self._unreadable(envelope.id, envelope.tag, reason)

    @abstractmethod
    def _opening(self, event: M | Rejected) -> M | Fatal:
        """The first event, if it opens the session."""

    @abstractmethod
    def _unreadable(self, id_: int, tag: str, reason: str) -> Rejected | Fatal:
        """What comes of a frame that says what it is and is not that."""

    def _fatal(self, error: MbctlError) -> Fatal:
        self._closed = True
        # The connection may take a while to close; what it sent last is not kept for that.
        self._frames.drop()
        return Fatal(error)


class ServerSession(Session[Request]):
    """The server's end: requests come out."""

    def __init__(
        self, limits: Limits = LIMITS, allocate: Callable[[int], bytearray] = bytearray
    ) -> None:
        """``allocate`` gives memory for large frames, whose content does not matter."""
        self._reader = FrameReader(limits.first_frame_bytes, allocate)
        super().__init__(_hello_decoder(), self._reader)
        self._limits = limits

    @property
    def expects_large(self) -> bool:
        """Whether a large frame may begin: then it is better to take ``BEGIN_BYTES`` first."""
        return self._reader.expected > 0

    def _opening(self, event: Request | Rejected) -> Request | Fatal:
        if not isinstance(event, Hello):
            return self._fatal(ProtocolError(reason="the first frame must be a hello"))
        if not event.version_min <= VERSION <= event.version_max:
            return self._fatal(
                VersionMismatch(
                    client=f"{event.version_min} to {event.version_max}", server=str(VERSION)
                )
            )
        self._frames.limit = self._limits.frame_bytes
        self._decoder = _request_decoder()
        self._open = True
        return event

    def _unreadable(self, id_: int, tag: str, reason: str) -> Rejected:
        if tag == "hello" and self._open:
            return Rejected(id_, InvalidArgument(reason="a connection says hello only once"))
        if tag not in VERBS:
            return Rejected(id_, NotSupported(what=f"the verb {_quote(tag)!r}"))
        reason = _PLACE.sub(lambda place: _field_of(tag, place), reason)
        return Rejected(id_, InvalidArgument(reason=f"a malformed {tag}: {reason}"))


class ClientSession(Session[Reply]):
    """The client's end: replies come out. An error with id 0 ends the session.

    So does a reply that cannot be read: whatever waits for it would wait forever.
    """

    def __init__(self, *, receives: bool = False) -> None:
        """``receives``: all that comes is received into ``room``. Replies hold nothing of it."""
        frames = FrameBuffer(WELCOME_BYTES) if receives else FrameReader(WELCOME_BYTES)
        super().__init__(_reply_decoder(), frames)

    def _decode(self, content: bytes | bytearray | memoryview) -> Reply | Rejected | Fatal:
        event = super()._decode(content)
        if isinstance(event, Error) and event.id == 0:
            return self._fatal(from_wire(event.code, event.details))
        if isinstance(event, Pulled):
            for piece in event.pieces:
                piece.batch.own()
        return event

    def _opening(self, event: Reply | Rejected) -> Reply | Fatal:
        if isinstance(event, Error):
            return self._fatal(from_wire(event.code, event.details))
        if not isinstance(event, Welcome):
            return self._fatal(ProtocolError(reason="the first reply must be a welcome"))
        self._frames.limit = REPLY_FRAMES * event.limits.frame_bytes
        self._open = True
        return event

    def _unreadable(self, id_: int, tag: str, reason: str) -> Fatal:
        return self._fatal(ProtocolError(reason=f"an unreadable reply {_quote(tag)!r}: {reason}"))


def _quote(text: str) -> str:
    return text if len(text) <= _QUOTE_MAX else f"{text[:_QUOTE_MAX]}…"


@cache
def _hello_decoder() -> msgspec.msgpack.Decoder[Request]:
    return msgspec.msgpack.Decoder(Hello)


@cache
def _request_decoder() -> msgspec.msgpack.Decoder[Request]:
    return msgspec.msgpack.Decoder(OpenRequest)


@cache
def _reply_decoder() -> msgspec.msgpack.Decoder[Reply]:
    return msgspec.msgpack.Decoder(Reply)


_envelope_decoder = msgspec.msgpack.Decoder(_Envelope)

_REQUESTS = {str(request.__struct_config__.tag): request for request in get_args(Request)}
VERBS = frozenset(_REQUESTS)

# Where in a request something is wrong, as msgspec says it: the tag is at 0.
_PLACE = re.compile(r"`\$\[([1-9]\d?)\]")


def _field_of(tag: str, place: re.Match[str]) -> str:
    """The name of the field at ``place``, which is what a caller knows it as."""
    fields = _REQUESTS[tag].__struct_fields__
    index = int(place[1]) - 1
    return f"`{fields[index]}" if index < len(fields) else place[0]
