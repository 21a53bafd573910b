"""Moving a topic to another server: copied in order, each message once, while it is in use.

The source is read by offset, which is the same at every attempt, and a durable subscription
keeps there what is not yet stored at the target: it is sought forward behind that. What was
about to be stored when a move was killed is in its notebook; whether it was is found out at
the target, when the next one begins.
"""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from mbctl.actions.notebook import Note, Notebook, end_after, engine_of
from mbctl.actions.topics import SETTINGS
from mbctl.errors import (
    InvalidArgument,
    NotSupported,
    OutcomeUnknown,
    RequestRefused,
    TopicExists,
)
from mbctl.model import KIB, MIB, Limits, TopicInfo, TopicSettings

if TYPE_CHECKING:
    from mbctl.client.moving import ContinuingPublisher, PartAdmin
    from mbctl.client.pulled import PulledMessage

SUBSCRIBER = "moving"
"""The subscriber that keeps messages at the source until they are at the target."""

# Messages asked for at a time; a reply has at most 4 MiB of them.
_PART_MESSAGES = 65_536
# Enough that the cost of a batch is shared, little enough for one that reads it.
_BATCH_BYTES = MIB
_BATCH_MESSAGES = 10_000
# What a frame has beside its batch, and a batch beside its messages; above both.
_HEAD_BYTES = 2 * KIB
# The largest that msgpack adds to a value.
_VALUE_BYTES = 5
# So many messages at the target are looked through for a batch that is missed.
_SEARCHED_MAX = 1_000_000
_PAUSE_S = 0.1


class _Unsupported(NotSupported):
    advice = "leave it out: --without {option}"


class _OtherSettings(TopicExists):
    template = "topic {topic!r} exists at {server} already with other settings"
    advice = "see them with: mbctl topic show {topic} -s {server}; --without leaves a setting out"


class _InUse(TopicExists):
    template = "topic {topic!r} at {server} has messages that no move has put there"
    advice = "move to another server, or delete it: mbctl topic delete {topic} -s {server}"


class _Undecided(OutcomeUnknown):
    template = (
        "it is unknown whether {count} messages of {topic!r} from {first} on are at {server}:"
        " others write there too, and what was stored has been read and is gone"
    )
    advice = (
        "if they were, run: mbctl subscription seek {topic} moving --to {next} -s {source};"
        " if not: mbctl topic purge {topic}.moving -s {server}; then run this again"
    )


class Moved(msgspec.Struct):
    """How far a move has got."""

    messages: int = 0
    bytes: int = 0
    """Of payloads."""
    gone: int = 0
    """Messages that the source gave up before they could be moved."""


