"""The verbs that look at messages, move subscriptions and tend what is parked, on the wire."""

from collections.abc import Iterator

import pytest
from server_harness import RawClient, ServerInside

from mbctl.model import MIB, AtTime, Limits
from mbctl.wire import messages as wire


@pytest.fixture
def inside() -> Iterator[ServerInside]:
    """A server in this process with the topic t, that holds three messages."""
    with ServerInside() as inside:
        with inside.client().publisher() as client:
            client.ask(wire.CreateTopic(0, "t"))
            client.write(client.send_frame("t", 1, b"a", b"b", b"c"))
            assert isinstance(client.reply(), wire.Sent)
        yield inside


def peeked(reply: wire.Message) -> list[tuple[int, int, list[bytes]]]:
    assert isinstance(reply, wire.Pulled), reply
    assert reply.skipped == 0
    return [(p.first, p.deliveries, p.batch.payloads) for p in reply.pieces]


@pytest.mark.parametrize(
    "request_",
    [
        wire.Peek(0, "t", 0, 10),
        wire.Peek(0, "t", "earliest", 10),
        wire.Peek(0, "t", AtTime(0), 10, 1000),
    ],
)
def test_a_peek_needs_no_role_and_shows_all(inside: ServerInside, request_: wire.Peek) -> None:
    with inside.client().hello() as client:
        assert peeked(client.ask(request_)) == [(0, 0, [b"a", b"b", b"c"])]
        assert peeked(client.ask(wire.Peek(0, "t", "new", 10))) == []
        assert peeked(client.ask(wire.Peek(0, "t", 1, 1))) == [(1, 0, [b"b"])]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (wire.Peek(0, "t", 4, 1), "OffsetOutOfRange"),
        (wire.Peek(0, "t", -1, 1), "OffsetOutOfRange"),
        (wire.Peek(0, "t", 0, 0), "InvalidArgument"),
        (wire.Peek(0, "t", 0, 1, 0), "InvalidArgument"),
        (wire.Peek(0, "t", 0, 1, -5), "InvalidArgument"),
        (wire.Peek(0, "t", "soon", 1), "InvalidArgument"),
        (wire.Peek(0, "t", AtTime(-1), 1), "InvalidArgument"),
        (wire.Peek(0, "t", AtTime(2**63), 1), "InvalidArgument"),
        (wire.Peek(0, "none", 0, 1), "TopicNotFound"),
        (wire.Seek(0, "t", 0, "nobody"), "SubscriptionNotFound"),
        (wire.Seek(0, "none", 0, "nobody"), "TopicNotFound"),
        (wire.Seek(0, "t", "soon", "nobody"), "InvalidArgument"),
        (wire.Release(0, "t", "nobody"), "SubscriptionNotFound"),
        (wire.Drop(0, "t", "nobody", [(0, 1)]), "SubscriptionNotFound"),
        (wire.Drop(0, "none", "nobody"), "TopicNotFound"),
        (wire.PurgeTopic(0, "none"), "TopicNotFound"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_is_refused_and_the_connection_goes_on(
    inside: ServerInside, request_: wire.Message, code: str
) -> None:
    with inside.client().hello() as client:
        assert client.refusal(request_) == code
        assert isinstance(client.ask(wire.Ping(0)), wire.Done)


def test_a_seek_of_ones_own_needs_a_subscriber(inside: ServerInside) -> None:
    with inside.client().hello() as client:
        client.write(client.frame(wire.Seek(0, "t", 0)))
        client.rest()
        assert client.end == "ProtocolError"


def test_a_seek_moves_ones_own_subscription_or_the_one_named(inside: ServerInside) -> None:
    def offset(reply: wire.Message) -> int:
        assert isinstance(reply, wire.SoughtReply), reply
        return reply.sought.offset

    with inside.client().subscriber("r") as client, inside.client().hello() as other:
        client.ask(wire.Subscribe(0, "t"))
        assert offset(client.ask(wire.Seek(0, "t", 2))) == 2
        assert offset(other.ask(wire.Seek(0, "t", AtTime(0), "r"))) == 2
        client.ask(wire.Subscribe(0, "t", None))
        pulled = client.ask(wire.Pull(0, "t", 10))
        assert isinstance(pulled, wire.Pulled)
        assert [piece.first for piece in pulled.pieces] == [2]


@pytest.mark.parametrize("kind", [wire.Release, wire.Drop])
@pytest.mark.parametrize("range_", [(1, 1), (2, 1), (-1, 1), (0, 3), (5, 9), (0, 2**64 - 1)])
def test_what_is_not_parked_is_passed_over(
    inside: ServerInside, kind: type[wire.Release | wire.Drop], range_: tuple[int, int]
) -> None:
    with inside.client().subscriber("r") as client:
        client.ask(wire.Subscribe(0, "t"))
        assert client.ask(kind(0, "t", "r", [range_])) == wire.Counted(client._next_id, 0)
        info = client.ask(wire.GetSubscription(0, "t", "r"))
        assert isinstance(info, wire.SubscriptionReply)
        assert (info.subscription.cursor, info.subscription.unread) == (0, 3)


def test_peeks_under_way_are_bounded_by_their_bytes() -> None:
    with ServerInside(Limits(connection_bytes=MIB)) as inside, inside.client().publisher() as one:
        one.ask(wire.CreateTopic(0, "t"))
        for sequence in range(1, 5):
            one.write(one.send_frame("t", sequence, bytes(MIB)))
            assert isinstance(one.reply(), wire.Sent)
        client = RawClient(inside.address).hello()
        requests = [wire.Peek(0, "t", 0, 4) for _ in range(50)]
        client.take_little()
        client.write(b"".join(map(client.frame, requests)))
        for request in requests:
            assert sum(len(p[2]) for p in peeked(client.reply(request.id))) == 3
        client.socket.close()
