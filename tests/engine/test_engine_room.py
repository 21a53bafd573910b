"""Room: asked for before anything changes, and kept back for what frees space."""

from collections.abc import Callable

import pytest
from disk_store import DiskStore
from engine_bench import Bench
from engine_client import Client
from engine_drivers import LocalDriver

from mbctl.errors import DiskFull, OffsetOutOfRange
from mbctl.journal.records import TopicTrimmed
from mbctl.model import KIB, MIB, SubscribeOptions, TopicSettings

Ask = Callable[[Bench], object]


def topic_id(bench: Bench) -> int:
    return bench.client.topic_ids["orders"]


# What takes room that batches may take too.
GROWING: dict[str, Ask] = {
    "send": lambda bench: bench.client.send(b"x"),
    "create_topic": lambda bench: bench.client.create_topic("others"),
    "subscribe": lambda bench: bench.driver.call(
        "subscribe", b"b", "orders", SubscribeOptions(start="earliest")
    ),
}
# What frees space, or may lead to it.
FREEING: dict[str, Ask] = {
    "subscribe again": lambda bench: bench.driver.call(
        "subscribe", b"a", "orders", SubscribeOptions(ack_wait=5.0)
    ),
    "ack": lambda bench: bench.driver.call("ack", b"a", "orders", topic_id(bench), [(0, 2)]),
    "unsubscribe": lambda bench: bench.driver.call("unsubscribe", "orders", "billing"),
    "delete_topic": lambda bench: bench.driver.call("delete_topic", "orders"),
}
# What is not stored.
FREE: dict[str, Ask] = {
    "create_topic that exists": lambda bench: bench.driver.call(
        "create_topic", "orders", TopicSettings(), True
    ),
    "register": lambda bench: bench.client.register(b"c", "more"),
    "look": lambda bench: bench.client.reader(b"look", None, start="earliest"),
    "pull": lambda bench: bench.client.pull(),
    "nack": lambda bench: bench.client.nack([(0, 2)]),
    "extend": lambda bench: bench.client.extend([(0, 2)]),
    "status": lambda bench: bench.client.status(),
}


@pytest.fixture
def full() -> Bench:
    """One whose batches take up all that they may, and a bit more."""
    bench = Bench(max_bytes=300)
    bench.client.register(b"b", "audit")
    bench.client.send(*[b"x" * 15] * 10)
    bench.client.pull()
    assert bench.journal.taken > bench.journal.max_bytes
    return bench


def named(asks: dict[str, Ask]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("ask", asks.values(), ids=asks)


def state(bench: Bench) -> object:
    """All that a verb could have changed."""
    core = bench.engine.core
    subscription = core.subscription("orders", "billing")
    return (
        len(core.topics),
        core.subscription_count,
        core.topics.named("orders").next_offset,
        (subscription.cursor, list(subscription.acknowledged), subscription.ack_wait_ns),
        len(bench.journal.heads),
        len(bench.journal.records),
    )


@named(GROWING)
def test_what_needs_room_is_refused_on_a_full_server_and_changes_nothing(
    full: Bench, ask: Ask
) -> None:
    before = state(full)
    with pytest.raises(DiskFull):
        ask(full)
    full.driver.advance(1)
    assert state(full) == before


@named(FREEING | FREE)
def test_what_frees_space_goes_on_on_a_full_server(full: Bench, ask: Ask) -> None:
    ask(full)


def test_a_full_server_that_was_read_takes_everything_again(full: Bench) -> None:
    full.client.ack([(0, 10)])
    for ask in GROWING.values():
        ask(full)


@named(GROWING | FREEING)
def test_what_is_stored_is_refused_when_nothing_is_left_and_changes_nothing(
    full: Bench, ask: Ask
) -> None:
    full.journal.is_full = True
    before = state(full)
    with pytest.raises(DiskFull):
        ask(full)
    full.driver.advance(1)
    assert state(full) == before
    full.engine.core.check()


@named(FREE)
def test_what_is_not_stored_goes_on_when_nothing_is_left(full: Bench, ask: Ask) -> None:
    full.journal.is_full = True
    ask(full)


def test_an_ack_carried_by_a_pull_is_passed_over_when_nothing_is_left(full: Bench) -> None:
    full.journal.is_full = True
    before = state(full)
    full.ack_with_pull((0, 2))
    full.driver.advance(1)
    assert state(full) == before
    full.journal.is_full = False
    full.client.register()
    assert full.client.pull().offsets[0] == 0


def test_a_send_refused_for_want_of_room_is_refused_the_same_when_it_is_tried_again(
    full: Bench,
) -> None:
    number = full.client.sequences[b"session"] + 1
    for _ in range(2):
        with pytest.raises(DiskFull):
            full.client.send(b"x", sequence=number)
    full.client.ack([(0, 10)])
    with pytest.raises(DiskFull):
        full.client.send(b"x", sequence=number)
    assert full.client.send(b"x").count == 1


def test_what_is_refused_does_not_keep_the_room_that_it_asked_for() -> None:
    store = DiskStore(segment_bytes=16 * KIB)
    client = Client(LocalDriver(store))
    client.create_topic("orders")
    client.reader(b"a", "billing")
    used = store.disk.used
    for _ in range(1_000):
        with pytest.raises(OffsetOutOfRange):
            client.driver.call("ack", b"a", "orders", client.topic_ids["orders"], [(5, 9)])
    assert store.disk.used == used
    client.driver.close()


def test_dead_letters_of_many_go_only_a_little_beyond_the_bound() -> None:
    bench = Bench(max_bytes=8 * MIB)
    client = bench.client
    client.create_topic("dead")
    names = [b"%d" % number for number in range(20)]
    for name in names:
        client.reader(name, name.decode(), max_deliveries=1, dead_letter="dead")
    for _ in range(7):
        bench.send(b"x" * 1000 * KIB)
    for name in names:
        client.nack(client.pull(name, 1), name)
    client.driver.advance(1)
    assert bench.journal.taken <= bench.journal.max_bytes * 9 // 8
    assert client.kept("dead") == 2
    assert sum(client.info(name.decode()).parked for name in names) == len(names) - 2


def test_a_batch_of_which_many_messages_die_is_read_once() -> None:
    bench = Bench()
    client = bench.client
    client.create_topic("dead")
    client.subscribe(max_deliveries=2, dead_letter="dead")
    bench.send(*[b"x"] * 60)
    client.nack(client.pull())
    while client.pull():
        pass
    bench.journal.asked.clear()
    bench.driver.tell("close_member", b"a")
    client.driver.advance(1)
    assert client.kept("dead") == 60
    assert len(bench.journal.asked) == 1


def test_what_is_given_up_on_a_full_disk_is_stored_in_order_when_there_is_room() -> None:
    bench = Bench()
    client = bench.client
    client.create_topic("aged", max_age=10.0)
    client.send(b"x", topic="aged")
    client.driver.advance(5)
    client.send(b"y", topic="aged")
    bench.journal.is_full = True
    client.driver.advance(20)
    assert client.kept("aged") == 0
    bench.journal.is_full = False
    refused = iter([True])
    check_room = bench.journal.check_room

    def flickering(size: int, *, is_reserved: bool = False) -> None:
        if is_reserved and next(refused, False):
            raise DiskFull(size=1, limit=1)
        check_room(size, is_reserved=is_reserved)

    bench.journal.check_room = flickering  # type: ignore[method-assign]
    client.driver.advance(1)
    trims = [record for record in bench.journal.records if isinstance(record, TopicTrimmed)]
    assert [trim.first_offset for trim in trims] == [1, 2]
