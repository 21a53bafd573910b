"""From a request to the engine's verb and back: one function for each request."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mbctl.errors import InvalidArgument, LimitExceeded, MbctlError, ProtocolError
from mbctl.model import (
    ACK_WAIT_MAX_S,
    AtTime,
    Range,
    Start,
    SubscribeOptions,
    check_name,
)
from mbctl.wire import messages as wire

if TYPE_CHECKING:
    from mbctl.engine.interface import EngineStatus
    from mbctl.server.connection import Connection

_ID_BYTES = 16
# A wait or delay is at most a day, and an age whatever a client's clock counted: far from
# the end of 64 bits once it is nanoseconds.
_MS_MAX = round(ACK_WAIT_MAX_S * 1000)


def _done(id_: int, _: object) -> wire.Message:
    return wire.Done(id_)


def register_publisher(connection: "Connection", request: wire.RegisterPublisher) -> None:
    """Tie the connection to a publisher session."""
    try:
        _check_id("session", request.session)
        if request.name is not None:
            check_name(request.name)
        if connection.session not in (None, request.session):
            raise ProtocolError(reason="a connection registers one publisher session")
    except MbctlError as error:
        connection.refuse(request.id, error)
        return
    connection.session = request.session
    connection.engine.register_publisher(request.session, connection.done(request, _done))


def create_topic(connection: "Connection", request: wire.CreateTopic) -> None:
    """Create a topic."""
    connection.engine.create_topic(
        request.topic,
        request.settings,
        request.exist_ok,
        connection.done(request, lambda id_, made: wire.Created(id_, made.topic_id, made.created)),
    )


def delete_topic(connection: "Connection", request: wire.DeleteTopic) -> None:
    """Delete a topic."""
    connection.engine.delete_topic(request.topic, connection.done(request, _done))


def send(connection: "Connection", request: wire.Send) -> None:
    """Store a batch."""
    try:
        session = _required(connection.session, "publisher")
        if connection.sends >= connection.limits.sends_in_flight:
            raise LimitExceeded(what="sends in flight", limit=connection.limits.sends_in_flight)
        if request.sequence < 1:
            raise InvalidArgument(reason=f"sends are numbered from 1, not {request.sequence}")
        age_ms = _milliseconds("age", request.age_ms)
    except MbctlError as error:
        connection.refuse(request.id, error)
        return
    done = connection.done_send(request.id, memoryview(request.batch).nbytes)
    connection.engine.send(
        session, request.sequence, request.topic, request.batch, age_ms=age_ms, done=done
    )


def register_subscriber(connection: "Connection", request: wire.RegisterSubscriber) -> None:
    """Tie the connection to a reading process; an older connection of it is closed."""
    try:
        _check_id("member", request.member)
        if connection.member not in (None, request.member):
            raise ProtocolError(reason="a connection registers one subscriber")
    except MbctlError as error:
        connection.refuse(request.id, error)
        return

    def registered(id_: int, subscriber: str) -> wire.Message:
        connection.subscriber = subscriber
        connection.server.take_member(request.member, connection)
        return wire.Registered(id_, subscriber)

    connection.engine.register_subscriber(
        request.member, request.name, connection.done(request, registered)
    )


def subscribe(connection: "Connection", request: wire.Subscribe) -> None:
    """Create a subscription or keep its place."""
    try:
        member = _required(connection.member, "subscriber")
        options = SubscribeOptions(
            start=None if request.start is None else _start(request.start),
            ack_wait=request.ack_wait_ms / 1000,
            max_deliveries=request.max_deliveries,
            dead_letter=request.dead_letter,
        )
    except MbctlError as error:
        connection.refuse(request.id, error)
        return
    connection.engine.subscribe(
        member, request.topic, options, connection.done(request, wire.SubscribedReply)
    )


def unsubscribe(connection: "Connection", request: wire.Unsubscribe) -> None:
    """Delete a subscription: the one named, or this connection's own."""
    try:
        subscriber = _subscriber(connection, request.subscriber)
    except MbctlError as error:
        connection.refuse(request.id, error)
        return
    connection.engine.unsubscribe(request.topic, subscriber, connection.done(request, _done))


