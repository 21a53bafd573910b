"""What a subscription has acknowledged, what is missing of it, and who may change that at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from engine_client import Client
from jetstream_driver import JetStreamDriver

from mbctl import batch as batches
from mbctl.engine.jetstream import names
from mbctl.engine.jetstream.address import parse_address
from mbctl.engine.jetstream.confirmed import Confirmed
from mbctl.engine.jetstream.engine import JetStreamEngine, open_engine
from mbctl.engine.jetstream.entries import ConfirmedEntry, confirmed_entry, encode
from mbctl.engine.jetstream.mending import missing_of
from mbctl.engine.jetstream.options import EngineOptions
from mbctl.errors import MbctlError
from mbctl.model import Limits, Range, SubscribeOptions, TopicSettings
from mbctl.server.runtime import AsyncioRuntime

T = TypeVar("T")

TOPIC = "confirmed"
SESSION = b"session".ljust(16)


# --- pure -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranges", "inside", "outside"),
    [
        ([], [], [0, 1, 99]),
        ([(1, 4)], [1, 3], [0, 4, 99]),
        ([(0, 4), (6, 7), (10, 12)], [0, 3, 6, 10, 11], [4, 5, 7, 9, 12]),
    ],
)
def test_entry_has_what_is_in_its_ranges(
    ranges: list[Range], inside: list[int], outside: list[int]
) -> None:
    entry = ConfirmedEntry("epoch", ranges)
    assert all(entry.has(sequence) for sequence in inside)
    assert not any(entry.has(sequence) for sequence in outside)


def test_entry_joins_what_is_added_and_survives_its_encoding() -> None:
    entry = ConfirmedEntry("epoch", [(1, 3), (5, 6)]).with_more([(8, 9), (3, 4), (4, 5)])
    assert entry == ConfirmedEntry("epoch", [(1, 6), (8, 9)])
    assert confirmed_entry(encode(entry)) == entry
    assert confirmed_entry(b"") == ConfirmedEntry()


def test_entry_has_the_batches_that_are_acknowledged_in_part_until_all_of_them_is() -> None:
    entry = ConfirmedEntry("epoch").with_more([(1, 3)], [7, 4]).with_more([], [4, 9])
    assert entry.parts == [4, 7, 9]
    assert not entry.has(4)
    assert entry.with_more([(4, 8)]).parts == [9]
    assert confirmed_entry(encode(entry)) == entry


@pytest.mark.parametrize(
    ("first", "next", "acknowledged", "here", "missing"),
    [
        (1, 6, [], [], [1, 2, 3, 4, 5]),
        (1, 6, [], [2, 5], [1, 3, 4]),
        (1, 6, [(0, 3)], [], [3, 4, 5]),
        (1, 6, [(0, 3), (4, 99)], [3], []),
        (4, 6, [(0, 3)], [], [4, 5]),
        (2, 8, [(1, 3), (5, 6), (9, 12)], [7], [3, 4, 6]),
        (6, 6, [(0, 3)], [], []),
        (7, 6, [], [], []),
    ],
)
def test_missing_is_what_is_neither_acknowledged_nor_here(
    first: int, next: int, acknowledged: list[Range], here: list[int], missing: list[int]
) -> None:
    entry = ConfirmedEntry("epoch", acknowledged)
    assert missing_of(first, next, entry, here.__contains__) == missing


# --- on a cluster -------------------------------------------------------------------------------


async def opened(url: str) -> JetStreamEngine:
    """An engine as a server has one."""
    options = EngineOptions(address=parse_address(url), sync="2m")
    runtime = AsyncioRuntime(asyncio.get_running_loop())
    return await open_engine(runtime, options, Limits())


async def asked(verb: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """The answer of a verb."""
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    verb(*args, **named, done=answer.set_result)
    found = await answer
    if isinstance(found, MbctlError):
        raise found
    return found


async def subscribe(engine: JetStreamEngine, name: str = "billing", member: bytes = b"b") -> None:
    """Let somebody read the topic at an engine."""
    engine.register_subscriber(member, name, lambda _: None)
    await asked(engine.subscribe, member, TOPIC, SubscribeOptions())


def with_two(url: str, work: Callable[[JetStreamEngine, JetStreamEngine], Awaitable[T]]) -> T:
    """What comes of work with two engines on one cluster, and an empty topic ``confirmed``."""

    async def main() -> T:
        engines = [await opened(url) for _ in range(2)]
        try:
            await asked(engines[0].create_topic, TOPIC, TopicSettings(), False)
            return await work(*engines)
        finally:
            await asked(engines[0].delete_topic, TOPIC)
            for engine in engines:
                closed = asyncio.Event()
                engine.close(closed.set)
                await closed.wait()

    return asyncio.run(main())


@pytest.mark.slow
def test_two_servers_that_acknowledge_at_once_lose_nothing_of_each_other(
    clusters: Callable[[int], str],
) -> None:
    async def work(one: JetStreamEngine, other: JetStreamEngine) -> ConfirmedEntry:
        topic = await one.registry.get(TOPIC)
        await subscribe(one)
        both = [Confirmed(engine, topic, "billing") for engine in (one, other)]
        notes = [both[at % 2].note(at) for at in range(40)]
        await asyncio.gather(*notes[::3])
        await asyncio.gather(*(note for at, note in enumerate(notes) if at % 3))
        assert await both[0].settle() == await both[1].settle()
        return await both[0].settle()

    assert with_two(clusters(1), work).acknowledged == [(0, 40)]


@pytest.mark.slow
def test_what_is_acknowledged_of_a_place_that_was_left_changes_nothing(
    clusters: Callable[[int], str],
) -> None:
    async def work(one: JetStreamEngine, other: JetStreamEngine) -> list[Range]:
        topic = await one.registry.get(TOPIC)
        await subscribe(one)
        mine, theirs = (Confirmed(engine, topic, "billing") for engine in (one, other))
        await mine.note(7)
        await theirs.settle()
        await asked(one.seek, TOPIC, "billing", "earliest")
        mine.forget()
        await theirs.note(8)
        await mine.note(9)
        return (await theirs.settle()).acknowledged

    assert with_two(clusters(1), work) == [(9, 10)]


@pytest.mark.slow
def test_server_that_did_not_hear_of_a_move_reads_from_the_new_place(
    clusters: Callable[[int], str],
) -> None:
    async def work(one: JetStreamEngine, other: JetStreamEngine) -> list[int]:
        other.link.on_event = lambda _body, _reply: None
        one.register_publisher(SESSION, lambda _: None)
        await subscribe(other)

        async def send(number: int) -> Any:
            return await asked(one.send, SESSION, number, TOPIC, batches.encode([b"x"]), age_ms=0)

        async def pull() -> Any:
            return await asked(
                other.pull, b"b", TOPIC, max_messages=99, max_bytes=9999, wait_ms=2000
            )

        first = (await send(1)).offset
        got = await pull()
        await asked(one.seek, TOPIC, "billing", "earliest")
        # Of a lease that has ended: it changes nothing.
        await asked(other.ack, b"b", TOPIC, got.topic_id, [(first, first + 1)])
        await send(2)
        return [names.sequence_of(offset) for offset, *_ in (await pull()).pieces]

    assert with_two(clusters(1), work) == [1, 2]


@pytest.mark.slow
def test_server_that_did_not_hear_of_an_end_reads_what_was_subscribed_again(
    clusters: Callable[[int], str],
) -> None:
    async def work(one: JetStreamEngine, other: JetStreamEngine) -> list[int]:
        other.link.on_event = lambda _body, _reply: None
        one.register_publisher(SESSION, lambda _: None)
        await subscribe(other)
        await asked(one.send, SESSION, 1, TOPIC, batches.encode([b"x"]), age_ms=0)

        async def pull() -> Any:
            return await asked(
                other.pull, b"b", TOPIC, max_messages=99, max_bytes=9999, wait_ms=2000
            )

        got = await pull()
        first = got.pieces[0][0]
        assert await asked(other.ack, b"b", TOPIC, got.topic_id, [(first, first + 1)]) == 1
        await asked(one.unsubscribe, TOPIC, "billing")
        await subscribe(one)
        return [names.sequence_of(offset) for offset, *_ in (await pull()).pieces]

    assert with_two(clusters(1), work) == [1]


@pytest.mark.slow
def test_subscription_made_while_all_is_given_up_misses_nothing_after_its_beginning(
    clusters: Callable[[int], str],
) -> None:
    async def work(one: JetStreamEngine, other: JetStreamEngine) -> None:
        for engine in (one, other):
            engine.register_publisher(SESSION, lambda _: None)
        await subscribe(one, "first", b"a")
        topic = await one.registry.get(TOPIC)
        offsets: list[int] = []
        seen: set[bool] = set()

        async def give_up(engine: JetStreamEngine, later: int) -> None:
            for _ in range(later):
                await engine.api.call("INFO")
            await engine.reclaiming.reclaim(topic, at_once=True)

        for turn in range(10):
            member, name = b"b%d" % turn, f"later{turn}"
            other.register_subscriber(member, name, lambda _: None)
            for number in range(5):
                sent = await asked(
                    one.send,
                    SESSION,
                    turn * 5 + number + 1,
                    TOPIC,
                    batches.encode([b"x"]),
                    age_ms=0,
                )
                offsets.append(sent.offset)
            ranges = [(offset, offset + 1) for offset in offsets[-5:]]
            got = await asked(one.pull, b"a", TOPIC, max_messages=99, max_bytes=9999, wait_ms=2000)
            assert [first for first, *_ in got.pieces] == offsets[-5:]
            await asked(one.ack, b"a", TOPIC, got.topic_id, ranges)
            if turn == 0:
                await give_up(one, 0)
            # Both give up what they may, while one of them makes a subscription.
            made, *_ = await asyncio.gather(
                asked(other.subscribe, member, TOPIC, SubscribeOptions(start="earliest")),
                give_up(one, 2 * turn),
                give_up(other, 2 * turn),
            )
            assert made.created
            kept = [offset for offset in offsets if offset >= made.offset]
            seen.add(bool(kept))
            read = await asked(
                other.pull, member, TOPIC, max_messages=99, max_bytes=9999, wait_ms=0
            )
            assert [first for first, *_ in read.pieces] == kept
            await asked(other.unsubscribe, TOPIC, name)
        # Sometimes the one was first, and sometimes the other.
        assert seen == {True, False}

    with_two(clusters(1), work)


@pytest.mark.slow
def test_what_a_killed_server_had_in_hand_comes_before_what_is_newer(
    clusters: Callable[[int], str],
) -> None:
    driver = JetStreamDriver(clusters(1), 1)
    client = Client(driver)
    client.create_topic("orders")
    client.reader()
    for payload in (b"a", b"b", b"c"):
        client.send(payload)
    got = client.pull(count=2)
    client.ack([(got[0].offset, got[0].offset + 1)])
    driver.restart(crash=True)
    client = Client(driver)
    client.send(b"d", session=b"another")
    client.reader()
    again = client.pull()
    assert again.payloads == [b"b", b"c", b"d"]
    assert [message.deliveries for message in again] == [2, 1, 1]
    driver.shut()


@pytest.mark.slow
def test_part_that_was_acknowledged_is_not_granted_by_what_an_old_leader_tells(
    clusters: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = JetStreamDriver(clusters(1), 1)
    client = Client(driver)
    client.create_topic("orders")
    client.reader()
    client.send(b"a", b"b", b"c")
    got = client.pull()
    client.ack([(got[0].offset, got[0].offset + 1)])
    earlier = stored(driver)
    client.ack([(got[2].offset, got[2].offset + 1)])
    driver.restart(crash=True)
    client = Client(driver)
    told: list[tuple[bytes, int]] = [(b"", 0), earlier]
    get = driver.engine.api.get

    async def get_as_of_old(key: str, bucket: str) -> tuple[bytes, int]:
        """An entry as of a node that led before, and stands still until it is asked."""
        return told.pop(0) if told and ".batch." in key else await get(key, bucket)

    monkeypatch.setattr(driver.engine.api, "get", get_as_of_old)
    client.reader()
    assert client.pull().payloads == [b"b"]
    assert not told
    driver.shut()


def stored(driver: JetStreamDriver) -> tuple[bytes, int]:
    """The entry of the first batch, which was read in part."""

    async def read() -> tuple[bytes, int]:
        topic = await driver.engine.registry.get("orders")
        found = await driver.engine.consumers.find(topic, "billing")
        assert found is not None
        key = names.batch_key(topic.topic_id, "billing", found.mark, 1)
        return await driver.engine.api.get(key, names.BUCKET)

    found = driver._run(read())
    assert found[1]
    return found


@pytest.mark.slow
def test_what_a_killed_server_granted_is_acknowledged_at_the_next(
    clusters: Callable[[int], str],
) -> None:
    driver = JetStreamDriver(clusters(1), 1)
    client = Client(driver)
    client.create_topic("orders")
    client.reader()
    client.send(b"a")
    got = client.pull()
    driver.restart(crash=True)
    client = Client(driver)
    client.reader()
    assert client.ack(got) == 1
    assert client.pull().payloads == []
    driver.shut()


@pytest.mark.slow
def test_what_was_given_back_for_later_stays_so_at_the_next_server(
    clusters: Callable[[int], str],
) -> None:
    driver = JetStreamDriver(clusters(1), 1)
    client = Client(driver)
    client.create_topic("orders")
    client.reader()
    client.send(b"a")
    client.nack(client.pull(), delay_s=60)
    client.send(b"b")
    driver.restart(crash=False)
    client = Client(driver)
    client.reader()
    assert client.pull().payloads == [b"b"]
    driver.shut()


@pytest.mark.slow
def test_entry_has_no_holes_of_batches_that_are_gone(clusters: Callable[[int], str]) -> None:
    batch = batches.encode([b"x"])

    async def work(one: JetStreamEngine, _: JetStreamEngine) -> list[Range]:
        one.register_publisher(SESSION, lambda _: None)
        sends = (
            asked(one.send, SESSION, number, TOPIC, batch, age_ms=0) for number in range(1, 1101)
        )
        await asyncio.gather(*sends)
        await asked(one.purge_topic, TOPIC)
        await subscribe(one)
        confirmed = Confirmed(one, await one.registry.get(TOPIC), "billing")
        # Every second one was acknowledged, and the others were given up.
        await asyncio.gather(*(confirmed.note(sequence) for sequence in range(2, 1100, 2)))
        return (await confirmed.settle()).acknowledged

    assert with_two(clusters(1), work) == [(0, 1101)]


def test_entry_of_a_subscription_goes_with_its_topic() -> None:
    key = names.confirmed_key(5, "a.b")
    assert any(key.startswith(keys.removesuffix(">")) for keys in names.topic_keys(5))
    assert not any(key.startswith(keys.removesuffix(">")) for keys in names.topic_keys(6))
