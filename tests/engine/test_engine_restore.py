"""The engine's beginning, from what a journal held."""

from array import array

from engine_client import Client, session_id
from engine_drivers import AT_HAND, LocalDriver, TestJournal, VirtualRuntime

from mbctl import batch as batches
from mbctl.engine.local import LocalEngine
from mbctl.engine.restore import Clamped
from mbctl.journal.records import (
    BatchHead,
    BatchRun,
    Journal,
    Recovered,
    RecoveredTopic,
    SessionState,
    SubscriptionState,
    TopicTrimmed,
)
from mbctl.model import NS_PER_S, Limits, Range, Receipt, TopicSettings


class FixedStore:
    """A journal that held what a test says."""

    capabilities = AT_HAND

    def __init__(self, recovered: Recovered) -> None:
        self.recovered = recovered
        self.journal = TestJournal()
        for number in range(10):
            body = batches.encode([b"%d" % (2 * number), b"%d" % (2 * number + 1)])
            self.journal.append_batch(BatchHead(5, 2 * number, 2, 7, b"s", number + 1), body)
        self.journal.heads.clear()

    def open(self, runtime: VirtualRuntime, limits: Limits) -> tuple[Journal, Recovered]:
        return self.journal, self.recovered


def state(cursor: int, acknowledged: list[Range], subscriber: str = "billing") -> SubscriptionState:
    return SubscriptionState(5, subscriber, cursor, acknowledged, 9 * NS_PER_S, 3)


def begun_with(
    *subscriptions: SubscriptionState, first_offset: int = 0
) -> tuple[LocalDriver, Client, TestJournal]:
    """An engine whose topic ``orders`` has ten batches of two messages, at places 1 to 10."""
    run = BatchRun(
        array("Q", range(0, 20, 2)),
        array("Q", range(1, 11)),
        array("q", [7] * 10),
        array("I", [10] * 10),
        20,
    )
    topic = RecoveredTopic(
        5, "orders", TopicSettings(), 3, first_offset, 20, 7, [run], list(subscriptions)
    )
    session = SessionState(session_id(b"session"), [(3, 5, 18, 2), (4, 4, 0, 1)])
    store = FixedStore(Recovered(9, [topic], [session]))
    driver = LocalDriver(store)
    client = Client(driver)
    client.topic_ids["orders"] = 5
    client.sequences[b"session"] = 4
    return driver, client, store.journal


def test_everything_recovered_is_served() -> None:
    driver, client, _ = begun_with(state(4, [(6, 7)]))
    client.register()
    assert client.pull().payloads == [b"%d" % offset for offset in (4, 5, *range(7, 20))]
    assert client.send(b"x", b"y", sequence=3) == Receipt("orders", 18, 2)
    assert client.send(b"x", sequence=4, topic="gone") == Receipt("gone", 0, 1)
    assert client.send(b"x").offset == 20
    client.create_topic("others")
    assert client.topic_ids["others"] == 9
    assert driver.engine.clamped == []


def test_places_that_nobody_needs_are_released() -> None:
    _, _, journal = begun_with(state(8, []), first_offset=7)
    assert journal.released == [1, 2, 3, 4]
    assert journal.records == [TopicTrimmed(5, 8)]


def test_a_beginning_at_which_all_fits_stores_nothing() -> None:
    _, _, journal = begun_with(state(4, []), first_offset=4)
    assert journal.records == []
    assert journal.released == [1, 2]


def test_a_place_beyond_the_end_is_told_and_stored_as_it_is_now() -> None:
    driver, client, journal = begun_with(state(25, [(30, 40)]), state(2, [(18, 22)], "audit"))
    assert driver.engine.clamped == [
        Clamped("orders", "billing", claimed=40, cursor=20),
        Clamped("orders", "audit", claimed=22, cursor=2),
    ]
    # Stored before anything else: what is sent now must not count as read after a crash.
    assert journal.records[:2] == [state(20, []), state(2, [(18, 20)], "audit")]
    assert journal.commits > 0
    client.register()
    client.send(*[b"new"] * 30)
    assert client.pull().offsets == list(range(20, 50))


def test_an_engine_without_a_journal_to_recover_from_gives_ids_by_time() -> None:
    runtime = VirtualRuntime()
    engine = LocalEngine(TestJournal(), runtime)
    topic, _ = engine.core.create_topic("x", TopicSettings(), exist_ok=False, created=0)
    assert topic.topic_id == runtime.wall_ns() // 1000
