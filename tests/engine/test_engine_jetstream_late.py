"""Attempts of a request that the cluster executes late, when who asked has long gone on.

Each request that has no answer is sent again; what a node that stands still has taken in before
it is executed when that goes on. Here all that was asked is overheard, and asked once more.
Besides: consumers that are nobody's, and several who change one subscription at once.
"""

import asyncio
from collections.abc import Callable, Iterator

import nats
import pytest
from engine_client import Client, Messages, part
from engine_drivers import Pending
from jetstream_driver import driver_of
from nats.aio.msg import Msg

from mbctl.engine.jetstream import marks
from mbctl.engine.jetstream.api import Json
from mbctl.errors import LimitExceeded
from mbctl.model import Limits, SubscribeOptions

pytestmark = pytest.mark.slow

CREATE, RESET, DELETE = (f"$JS.API.CONSUMER.{verb}" for verb in ("CREATE", "RESET", "DELETE"))
PART = "$KV.mbctl.batch"


@pytest.fixture(params=[1, 3], ids=["one-node", "three-nodes"])
def client(request: pytest.FixtureRequest, clusters: Callable[[int], str]) -> Iterator[Client]:
    client = Client(driver_of(clusters(request.param), request.param)())
    client.create_topic("orders")
    yield client
    client.driver.shut()


class Overheard:
    """All changes that were asked for of consumers, and of what was read in part."""

    def __init__(self, client: Client) -> None:
        self._driver = client.driver
        self._asked: list[Msg] = []
        self._other = self._driver._run(self._listen(client.driver.url))

    async def _listen(self, url: str) -> nats.NATS:
        async def note(message: Msg) -> None:
            self._asked.append(message)

        other = await nats.connect(url.split(","))
        for subject in (CREATE, RESET, DELETE, PART):
            await other.subscribe(f"{subject}.>", cb=note)
        await other.flush()
        return other

    def so_far(self, subject: str, count: int = 1) -> list[Msg]:
        """What was asked for of this kind until now, which is so much at least."""
        self._driver._until(lambda: sum(_is_of(subject, one) for one in self._asked) >= count)
        return [one for one in self._asked if _is_of(subject, one)]

    def arrive_late(self, asked: list[Msg]) -> None:
        """Have requests executed once more."""
        for one in asked:
            again = self._other.request(one.subject, one.data, timeout=5, headers=one.headers)
            self._driver._run(again)

    def close(self) -> None:
        self._driver._run(self._other.close())


def _is_of(subject: str, message: Msg) -> bool:
    return message.subject.startswith(f"{subject}.")


@pytest.fixture
def overheard(client: Client) -> Iterator[Overheard]:
    overheard = Overheard(client)
    yield overheard
    overheard.close()


def test_late_end_of_a_subscription_does_not_end_the_next(
    client: Client, overheard: Overheard
) -> None:
    client.reader(b"k", name="keeper")
    client.reader()
    client.send(b"a")
    client.driver.call("unsubscribe", "orders", "billing")
    asked = overheard.so_far(DELETE)
    client.reader(start="earliest")
    overheard.arrive_late(asked)
    assert client.pull().payloads == [b"a"]
    client.driver.restart(crash=True)
    client.reader()
    assert client.info().unread_batches == 1


def test_late_move_of_a_subscription_does_not_undo_the_next(
    client: Client, overheard: Overheard
) -> None:
    client.reader()
    client.send(b"a")
    client.seek("new")
    asked = overheard.so_far(CREATE, 2) + overheard.so_far(RESET)
    client.seek("earliest")
    overheard.arrive_late(asked)
    assert client.info().unread_batches == 1
    assert client.pull().payloads == [b"a"]


def test_late_word_of_what_was_read_in_part_is_nothing_after_a_move(
    client: Client, overheard: Overheard
) -> None:
    client.reader()
    client.send(b"a", b"b")
    assert client.ack(part(client.pull(), 0)) == 1
    asked = overheard.so_far(PART)
    client.seek("earliest")
    overheard.arrive_late(asked)
    client.driver.restart(crash=True)
    client.reader()
    assert client.pull().payloads == [b"a", b"b"]