def pull(connection: "Connection", request: wire.Pull) -> None:
    """Grant messages, now or when some come; first take the acknowledgement it carries."""
    try:
        member = _required(connection.member, "subscriber")
        carried = request.acknowledge
        if carried is not None:
            # Before anything that may refuse the pull itself.
            connection.engine.ack_with_pull(member, request.topic, carried.topic_id, carried.ranges)
        wait_ms = _milliseconds("wait", request.wait_ms)
        if len(connection.pulls) >= connection.limits.connection_pulls:
            raise LimitExceeded(what="waiting pulls", limit=connection.limits.connection_pulls)
        if request.id in connection.pulls:
            raise ProtocolError(reason=f"the id {request.id} is in use by a waiting pull")
    except MbctlError as error:
        connection.refuse(request.id, error)
        return
    # Less than the limit while others have much to read.
    most = connection.server.unread.pull_bytes
    number = connection.engine.pull(
        member,
        request.topic,
        max_messages=request.max_messages,
        max_bytes=most if request.max_bytes is None else min(request.max_bytes, most),
        wait_ms=wait_ms,
        done=connection.done_pull(request.id),
    )
    if number is not None:
        connection.pulls[request.id] = number


def cancel(connection: "Connection", request: wire.Cancel) -> None:
    """End a waiting pull; it is answered before this is."""
    number = connection.pulls.get(request.pull)
    if number is not None:
        connection.engine.cancel_pull(number)
    connection.send([wire.encode(wire.Done(request.id))])


def ack(connection: "Connection", request: wire.Ack) -> None:
    """Acknowledge, and answer when it is durable."""
    _settle(connection, request, connection.engine.ack)


def nack(connection: "Connection", request: wire.Nack) -> None:
    """Give messages back."""
    try:
        delay_ms = _milliseconds("delay", request.delay_ms)
    except MbctlError as error:
        connection.refuse(request.id, error)
        return

    def verb(member: bytes, topic: str, topic_id: int, ranges: list[Range], done: Any) -> None:
        connection.engine.nack(
            member,
            topic,
            topic_id,
            ranges,
            delay_ms=delay_ms,
            counted=request.counted,
            done=done,
        )

    _settle(connection, request, verb)


def extend(connection: "Connection", request: wire.Extend) -> None:
    """Renew leases."""
    _settle(connection, request, connection.engine.extend)


def _settle(
    connection: "Connection",
    request: wire.Ack | wire.Nack | wire.Extend,
    verb: Callable[[bytes, str, int, list[Range], Any], None],
) -> None:
    try:
        member = _required(connection.member, "subscriber")
    except MbctlError as error:
        connection.refuse(request.id, error)
        return
    done = connection.done(request, wire.Counted)
    verb(member, request.topic, request.topic_id, request.ranges, done)


def seek(connection: "Connection", request: wire.Seek) -> None:
    """Move a subscription: the one named, or this connection's own."""
    try:
        subscriber = _subscriber(connection, request.subscriber)
        start = _start(request.start)
    except MbctlError as error:
        connection.refuse(request.id, error)
        return
    done = connection.done(request, wire.SoughtReply)
    connection.engine.seek(request.topic, subscriber, start, done)


def release(connection: "Connection", request: wire.Release) -> None:
    """Let parked messages be delivered again."""
    done = connection.done(request, wire.Counted)
    engine = connection.engine
    engine.release_parked(request.topic, request.subscriber, request.ranges, done)


def drop(connection: "Connection", request: wire.Drop) -> None:
    """Give parked messages up."""
    done = connection.done(request, wire.Counted)
    connection.engine.drop_parked(request.topic, request.subscriber, request.ranges, done)


def purge_topic(connection: "Connection", request: wire.PurgeTopic) -> None:
    """Give up all messages of a topic."""
    connection.engine.purge_topic(request.topic, connection.done(request, wire.Counted))


def peek(connection: "Connection", request: wire.Peek) -> None:
    """Show messages without a subscription."""
    try:
        start = _start(request.start)
    except MbctlError as error:
        connection.refuse(request.id, error)
        return
    most = connection.limits.pull_bytes
    max_bytes = most if request.max_bytes is None else min(request.max_bytes, most)
    connection.engine.peek(
        request.topic,
        start,
        max_messages=request.max_messages,
        max_bytes=max_bytes,
        done=connection.done_pull(request.id, max(max_bytes, 0)),
    )


