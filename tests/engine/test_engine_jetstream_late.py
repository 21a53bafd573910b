"""Attempts of a request that the cluster executes late, when who asked has long gone on.

Each request that has no answer is sent again; what a node that stands still has taken in before
it is executed when that goes on. Here all that was asked is overheard, and asked once more.
"""

from collections.abc import Callable, Iterator

import nats
import pytest
from engine_client import Client
from jetstream_driver import driver_of
from nats.aio.msg import Msg

from mbctl.engine.jetstream import marks

pytestmark = pytest.mark.slow


@pytest.fixture(params=[1, 3], ids=["one-node", "three-nodes"])
def client(request: pytest.FixtureRequest, clusters: Callable[[int], str]) -> Iterator[Client]:
    client = Client(driver_of(clusters(request.param), request.param)())
    client.create_topic("orders")
    yield client
    client.driver.shut()


class Overheard:
    """All changes of consumers that were asked for, to be asked for once more."""

    def __init__(self, client: Client) -> None:
        self._run = client.driver._run
        self._asked: list[Msg] = []
        self._other = self._run(self._listen(client.driver.url))

    async def _listen(self, url: str) -> nats.NATS:
        async def note(message: Msg) -> None:
            self._asked.append(message)

        other = await nats.connect(url.split(","))
        for verb in ("CREATE", "RESET", "DELETE"):
            await other.subscribe(f"$JS.API.CONSUMER.{verb}.>", cb=note)
        await other.flush()
        return other

    def arrive_late(self, verb: str, asked: list[Msg]) -> int:
        """Have the requests of this verb executed once more; how many that are."""
        some = [one for one in asked if one.subject.startswith(f"$JS.API.CONSUMER.{verb}.")]
        for one in some:
            self._run(self._other.request(one.subject, one.data, timeout=5))
        return len(some)

    def so_far(self) -> list[Msg]:
        """What was asked for until now."""
        self._run(self._other.flush())
        return list(self._asked)

    def close(self) -> None:
        self._run(self._other.close())


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
    asked = overheard.so_far()
    client.reader(start="earliest")
    assert overheard.arrive_late("DELETE", asked)
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
    asked = overheard.so_far()
    client.seek("earliest")
    for verb in ("CREATE", "RESET", "DELETE"):
        overheard.arrive_late(verb, asked)
    assert client.info().unread_batches == 1
    assert client.pull().payloads == [b"a"]


def test_late_beginning_of_a_subscription_that_has_ended_holds_nothing(
    client: Client, overheard: Overheard, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.reader(b"k", name="keeper")
    client.reader()
    client.driver.call("unsubscribe", "orders", "billing")
    assert overheard.arrive_late("CREATE", overheard.so_far())
    infos = client.driver.call("subscriptions", "orders")
    assert [info.subscriber for info in infos] == ["keeper"]
    client.send(b"a")
    # As if two minutes had passed.
    monkeypatch.setattr(marks, "LEFT_NS", 0)
    assert client.ack(client.pull(b"k"), b"k") == 1
    client.driver.settle()
    assert client.kept() == 0