class Move:
    """One topic on its way from a source to a target."""

    def __init__(self, source: "PartAdmin", target: "PartAdmin", topic: str) -> None:
        from mbctl import Publisher

        self.topic = topic
        self.moved = Moved()
        self.source = source.server
        self.target = target.server
        self._source = source
        self._target = target
        self._source_engine = engine_of(source)
        self._target_engine = engine_of(target)
        self._stack = ExitStack()
        notes = Publisher(target.server, timeout=target.timeout)
        self._notebook = Notebook(target, self._stack.enter_context(notes), topic)
        self._publisher: ContinuingPublisher | None = None
        self._info: TopicInfo | None = None
        self._session = b""
        self._sequence = 0
        self._position = 0
        self._acknowledged = -1
        self.end = 0
        """The next offset of the target."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    # --- beginning ------------------------------------------------------------------------------

    def begin(self, without: Sequence[str] = ()) -> None:
        """Let there be the topic at the target, and be where the last move of it ended.

        Raises:
            TopicNotFound: it is not at the source.
            TopicExists: it is at the target, with other settings or with other messages.
            NotSupported: the target cannot keep one of its settings.
        """
        info = self._source.topic(self.topic)
        self._info = info
        note = self._notebook.read()
        created = self._create(info, without)
        there = self._target.topic(self.topic)
        if (there.topic_id, there.created) == (info.topic_id, info.created):
            reason = f"{self._source.server} and {self._target.server} serve the same topics"
            raise InvalidArgument(reason=f"{reason}; name another server")
        if not self._notebook.is_there and not created and there.bytes > 0:
            raise _InUse(topic=self.topic, server=self._target.server)
        if note is not None and (note.topic_id, note.created) != (info.topic_id, info.created):
            raise InvalidArgument(
                reason=f"another topic of this name was moved there before; forget that with:"
                f" mbctl topic delete {self._notebook.topic} -s {self._target.server}"
            )
        self._position = self._subscribe()
        self._session = os.urandom(16) if note is None else bytes.fromhex(note.session)
        self._sequence = 0 if note is None else note.sequence
        self.end = there.next_offset
        if note is None:
            self._notebook.begin()
            self._open_publisher()
        else:
            self._finish(note, there)

    def _create(self, info: TopicInfo, without: Sequence[str]) -> bool:
        """Create the topic at the target; whether it was not there."""
        settings = msgspec.structs.asdict(info.settings)
        defaults = msgspec.structs.asdict(TopicSettings())
        for option in without:
            name = option.replace("-", "_")
            settings[name] = defaults[name]
        if settings["max_messages"] is None and settings["max_bytes"] is None:
            settings["when_full"] = defaults["when_full"]
        try:
            return self._target.create_topic(self.topic, **settings)
        except NotSupported as error:
            name = str(error.details.get("what", "")).partition(" ")[0]
            option = name.replace("_", "-")
            if option not in SETTINGS:
                raise
            raise _Unsupported(what=str(error.details["what"]), option=option) from error
        except TopicExists as error:
            raise _OtherSettings(topic=self.topic, server=self._target.server) from error

    def _subscribe(self) -> int:
        """Let the source keep what is not moved yet; from where on."""
        from mbctl import Subscriber

        with Subscriber(self._source.server, SUBSCRIBER, timeout=self._source.timeout) as keeper:
            return keeper.subscribe(self.topic, start="earliest").offset

    def _open_publisher(self) -> None:
        """Go on with the session of the move, after the number that was used last."""
        from mbctl.client.moving import ContinuingPublisher

        server, timeout = self._target.server, self._target.timeout
        self._publisher = self._stack.enter_context(
            ContinuingPublisher(server, self._session, self._sequence, timeout=timeout)
        )

    # --- what another move has left -----------------------------------------------------------

    def _finish(self, note: Note, there: TopicInfo) -> None:
        """Find out whether what was about to be stored was, and store it if not."""
        # All below is there, whatever becomes of the rest.
        self._position = max(self._position, note.first)
        self.acknowledge()
        messages = self._noted(note)
        end = self._end_if_stored(note, messages, there)
        is_to_send = end is None and bool(messages)
        self._sequence = note.sequence - is_to_send
        self._open_publisher()
        if is_to_send and not self._sent_again(note, messages):
            return
        if end is not None:
            self.end = end
        # Somebody may have sought forward, over what cannot be read.
        self._position = max(self._position, note.next)

    def _sent_again(self, note: Note, messages: "list[PulledMessage[Any]]") -> bool:
        """Store what a note tells under its old number, which the server knows if it is there.

        False if that is refused, as the first attempt may have been: it is certainly not there.
        """
        try:
            self.end = self._send(messages)
        except RequestRefused as error:
            if not error.retryable:
                raise
            self._sequence = note.sequence
            return False
        return True

    def _noted(self, note: Note) -> "list[PulledMessage[Any]]":
        """What the source still has of the messages of a note."""
        found: list[PulledMessage[Any]] = []
        position = self._position
        while position < note.next:
            part = self._source.peek_part(self.topic, position, note.count)
            fitting = [message for message in part if message.offset < note.next]
            found += fitting
            if not part or len(fitting) < len(part):
                break
            position = part.next_offset
        return found

    def _end_if_stored(
        self, note: Note, messages: "list[PulledMessage[Any]]", there: TopicInfo
    ) -> int | None:
        """The next offset of the target if it has the ``messages`` of a note; None if not.

        Raises:
            OutcomeUnknown: that cannot be told.
        """
        if there.next_offset == note.end or not messages:
            return None
        only = end_after(self._target_engine, note.end, note.count)
        found, was_whole = self._search(note.end, messages, there)
        if found is not None:
            return end_after(self._target_engine, found, len(messages))
        if there.next_offset == only and not was_whole:
            # All that came since has been read and is gone, and is as much as this.
            return only
        if was_whole:
            return None
        raise _Undecided(
            topic=self.topic,
            count=note.count,
            first=note.first,
            next=note.next,
            source=self._source.server,
            server=self._target.server,
        )

    def _search(
        self, position: int, messages: "list[PulledMessage[Any]]", there: TopicInfo
    ) -> tuple[int | None, bool]:
        """Where the target has ``messages``, in a row; and whether it has all from there on."""
        wanted = [_content(message) for message in messages]
        was_whole = there.first_offset <= position
        seen: list[int] = []
        offsets: list[int] = []
        deadline = time.monotonic() + self._target.timeout
        while position < there.next_offset and len(seen) < _SEARCHED_MAX:
            part = self._target.peek_part(self.topic, position, _PART_MESSAGES)
            if not part:
                if end_after(self._target_engine, max(position - 1, 0), 1) >= there.next_offset:
                    break
                if time.monotonic() > deadline or not was_whole:
                    return None, False
                # A node of a cluster may not have them yet.
                time.sleep(_PAUSE_S)
                continue
            for message in part:
                seen.append(_content(message))
                offsets.append(message.offset)
            position = part.next_offset
        at = _find(wanted, seen)
        return (None if at is None else offsets[at]), was_whole and len(seen) < _SEARCHED_MAX

    # --- moving -----------------------------------------------------------------------------------

    def step(self) -> bool:
        """Move what one look at the source brings; whether there was something.

        Raises:
            InvalidArgument: the topic has been created anew meanwhile.
        """
        assert self._info is not None
        part = self._source.peek_part(self.topic, self._position, _PART_MESSAGES)
        if not part:
            return False
        if part.topic_id != self._info.topic_id:
            raise InvalidArgument(reason=f"topic {self.topic} was deleted and created anew")
        if self._source_engine == "local":
            self.moved.gone += part.skipped
        rest = list(part)
        while rest:
            count = _fitting(rest, self._target.limits)
            self._move(rest[:count])
            del rest[:count]
        return True

    def _move(self, messages: "list[PulledMessage[Any]]") -> None:
        """Store messages at the target, a note before them."""
        assert self._info is not None
        assert self._publisher is not None
        note = Note(
            topic_id=self._info.topic_id,
            created=self._info.created,
            session=self._session.hex(),
            sequence=self._sequence + 1,
            first=messages[0].offset,
            next=messages[-1].offset + 1,
            count=len(messages),
            end=self.end,
        )
        self._notebook.write(note)
        self.end = self._send(messages)
        self._position = note.next

    def _send(self, messages: "list[PulledMessage[Any]]") -> int:
        """Store messages as one batch; the next offset of the target then."""
        assert self._publisher is not None
        receipt = self._publisher.send_many(
            self.topic,
            [message.payload for message in messages],
            keys=[message.key for message in messages],
            headers=[message.headers for message in messages],
        )
        self._sequence += 1
        self.moved.messages += len(messages)
        self.moved.bytes += sum(len(message.payload) for message in messages)
        return end_after(self._target_engine, receipt.offset, receipt.count)

    def acknowledge(self) -> None:
        """Let the source give up what is stored at the target."""
        if self._position > self._acknowledged:
            self._source.seek(self.topic, SUBSCRIBER, self._position)
            self._acknowledged = self._position

    def lag(self) -> int:
        """How many messages there are to move; batches, where only these are counted."""
        info = self._source.subscription(self.topic, SUBSCRIBER)
        return info.unread if info.unread is not None else info.unread_batches or 0


def _content(message: "PulledMessage[Any]") -> int:
    """A number that messages of the same content share, and others do not."""
    return hash((message.payload, message.key, tuple(sorted(message.headers.items()))))


def _find(wanted: list[int], seen: list[int]) -> int | None:
    """Where ``seen`` has ``wanted`` in a row."""
    width, first = len(wanted), wanted[0]
    for at in range(len(seen) - width + 1):
        if seen[at] == first and seen[at : at + width] == wanted:
            return at
    return None


def _fitting(messages: "list[PulledMessage[Any]]", limits: Limits) -> int:
    """How many of ``messages``, at least one, make a batch that the server takes."""
    most = min(len(messages), _BATCH_MESSAGES, limits.batch_messages)
    room = min(_BATCH_BYTES, limits.frame_bytes - _HEAD_BYTES)
    for count in range(most):
        room -= _size(messages[count])
        if room < 0:
            return max(count, 1)
    return most


def _size(message: "PulledMessage[Any]") -> int:
    """The most that a message takes in a batch, in bytes."""
    size = len(message.payload) + len(message.key or b"") + 3 * _VALUE_BYTES
    if message.headers:
        words = "".join(name + value for name, value in message.headers.items())
        size += len(words.encode()) + 2 * _VALUE_BYTES * len(message.headers)
    return size