def backup(connection: "Connection", request: wire.GetBackup) -> None:
    """Begin a backup, go on with it, or end it."""
    if request.position is None:
        connection.backup.end()
        connection.send([wire.encode(wire.BackupPart(request.id, 0, 0, b""))])
        return

    def reply(id_: int, part: tuple[int, int, bytes]) -> wire.Message:
        return wire.BackupPart(id_, *part)

    done = connection.done(request, reply, wire.BACKUP_PART_BYTES)
    connection.backup.part(connection.engine, request.position, done)


def topics(connection: "Connection", request: wire.GetTopics) -> None:
    """List all topics."""
    connection.engine.topics(connection.done_list(request, wire.TopicsReply))


def topic(connection: "Connection", request: wire.GetTopic) -> None:
    """Tell of one topic."""
    connection.engine.topic(request.topic, connection.done(request, wire.TopicReply))


def why(connection: "Connection", request: wire.GetWhy) -> None:
    """Tell who holds a topic's messages."""
    connection.engine.why(request.topic, connection.done(request, wire.WhyReply))


def subscriptions(connection: "Connection", request: wire.GetSubscriptions) -> None:
    """List subscriptions."""
    done = connection.done_list(request, wire.SubscriptionsReply)
    connection.engine.subscriptions(request.topic, done)


def subscription(connection: "Connection", request: wire.GetSubscription) -> None:
    """Tell of one subscription."""
    connection.engine.subscription(
        request.topic, request.subscriber, connection.done(request, wire.SubscriptionReply)
    )


def status(connection: "Connection", request: wire.GetStatus) -> None:
    """Tell how the server is."""

    def reply(id_: int, engine: "EngineStatus") -> wire.Message:
        return wire.StatusReply(id_, connection.server.status(engine))

    connection.engine.status(connection.done(request, reply))


def ping(connection: "Connection", request: wire.Ping) -> None:
    """Answer."""
    connection.send([wire.encode(wire.Done(request.id))])


def _required(registered: bytes | None, what: str) -> bytes:
    if registered is None:
        raise ProtocolError(reason=f"this needs a registered {what}")
    return registered


def _subscriber(connection: "Connection", named: str | None) -> str:
    """The subscriber that a request names, or the one of this connection."""
    if named is not None:
        return named
    _required(connection.member, "subscriber")
    return connection.subscriber


def _start(start: int | str | AtTime) -> Start:
    if isinstance(start, AtTime):
        if not 0 <= start.ns < 2**63:
            raise InvalidArgument(reason=f"a time is 0 to 2^63 - 1 ns since 1970, not {start.ns}")
        return start
    if start == "new":
        return "new"
    if start == "earliest":
        return "earliest"
    if isinstance(start, str):
        raise InvalidArgument(reason=f"a place is new, earliest or an offset, not {start[:40]!r}")
    return start


def _check_id(what: str, id_: bytes) -> None:
    if len(id_) != _ID_BYTES:
        raise ProtocolError(reason=f"a {what} id has {_ID_BYTES} bytes, not {len(id_)}")


def _milliseconds(what: str, value: int) -> int:
    if not 0 <= value <= _MS_MAX:
        raise InvalidArgument(reason=f"{what} must be 0 to {_MS_MAX} ms, not {value}")
    return value


VERBS: dict[type[wire.Message], Callable[["Connection", Any], None]] = {
    wire.RegisterPublisher: register_publisher,
    wire.CreateTopic: create_topic,
    wire.DeleteTopic: delete_topic,
    wire.Send: send,
    wire.RegisterSubscriber: register_subscriber,
    wire.Subscribe: subscribe,
    wire.Unsubscribe: unsubscribe,
    wire.Pull: pull,
    wire.Cancel: cancel,
    wire.Ack: ack,
    wire.Nack: nack,
    wire.Extend: extend,
    wire.Seek: seek,
    wire.Release: release,
    wire.Drop: drop,
    wire.PurgeTopic: purge_topic,
    wire.Peek: peek,
    wire.GetBackup: backup,
    wire.GetTopics: topics,
    wire.GetTopic: topic,
    wire.GetWhy: why,
    wire.GetSubscriptions: subscriptions,
    wire.GetSubscription: subscription,
    wire.GetStatus: status,
    wire.Ping: ping,
}
