"""What happens at a jetstream engine while something else is under way, or is refused."""

import asyncio
from collections.abc import Callable, Iterator

import msgspec
import nats
import pytest
from broker_process import wait_until
from engine_client import Client, Messages, part
from jetstream_driver import JetStreamDriver
from nats.aio.msg import Msg

from mbctl.engine.jetstream.address import parse_address
from mbctl.engine.jetstream.api import ApiError, Json
from mbctl.engine.jetstream.link import Link
from mbctl.engine.jetstream.names import BUCKET
from mbctl.engine.jetstream.parts import Event
from mbctl.errors import ServerError
from mbctl.model import MIB, AtTime

pytestmark = pytest.mark.slow


@pytest.fixture
def client(clusters: Callable[[int], str]) -> Iterator[Client]:
    client = Client(JetStreamDriver(clusters(1), 1))
    yield client
    client.driver.shut()


def test_message_that_looks_like_an_error_is_found_by_its_time(client: Client) -> None:
    client.create_topic("orders")
    client.reader()
    sent = client.send(b'{"level": "error"}')
    assert client.seek(AtTime(0)).offset == sent.offset


def test_acknowledgements_that_come_while_others_are_stored_all_count(client: Client) -> None:
    client.create_topic("orders")
    client.reader()
    kept = entries_of_batches(client)
    client.send(*(b"%d" % number for number in range(40)))
    got = client.pull()
    topic_id, counts = client.topic_ids["orders"], []

    async def acknowledge() -> None:
        for offset in got.offsets:
            one = [(offset, offset + 1)]
            client.driver.engine.ack(b"a", "orders", topic_id, one, counts.append)
            # So long that each finds another one at another step.
            await asyncio.sleep(0.0003)

    client.driver._run(acknowledge())
    client.driver._until(lambda: len(counts) == len(got))
    assert counts == [1] * len(got)
    assert entries_of_batches(client) == kept


def entries_of_batches(client: Client) -> int:
    """How many batches have an entry of what was done with a part of them."""
    request = {"subjects_filter": "$KV.mbctl.batch.>"}
    info = client.driver._run(client.driver.engine.api.call(f"STREAM.INFO.{BUCKET}", request))
    return len(info["state"].get("subjects") or ())


def test_purge_leaves_in_hand_what_was_sent_after_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create_topic("orders")
    client.reader()
    client.send(b"old")
    answered, may_go_on = held_up(client, monkeypatch, "STREAM.PURGE.mbctl_")
    purging = client.driver.start("purge_topic", "orders")
    client.driver._until(answered.is_set)
    sent, pulled = client.start_send(b"new"), client.start_pull(wait_s=5)
    client.driver._until(lambda: sent.done and pulled.done)
    may_go_on.set()
    client.driver._until(lambda: purging.done)
    got = Messages(pulled.result())
    assert (purging.result(), got.payloads) == (1, [b"new"])
    assert client.ack(got) == 1


def held_up(
    client: Client, monkeypatch: pytest.MonkeyPatch, verb: str
) -> tuple[asyncio.Event, asyncio.Event]:
    """Let calls of a verb be slow: when the cluster has answered, and when they may go on."""
    answered, may_go_on = asyncio.Event(), asyncio.Event()
    call = client.driver.engine.api.call

    async def slow(asked: str, request: Json | None = None) -> Json:
        answer = await call(asked, request)
        if asked.startswith(verb):
            answered.set()
            await may_go_on.wait()
        return answer

    monkeypatch.setattr(client.driver.engine.api, "call", slow)
    return answered, may_go_on


