"""What takes long is done a portion a turn: answers to thousands, lists of everything."""

from itertools import pairwise

import pytest
from engine_bench import Bench
from engine_drivers import Pending

from mbctl.errors import ServerStopping, TopicNotFound
from mbctl.model import Limits

MANY = 160


@pytest.fixture
def crowded() -> Bench:
    """A topic with many subscriptions, each with a pull that waits, and a quiet topic."""
    bench = Bench(Limits(topic_subscriptions=1_000))
    bench.client.create_topic("quiet")
    for number in range(MANY):
        bench.client.reader(b"%d" % number, f"s{number:03}")
    bench.client.reader(b"q", "quiet", topic="quiet")
    return bench


def waiting(bench: Bench) -> list[Pending]:
    return [bench.client.start_pull(b"%d" % number, wait_s=3600) for number in range(MANY)]


def answered(pulls: list[Pending]) -> int:
    return sum(pull.done for pull in pulls)


def test_those_that_waited_for_one_message_are_answered_over_several_turns(crowded: Bench) -> None:
    pulls = waiting(crowded)
    crowded.client.start_send(b"x")
    counts = []
    while answered(pulls) < MANY:
        crowded.runtime.run_turn()
        counts.append(answered(pulls))
    assert len(counts) > 3
    assert max(later - earlier for earlier, later in pairwise(counts)) <= 12
    assert all(len(pull.result().pieces) == 1 for pull in pulls)


def test_one_that_waits_for_another_topic_does_not_wait_for_many(crowded: Bench) -> None:
    pulls = waiting(crowded)
    quiet = crowded.client.start_pull(b"q", topic="quiet", wait_s=3600)
    crowded.client.start_send(b"x")
    crowded.client.start_send(b"y", topic="quiet")
    while not quiet.done:
        crowded.runtime.run_turn()
    assert answered(pulls) < 40
    crowded.runtime.run_turns()
    assert answered(pulls) == MANY


def test_closing_waits_until_all_that_waited_are_answered(crowded: Bench) -> None:
    pulls = waiting(crowded)
    crowded.client.start_send(b"x")
    crowded.runtime.run_turn()
    assert answered(pulls) < MANY
    closed = crowded.start("close")
    assert closed.done
    assert answered(pulls) == MANY


@pytest.mark.parametrize("verb", ["purge_topic", "delete_topic"])
def test_what_was_granted_is_kept_until_it_is_read(crowded: Bench, verb: str) -> None:
    pulls = waiting(crowded)
    crowded.client.start_send(b"x")
    crowded.runtime.run_turn()
    crowded.start(verb, "orders")
    assert all(crowded.pulled(pull) == [b"x"] for pull in pulls)
    assert len(crowded.journal.released) == 1
    assert crowded.journal.taken == 0


def test_space_comes_back_while_others_are_woken_all_the_time(crowded: Bench) -> None:
    waiting(crowded)
    crowded.client.start_send(b"x")
    crowded.runtime.run_turn()
    crowded.driver.start("purge_topic", "orders")
    quiet = 0
    while not crowded.journal.released:
        crowded.client.start_pull(b"q", topic="quiet", wait_s=3600)
        crowded.client.start_send(b"y", topic="quiet")
        crowded.runtime.run_turn()
        quiet += 1
    assert quiet < MANY


def test_what_was_granted_is_read_where_it_is_moved_to(crowded: Bench) -> None:
    pulls = waiting(crowded)
    crowded.client.start_send(b"x")
    crowded.runtime.run_turn()
    assert crowded.journal.index is not None
    topic_id, [place] = crowded.client.topic_ids["orders"], crowded.journal.places
    elsewhere = crowded.journal.move(place)
    assert crowded.journal.index.move(topic_id, [(0, place, elsewhere)]) == []
    assert 0 < answered(pulls) < MANY
    crowded.runtime.run_turns()
    assert all(crowded.pulled(pull) == [b"x"] for pull in pulls)


def test_a_long_list_is_not_made_in_one_turn_and_is_whole(crowded: Bench) -> None:
    listing = crowded.driver.start("subscriptions", "orders")
    assert not listing.done
    crowded.runtime.run_turns()
    names = [info.subscriber for info in listing.result()]
    assert names == sorted(names)
    # The bench has a subscription of its own.
    assert len(names) == MANY + 1


def test_a_turn_has_a_portion_of_one_list_however_many_are_made(crowded: Bench) -> None:
    listings = [crowded.driver.start("subscriptions", None) for _ in range(5)]
    counts = []
    while answered(listings) < 5:
        crowded.runtime.run_turn()
        counts.append(answered(listings))
    assert max(later - earlier for earlier, later in pairwise(counts)) == 1


def test_what_ends_while_a_list_is_made_is_left_out(crowded: Bench) -> None:
    listing = crowded.driver.start("subscriptions", None)
    crowded.client.driver.start("unsubscribe", "orders", "s159")
    crowded.client.driver.start("unsubscribe", "orders", "s000")
    crowded.runtime.run_turns()
    names = {info.subscriber for info in listing.result()}
    assert "s159" not in names
    assert {"s000", "s158", "quiet"} <= names


def test_a_list_that_is_not_made_when_the_engine_closes_is_refused(crowded: Bench) -> None:
    listing = crowded.driver.start("subscriptions", None)
    crowded.start("close")
    with pytest.raises(ServerStopping):
        listing.result()


def test_a_list_of_the_subscriptions_of_no_topic_is_refused(crowded: Bench) -> None:
    with pytest.raises(TopicNotFound):
        crowded.driver.start("subscriptions", "nowhere").result()
