"""The error tree: every error that mbctl raises or answers.

    MbctlError
    ├── RequestRefused                   the request changed nothing; the connection stays
    │   ├── InvalidName, InvalidArgument, MessageTooLarge, BatchTooLarge
    │   ├── OffsetOutOfRange, NotSupported
    │   ├── TopicNotFound, TopicExists, SubscriptionNotFound, NotSubscribed
    │   ├── Unauthenticated, Forbidden
    │   ├── TopicFull, DiskFull, LimitExceeded
    │   └── ServerError
    ├── ConnectionFatal                  the connection is gone or of no more use
    │   └── ProtocolError, VersionMismatch, ServerStopping, ConnectionLost
    ├── StorageError
    │   └── StorageCorrupt, NewerFormat, StorageFailed, BackupDamaged,
    │       DataLoss
    ├── Timeout                          nothing came in time; asking again is safe
    ├── OutcomeUnknown                   it may or may not have happened
    └── SendFailed                       a pipeline ended with refused sends

An error is a class and its details. The text is made from both, so an error
that crosses the wire as ``code`` and ``details`` reads the same on both sides.
"""

from typing import Any, ClassVar, Self

Detail = str | int


class MbctlError(Exception):
    """Root of all errors. ``code`` is the class's name, on the wire as in JSON.

    The keyword arguments are the details: each becomes an attribute and may
    stand in the class's ``template`` and ``advice``.
    """

    code: ClassVar[str] = "MbctlError"
    retryable: ClassVar[bool] = False
    template: ClassVar[str] = "{reason}"
    advice: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        # One that another module derives stays what it derives from: codes are of this page.
        if cls.__module__ == __name__:
            cls.code = cls.__name__
            _CLASSES[cls.__name__] = cls

    def __init__(self, **details: Detail) -> None:
        self.details = details
        self.__dict__.update(details)
        super().__init__(_fill(self.template, details))

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.code, self.details))

    @property
    def message(self) -> str:
        """What happened, in one line."""
        return str(self)

    @property
    def hint(self) -> str:
        """What to do about it, in one line; may be empty."""
        return _fill(self.advice, self.details)


_CLASSES: dict[str, type[MbctlError]] = {}


class _Blanks(dict[str, Detail]):
    """Details of a peer that is older or newer than this text: a gap shows as '?'."""

    def __missing__(self, key: str) -> str:
        return "?"


def _fill(template: str, details: dict[str, Detail]) -> str:
    return template.format_map(_Blanks(details))


def _rebuild(code: str, details: dict[str, Detail]) -> MbctlError:
    return from_wire(code, details)


def from_wire(code: str, details: dict[str, Detail]) -> MbctlError:
    """The error that a peer means by ``code`` and ``details``.

    A code that this version does not know becomes a ServerError that names it.
    """
    error_class = _CLASSES.get(code)
    if error_class is None:
        return ServerError(reason=f"the server answered with an unknown error {code!r}")
    # The details come from the network: they must not shadow what an error is made of.
    allowed = {
        name: value
        for name, value in details.items()
        if name not in ("self", "details") and not hasattr(error_class, name)
    }
    return error_class(**allowed)


class RequestRefused(MbctlError):
    """The request was refused and changed nothing; the connection goes on."""


class InvalidName(RequestRefused):
    """A name of a topic or subscriber that breaks the rules for names."""

    name: str
    template = "{name!r} is not a valid name"
    advice = "use 1 to 200 of A-Z a-z 0-9 . _ - and do not begin with . or -"


class InvalidArgument(RequestRefused):
    """A value that has no meaning here."""

    reason: str


class MessageTooLarge(RequestRefused):
    """A payload, key or header set above its limit."""

    what: str
    size: int
    unit: str
    limit: int
    template = "the {what} has {size} {unit} and the limit is {limit}"
    advice = "send less, or store the content elsewhere and send where it is"

    def __init__(self, **details: Detail) -> None:
        super().__init__(**{"unit": "bytes", **details})


class BatchTooLarge(RequestRefused):
    """A batch above the limit of messages or bytes."""

    size: int
    limit: int
    what: str
    template = "the batch has {size} {what} and the limit is {limit}"
    advice = "send it as several batches"


class OffsetOutOfRange(RequestRefused):
    """An offset that the topic has not reached."""

    topic: str
    offset: int
    next_offset: int
    template = "offset {offset} is not in topic {topic!r}, whose next offset is {next_offset}"


class NotSupported(RequestRefused):
    """A verb or option that this server or engine does not have."""

    what: str
    template = "{what} is not supported by this server"


class TopicNotFound(RequestRefused):
    """There is no such topic, or the one that was meant has been deleted."""

    topic: str
    template = "topic {topic!r} does not exist"
    advice = "create it with: mbctl topic create {topic}"

    @property
    def hint(self) -> str:
        """What to do about it; what could be no topic's name is not to be created."""
        topic = str(self.details.get("topic", ""))
        is_name = topic.isascii() and all(one.isalnum() or one in "._-" for one in topic)
        return super().hint if topic and is_name else "see: mbctl topic list"


class TopicExists(RequestRefused):
    """The topic exists already, with other settings than the ones asked for."""

    topic: str
    template = "topic {topic!r} exists already with other settings"
    advice = "see them with: mbctl topic show {topic}"


class SubscriptionNotFound(RequestRefused):
    """The topic has no subscription of that subscriber."""

    topic: str
    subscriber: str
    template = "topic {topic!r} has no subscription {subscriber!r}"
    advice = "see them with: mbctl subscription list {topic}"


