"""What both faces share: the verbs as flows, and what a new connection begins with.

A flow is a generator that yields requests, is sent their replies, and returns the verb's
answer. It does no I/O: the sync face runs it on a blocking socket, the asyncio face on a
stream, and each public method is one line that runs a flow.
"""

from collections.abc import Generator
from itertools import count
from typing import TypeVar

from mbctl import __version__
from mbctl.client import address
from mbctl.client.packing import to_seconds
from mbctl.errors import (
    InvalidArgument,
    OutcomeUnknown,
    ProtocolError,
    SubscriptionNotFound,
    TopicExists,
    TopicNotFound,
)
from mbctl.model import (
    LIMITS,
    Limits,
    ServerStatus,
    SubscriptionInfo,
    TopicHolds,
    TopicInfo,
    TopicSettings,
)
from mbctl.wire import messages as wire

T = TypeVar("T")
R = TypeVar("R", bound=wire.Message)
Flow = Generator[wire.Message, wire.Message, T]

# The server waits no longer either; and it is within what a socket takes as its timeout.
WAIT_MAX_S = 86_400.0


class ClientBase:
    """Addresses, ids and flows. No I/O."""

    def __init__(self, server: str, timeout: float) -> None:
        if not 0 < to_seconds(timeout, "timeout") <= WAIT_MAX_S:
            raise InvalidArgument(
                reason=f"timeout must be above 0 and at most {WAIT_MAX_S:.0f} s, not {timeout}"
            )
        self.address = address.parse(server)
        self.timeout = timeout
        self.limits: Limits = LIMITS
        """The server's, once there has been a connection."""
        self.welcome: wire.Welcome | None = None
        """What the server said of itself when the connection began."""
        self.was_retried = False
        """Whether the request that a flow is told the answer to was sent more than once."""
        self._ids = count(1)

    @property
    def server(self) -> str:
        """The server's address."""
        return str(self.address)

    def _in_child(self) -> None:
        """In the child of a fork, begin as another client: the connection is the parent's."""

    def opening(self) -> list[wire.Message]:
        """The requests that a new connection begins with, without their ids."""
        return [wire.Hello(0, wire.VERSION, wire.VERSION, f"mbctl/{__version__}")]

    def opened(self, replies: list[wire.Message]) -> None:
        """Take the replies to ``opening``."""
        welcome = expect(wire.Welcome, replies[0])
        self.welcome = welcome
        self.limits = welcome.limits

    # --- flows ------------------------------------------------------------------------------

    def _create_topic(self, topic: str, settings: TopicSettings, exist_ok: bool) -> Flow[bool]:
        try:
            reply = yield wire.CreateTopic(0, topic, settings, exist_ok)
        except TopicExists as error:
            if exist_ok or not self.was_retried:
                raise
            # The first attempt may have created it before its answer was lost.
            raise OutcomeUnknown(what=f"creating topic {topic!r}") from error
        return expect(wire.Created, reply).created

    def _delete_topic(self, topic: str) -> Flow[None]:
        try:
            yield wire.DeleteTopic(0, topic)
        except TopicNotFound:
            # The first attempt may have deleted it before its answer was lost.
            if not self.was_retried:
                raise

    def _topics(self) -> Flow[list[TopicInfo]]:
        reply = yield wire.GetTopics(0)
        return expect(wire.TopicsReply, reply).topics

    def _topic(self, topic: str) -> Flow[TopicInfo]:
        reply = yield wire.GetTopic(0, topic)
        return expect(wire.TopicReply, reply).topic

    def _why(self, topic: str) -> Flow[TopicHolds]:
        reply = yield wire.GetWhy(0, topic)
        return expect(wire.WhyReply, reply).holds

    def _subscriptions(self, topic: str | None) -> Flow[list[SubscriptionInfo]]:
        reply = yield wire.GetSubscriptions(0, topic)
        return expect(wire.SubscriptionsReply, reply).subscriptions

    def _subscription(self, topic: str, subscriber: str) -> Flow[SubscriptionInfo]:
        reply = yield wire.GetSubscription(0, topic, subscriber)
        return expect(wire.SubscriptionReply, reply).subscription

    def _delete_subscription(self, topic: str, subscriber: str | None) -> Flow[None]:
        try:
            yield wire.Unsubscribe(0, topic, subscriber)
        except SubscriptionNotFound:
            # As with a topic.
            if not self.was_retried:
                raise

    def _status(self) -> Flow[ServerStatus]:
        reply = yield wire.GetStatus(0)
        return expect(wire.StatusReply, reply).status

    def _ping(self) -> Flow[None]:
        yield wire.Ping(0)


def expect(kind: type[R], reply: wire.Message) -> R:
    """``reply`` if it is of the ``kind`` that its request asks for.

    Raises:
        ProtocolError: it is another.
    """
    if not isinstance(reply, kind):
        raise ProtocolError(reason=f"a {type(reply).__name__} where {kind.__name__} was expected")
    return reply
