"""Topics as streams of a real cluster: made by several at once, and made again."""

import asyncio
import time
from collections.abc import Callable, Iterator

import nats
import pytest
from engine_client import Client, part
from jetstream_driver import driver_of
from nats.aio.msg import Msg

from mbctl.engine.jetstream.address import parse_address
from mbctl.engine.jetstream.api import Api
from mbctl.engine.jetstream.link import Link
from mbctl.engine.jetstream.names import BUCKET
from mbctl.engine.jetstream.options import EngineOptions
from mbctl.engine.jetstream.topics import Topic, Topics
from mbctl.errors import TopicNotFound
from mbctl.model import Limits, TopicSettings

pytestmark = pytest.mark.slow

_SETTINGS = TopicSettings()


@pytest.fixture
def client(clusters: Callable[[int], str]) -> Iterator[Client]:
    client = Client(driver_of(clusters(1), 1)())
    yield client
    client.driver.shut()


async def registry_on(url: str) -> tuple[Topics, Link]:
    """What one server knows of the topics, by a connection of its own."""
    link = Link(parse_address(url))
    await link.open("test")
    options = EngineOptions(address=parse_address(url), replicas=1, sync="2m")
    return Topics(Api(link), options, Limits()), link


def test_of_two_servers_that_create_a_topic_one_does(client: Client) -> None:
    async def both() -> None:
        servers = [await registry_on(client.driver.url) for _ in range(2)]

        async def create(topics: Topics, name: str) -> tuple[int, bool]:
            topic, created = await topics.create(
                name, _SETTINGS, exist_ok=True, wall_ns=time.time_ns()
            )
            return topic.topic_id, created

        for number in range(20):
            made = await asyncio.gather(
                *(create(topics, f"orders-{number}") for topics, _ in servers)
            )
            assert len({topic_id for topic_id, _ in made}) == 1
            assert sorted(created for _, created in made) == [False, True]
        known = [topic.name for topic, _ in await servers[0][0].all()]
        assert sorted(known) == sorted(f"orders-{number}" for number in range(20))
        for _, link in servers:
            await link.close()

    asyncio.run(both())


def test_a_stream_that_got_no_name_is_no_topic(client: Client) -> None:
    async def break_off() -> None:
        topics, link = await registry_on(client.driver.url)
        config = topics._config("orders", 5, _SETTINGS, time.time_ns())
        await Api(link).call(f"STREAM.CREATE.{config['name']}", config)
        assert await topics.all() == []
        with pytest.raises(TopicNotFound):
            await topics.look("orders")
        topic, created = await topics.create(
            "orders", _SETTINGS, exist_ok=False, wall_ns=time.time_ns()
        )
        assert created
        assert [one.topic_id for one, _ in await topics.all()] == [topic.topic_id]
        await link.close()

    asyncio.run(break_off())


def test_topics_made_again_at_once_have_nothing_of_the_old(client: Client) -> None:
    async def again_and_again() -> None:
        topics, link = await registry_on(client.driver.url)
        for _ in range(300):
            made, _ = await topics.create(
                "orders", _SETTINGS, exist_ok=False, wall_ns=time.time_ns()
            )
            assert made.last_sequence == 0
            reply = await link.ask(made.subject, b"x", timeout=5)
            assert b'"seq":1' in reply.body
            consumer = {"durable_name": "c", "ack_policy": "explicit"}
            await Api(link).call(
                f"CONSUMER.CREATE.{made.stream}.c",
                {"stream_name": made.stream, "config": consumer},
            )
            await Api(link).call(f"STREAM.DELETE.{made.stream}")
        await link.close()

    asyncio.run(again_and_again())


def test_a_deleted_topic_leaves_nothing_behind(client: Client) -> None:
    kept = entries_on(client.driver.url)
    for number in range(3):
        topic = f"passing-{number}"
        client.create_topic(topic)
        client.send(b"a", b"b", topic=topic)
        client.reader(topic=topic)
        pulled = client.pull(topic=topic)
        assert client.ack(part(pulled, 0), topic=topic) == 1
        client.driver.call("delete_topic", topic)
        client.driver.settle()
    assert entries_on(client.driver.url) == kept


def test_a_topic_made_meanwhile_keeps_its_name(client: Client) -> None:
    async def late() -> None:
        topics, link = await registry_on(client.driver.url)

        async def create() -> Topic:
            made, _ = await topics.create(
                "orders", _SETTINGS, exist_ok=False, wall_ns=time.time_ns()
            )
            return made

        deleted = await create()
        await Api(link).call(f"STREAM.DELETE.{deleted.stream}")
        made = await create()
        await topics.unname(deleted)
        assert (await topics.look("orders"))[0].topic_id == made.topic_id
        await link.close()

    asyncio.run(late())


def test_a_purge_that_is_tried_again_takes_nothing_that_came_after_it(client: Client) -> None:
    asked: list[Msg] = []

    async def overhear() -> nats.NATS:
        async def note(message: Msg) -> None:
            if BUCKET not in message.subject:
                asked.append(message)

        other = await nats.connect(client.driver.url.split(","))
        await other.subscribe("$JS.API.STREAM.PURGE.*", cb=note)
        await other.flush()
        return other

    other = client.driver._run(overhear())
    client.create_topic("orders")
    client.reader()
    client.send(b"a")
    assert client.purge() == 1
    client.driver._until(lambda: bool(asked))
    client.send(b"b")
    # As if the first attempt had been answered when the second one was under way.
    client.driver._run(other.request(asked[0].subject, asked[0].data))
    assert client.pull().payloads == [b"b"]
    client.driver._run(other.close())


def entries_on(url: str) -> int:
    """How many entries the bucket has."""

    async def count() -> int:
        _, link = await registry_on(url)
        info = await Api(link).call(f"STREAM.INFO.{BUCKET}")
        await link.close()
        return int(info["state"]["messages"])

    return asyncio.run(count())
