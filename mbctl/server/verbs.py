"""From a request to the engine's verb and back: one function for each request."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mbctl.errors import InvalidArgument, LimitExceeded, MbctlError, ProtocolError
from mbctl.model import (
    ACK_WAIT_MAX_S,
    Range,
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
    connection.sends += 1

    def reply(id_: int, receipt: Any) -> wire.Message:
        return wire.Sent(id_, receipt.offset, receipt.count)

    answer = connection.done(request, reply, memoryview(request.batch).nbytes)

    def done(result: Any) -> None:
        connection.sends -= 1
        answer(result)

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
        start = request.start
        if isinstance(start, str) and start not in ("new", "earliest"):
            raise InvalidArgument(
                reason=f"a start is new, earliest or an offset, not {start[:40]!r}"
            )
        options = SubscribeOptions(
            start=start,  # type: ignore[arg-type]
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
        subscriber = request.subscriber
        if subscriber is None:
            _required(connection.member, "subscriber")
            subscriber = connection.subscriber
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
    number = connection.engine.pull(
        member,
        request.topic,
        max_messages=request.max_messages,
        max_bytes=(
            connection.limits.pull_bytes if request.max_bytes is None else request.max_bytes
        ),
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


def topics(connection: "Connection", request: wire.GetTopics) -> None:
    """List all topics."""
    connection.engine.topics(connection.done(request, wire.TopicsReply))


def topic(connection: "Connection", request: wire.GetTopic) -> None:
    """Tell of one topic."""
    connection.engine.topic(request.topic, connection.done(request, wire.TopicReply))


def why(connection: "Connection", request: wire.GetWhy) -> None:
    """Tell who holds a topic's messages."""
    connection.engine.why(request.topic, connection.done(request, wire.WhyReply))


def subscriptions(connection: "Connection", request: wire.GetSubscriptions) -> None:
    """List subscriptions."""
    connection.engine.subscriptions(
        request.topic, connection.done(request, wire.SubscriptionsReply)
    )


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
    wire.GetTopics: topics,
    wire.GetTopic: topic,
    wire.GetWhy: why,
    wire.GetSubscriptions: subscriptions,
    wire.GetSubscription: subscription,
    wire.GetStatus: status,
    wire.Ping: ping,
}