def test_late_beginning_of_a_subscription_that_has_ended_holds_nothing(
    client: Client, overheard: Overheard, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.reader(b"k", name="keeper")
    client.reader()
    client.driver.call("unsubscribe", "orders", "billing")
    overheard.arrive_late(overheard.so_far(CREATE, 2))
    infos = client.driver.call("subscriptions", "orders")
    assert [info.subscriber for info in infos] == ["keeper"]
    client.send(b"a")
    # As if two minutes had passed.
    monkeypatch.setattr(marks, "LEFT_NS", 0)
    assert client.ack(client.pull(b"k"), b"k") == 1
    client.driver.settle()
    assert client.kept() == 0


def consumers_of(client: Client) -> list[str]:
    """The names of all consumers of the topic, whoever has them."""

    async def listed() -> list[str]:
        topic = await client.driver.engine.registry.get("orders")
        return await client.driver.engine.api.consumer_names(topic.stream)

    return client.driver._run(listed())


def until_done(client: Client, *started: Pending) -> None:
    """Wait until all that was started is answered."""
    client.driver._until(lambda: all(one.done for one in started))


def break_off(client: Client, name: str = "billing") -> None:
    """Make a consumer as a server does that dies before it could name it."""

    async def make() -> None:
        engine = client.driver.engine
        topic, stream = await engine.registry.look("orders")
        place = await engine.consumers.resolve(topic, stream["state"], "earliest")
        config = engine.consumers._config(topic, name, "0123456789abcdef")
        assert await engine.consumers._make(topic, config, place, stream["state"])

    client.driver._run(make())


def test_subscription_whose_creation_was_broken_off_is_none(client: Client) -> None:
    break_off(client)
    assert client.driver.call("subscriptions", "orders") == []
    client.send(b"a")
    made = client.reader(start="new")
    assert made.created
    client.send(b"b")
    assert client.pull().payloads == [b"b"]


def test_consumer_that_somebody_may_be_making_holds_what_it_may_read(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.reader(b"k", name="keeper")
    break_off(client)
    client.send(b"a")
    assert client.ack(client.pull(b"k"), b"k") == 1
    assert client.kept() == 1
    monkeypatch.setattr(marks, "LEFT_NS", 0)
    client.send(b"b")
    assert client.ack(client.pull(b"k"), b"k") == 1
    assert client.kept() == 0
    assert len(consumers_of(client)) == 1


def test_consumer_that_somebody_has_is_left_whatever_its_age(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "LEFT_NS", 0)
    client.reader(b"k", name="keeper")
    client.reader()
    client.send(b"a")
    assert client.ack(client.pull(b"k"), b"k") == 1
    assert client.kept() == 1
    assert client.pull().payloads == [b"a"]


def test_what_is_left_of_others_counts_for_no_limit_for_long(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.driver.engine, "limits", Limits(topic_subscriptions=1))
    break_off(client, name="passing")
    monkeypatch.setattr(marks, "LEFT_NS", 0)
    assert client.reader().created
    with pytest.raises(LimitExceeded):
        client.reader(b"k", name="keeper")


def test_consumer_that_is_none_of_ours_is_left(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def watch() -> None:
        topic = await client.driver.engine.registry.get("orders")
        config = {"durable_name": "watcher", "ack_policy": "explicit"}
        request = {"stream_name": topic.stream, "config": config}
        await client.driver.engine.api.call(f"CONSUMER.CREATE.{topic.stream}.watcher", request)

    monkeypatch.setattr(marks, "LEFT_NS", 0)
    client.driver._run(watch())
    client.reader()
    infos = client.driver.call("subscriptions", "orders")
    assert [info.subscriber for info in infos] == ["billing"]
    client.send(b"a")
    assert client.ack(client.pull()) == 1
    assert client.kept() == 1
    assert "watcher" in consumers_of(client)


def test_of_several_who_subscribe_under_one_name_at_once_one_makes_it(client: Client) -> None:
    for number in range(5):
        client.register(b"%d" % number, name="billing")
    started = [
        client.driver.start("subscribe", b"%d" % number, "orders", SubscribeOptions())
        for number in range(5)
    ]
    until_done(client, *started)
    assert sorted(one.result().created for one in started) == [False] * 4 + [True]
    assert len(consumers_of(client)) == 1


def test_options_changed_while_a_subscription_is_moved_are_kept(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.reader()
    client.send(b"a")
    call, changed = client.driver.engine.api.call, []

    async def change_first(asked: str, request: Json | None = None) -> Json:
        if asked.startswith("CONSUMER.CREATE") and not changed:
            changed.append(asked)
            answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            options = SubscribeOptions(ack_wait=7)
            client.driver.engine.subscribe(b"a", "orders", options, answer.set_result)
            await answer
        return await call(asked, request)

    monkeypatch.setattr(client.driver.engine.api, "call", change_first)
    client.seek("earliest")
    assert changed
    assert client.info().ack_wait == 7
    assert len(consumers_of(client)) == 1


def test_subscription_is_moved_while_it_is_read_and_acknowledged(client: Client) -> None:
    client.reader()
    client.send(b"0")
    for number in range(1, 11):
        client.send(b"%d" % number)
        pulled = client.start_pull(wait_s=5)
        sought = client.driver.start("seek", "orders", "billing", "earliest")
        until_done(client, pulled, sought)
        client.ack(Messages(pulled.result()))
        assert not isinstance(sought.result(), Exception)
    client.seek("new")
    client.send(b"new")
    assert client.pull().payloads == [b"new"]
    assert client.info().created
    assert len(consumers_of(client)) == 1