class NotSubscribed(RequestRefused):
    """This subscriber has not subscribed to the topic."""

    topic: str
    subscriber: str
    template = "subscriber {subscriber!r} is not subscribed to topic {topic!r}"
    advice = "subscribe with: mbctl subscribe {topic} --name {subscriber}"

    @property
    def hint(self) -> str:
        """What to do about it; an ephemeral subscriber has no name that a command takes."""
        is_ephemeral = str(self.details.get("subscriber", "")).startswith("~")
        return "subscribe to it first" if is_ephemeral else super().hint


class Unauthenticated(RequestRefused):
    """The server wants to know who asks."""

    template = "the server requires a user and password"


class Forbidden(RequestRefused):
    """The user may not do that."""

    what: str
    template = "{what} is not allowed"


class TopicFull(RequestRefused):
    """The topic holds as much unread as its settings allow."""

    retryable = True
    topic: str
    what: str
    limit: int
    template = "topic {topic!r} is full: its max_{what} is {limit}"
    advice = "see who has not read: mbctl topic why {topic}"


class DiskFull(RequestRefused):
    """The server has no room left for messages."""

    retryable = True
    size: int
    limit: int
    template = "the server has no room: it holds {size} of at most {limit} bytes"
    advice = (
        "let subscribers catch up, delete topics, make room on the disk, "
        "or start the server with more --max-bytes"
    )


class LimitExceeded(RequestRefused):
    """A bound of the server is reached."""

    retryable = True
    what: str
    limit: int
    template = "the limit of {limit} {what} is reached"


class ServerError(RequestRefused):
    """Something went wrong inside the server."""

    reason: str


class ConnectionFatal(MbctlError):
    """The connection is gone or of no more use."""


class ProtocolError(ConnectionFatal):
    """The peer broke the rules of docs/protocol.md."""

    reason: str
    template = "protocol error: {reason}"


class VersionMismatch(ConnectionFatal):
    """Client and server share no version of the protocol."""

    client: str
    server: str
    template = "the client speaks protocol {client} and the server {server}"
    advice = "install the same mbctl on both sides"


class ServerStopping(ConnectionFatal):
    """The server is shutting down and takes no more requests."""

    retryable = True
    template = "the server is stopping"
    advice = "try again when it is back"


class ConnectionLost(ConnectionFatal):
    """There is no connection to the server, or it broke."""

    retryable = True
    address: str
    reason: str
    template = "no connection to {address}: {reason}"
    advice = "is the server running? start one with: mbctl server"


class StorageError(MbctlError):
    """The stored data is not what was written."""


class StorageCorrupt(StorageError):
    """A file of the data directory is damaged; nothing in it was changed."""

    path: str
    position: int
    reason: str
    directory: str
    template = "{path} is damaged: {reason} (at byte {position})"
    advice = (
        "restore the directory from a copy, or give up what is damaged with: "
        "mbctl repair --accept-loss {directory}"
    )

    def __init__(self, **details: Detail) -> None:
        directory = str(details.get("path", "")).rpartition("/")[0]
        super().__init__(**{"directory": directory, **details})


class NewerFormat(StorageError):
    """A newer mbctl wrote the data directory; nothing in it was changed."""

    what: str
    found: int
    known: int
    template = "{what} has format {found}, and this mbctl reads up to {known}"
    advice = "start the server with the version of mbctl that last used this directory"


class StorageFailed(StorageError):
    """A write or sync failed. What was under way may or may not be on disk."""

    path: str
    reason: str
    template = "{path} cannot be written: {reason}; the server stops"
    advice = "check the disk, then start the server again: what was acknowledged is kept"


class BackupDamaged(StorageError):
    """A file is not a backup, or not a whole one; nothing was restored."""

    path: str
    reason: str
    template = "{path} cannot be restored: {reason}"
    advice = "use another backup; mbctl backup FILE makes one of a running server"


class DataLoss(StorageError):
    """Messages of this subscription could not be read any more."""

    topic: str
    first: int
    next: int
    template = "topic {topic!r}: the messages from {first} to before {next} are damaged on disk"
    advice = "they were passed over; pull again for what comes after them"


class Timeout(MbctlError):
    """The answer did not come in time; asking again is safe."""

    retryable = True
    what: str
    seconds: str
    template = "{what} took longer than {seconds} s"
    advice = "try again, or allow more time"


class OutcomeUnknown(MbctlError):
    """The request may or may not have taken effect, and it is too late to find out."""

    what: str
    template = "it is unknown whether {what} took effect"
    advice = "look before you send it again"


class SendFailed(MbctlError):
    """Some sends of a pipeline were refused; the others stand.

    ``refused`` holds one ``(topic, payloads, error)`` for each refused send.
    """

    count: int
    first_error: str
    template = "{count} sends of the pipeline were refused, the first because {first_error}"

    def __init__(self, **details: Detail) -> None:
        super().__init__(**details)
        if details.get("count") == 1:
            self.args = (_fill("a send of the pipeline was refused: {first_error}", details),)
        self.refused: list[tuple[str, list[bytes], MbctlError]] = []

    @property
    def hint(self) -> str:
        """What to do about the first that was refused."""
        return self.refused[0][2].hint if self.refused else ""

    @classmethod
    def of(cls, refused: list[tuple[str, list[bytes], MbctlError]]) -> Self:
        """The error that reports ``refused``, which is not empty."""
        error = cls(count=len(refused), first_error=str(refused[0][2]))
        error.refused = refused
        return error