@pytest.fixture
def refusing(client: Client, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has the cluster refuse some requests, as one does whose disk has failed."""
    call = client.driver.engine.api.call

    def refuse(verb: str) -> None:
        async def refused(asked: str, request: Json | None = None) -> Json:
            if verb and asked.startswith(verb):
                raise ApiError(10076, "JetStream not enabled")
            return await call(asked, request)

        monkeypatch.setattr(client.driver.engine.api, "call", refused)

    return refuse


def test_send_that_is_refused_on_its_way_is_answered(
    client: Client, refusing: Callable[[str], None]
) -> None:
    client.create_topic("orders")
    client.driver.engine.registry.forget_all()
    refusing("STREAM.MSG.GET")
    with pytest.raises(ServerError, match="not enabled"):
        client.send(b"a")
    refusing("")
    assert client.send(b"b").count == 1


def test_pull_that_is_refused_on_its_way_is_answered(
    client: Client, refusing: Callable[[str], None]
) -> None:
    client.create_topic("orders")
    client.reader()
    client.driver.tell("end_reader", "orders", "billing")
    for _ in range(2):
        # One that has to find its subscription, and one that has found it.
        refusing("CONSUMER.INFO")
        with pytest.raises(ServerError, match="not enabled"):
            client.pull()
        refusing("")
        client.subscribe()


def test_acknowledgement_that_is_refused_on_its_way_is_answered(
    client: Client, refusing: Callable[[str], None]
) -> None:
    client.create_topic("orders")
    client.reader()
    client.send(b"a")
    client.send(b"b")
    got = client.pull()
    client.driver.engine.readers["orders", "billing"].confirmed.forget()
    refusing("STREAM.MSG.GET")
    with pytest.raises(ServerError, match="not enabled"):
        client.ack(part(got, 0))
    refusing("")
    assert client.ack(part(got, 1)) == 1


def test_dead_letter_that_could_not_be_moved_at_first_is_moved(
    client: Client, refusing: Callable[[str], None]
) -> None:
    client.create_topic("orders")
    client.create_topic("dead")
    client.reader(max_deliveries=1, dead_letter="dead")
    client.send(b"a")
    got = client.pull()
    refusing("STREAM.MSG.GET.mbctl_")
    client.nack(got)
    refusing("")
    wait_until(lambda: client.peek("earliest", topic="dead"))
    assert client.info().parked == 0


def test_late_attempts_to_end_a_subscription_take_nothing_of_the_next(client: Client) -> None:
    asked: list[Msg] = []

    async def overhear() -> nats.NATS:
        async def note(message: Msg) -> None:
            asked.append(message)

        other = await nats.connect(client.driver.url.split(","))
        await other.subscribe(f"$JS.API.STREAM.PURGE.{BUCKET}", cb=note)
        await other.flush()
        return other

    other = client.driver._run(overhear())
    client.create_topic("orders")
    client.reader()
    client.driver.call("unsubscribe", "orders", "billing")
    client.reader()
    client.send(b"a", b"b")
    client.seek("earliest")
    ended = list(asked)
    got = client.pull()
    assert client.ack(part(got, 0)) == 1
    for one in ended:
        client.driver._run(other.request(one.subject, one.data))
    client.driver._run(other.close())
    client.driver.restart(crash=True)
    client.reader()
    assert client.pull().payloads == [b"b"]


def test_late_word_of_an_end_does_not_end_the_next_subscription(client: Client) -> None:
    client.create_topic("orders")
    client.reader()
    pulled = client.start_pull(wait_s=5)
    event = Event("another server", "unsubscribed", "orders", client.topic_ids["orders"], "billing")
    client.driver.tell("_heard", msgspec.msgpack.encode(event), "")
    client.send(b"a")
    client.driver._until(lambda: pulled.done)
    assert Messages(pulled.result()).payloads == [b"a"]


def test_what_a_nameless_subscriber_does_not_read_again_ends_with_it(client: Client) -> None:
    for topic in ("orders", "news"):
        client.create_topic(topic)
        client.reader(name=None, topic=topic)
        client.driver.tell("close_member", b"a")
    client.register(name=None)
    client.driver.tell("close_member", b"a")
    client.driver.advance(60)
    assert not client.driver.engine.readers


def test_link_to_a_node_that_takes_nothing_more_can_be_closed() -> None:
    async def node(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "n", "version": "2.15.1", "max_payload": 8 * MIB, "headers": True}
        writer.write(b"INFO %b\r\n" % msgspec.json.encode(info))
        await reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n")
        await over.wait()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(node, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        link = Link(parse_address(f"nats://127.0.0.1:{port}"))
        await link.open("events")
        for _ in range(40):
            link.publish("subject", bytes(MIB))
        while len(link._out) == 40:
            await asyncio.sleep(0)
        closing = asyncio.ensure_future(link.close())
        _, pending = await asyncio.wait([closing], timeout=15)
        over.set()
        server.close()
        assert not pending

    over = asyncio.Event()
    asyncio.run(main())


def test_topic_that_cannot_be_looked_at_does_not_keep_others_from_being_reclaimed(
    client: Client, refusing: Callable[[str], None]
) -> None:
    for topic in ("a", "b"):
        client.create_topic(topic)
        client.reader(topic=topic)
        client.send(b"x", topic=topic)
        client.driver.engine.reclaiming._due[topic] = client.driver.loop.call_later(60, print)
        assert client.ack(client.pull(topic=topic), topic=topic) == 1
    refusing("CONSUMER.LIST.mbctl_a~")
    client.driver._run(client.driver.engine.reclaiming._reclaim_all())
    wait_until(lambda: client.kept("b") == 0)
    assert client.kept("a") == 1
