"""Crashes at every moment of small workloads: what is recovered is what was durable, or more.

Each workload is run once; then every state that a kill or a power cut may leave at any
moment of it is opened, checked, written to and cut off again. The states of the opening
itself are opened too.
"""

import random
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from crash_states import CrashState, crash_states
from journal_world import SMALL, TEARING, Expectations, World, check_goes_on, noted
from simulated_disk import SimulatedDisk

Workload = Callable[[World], None]

BILLING, AUDIT = "billing", "audit"


def begin(world: World) -> None:
    """Nothing but the first start."""


def begin_and_close(world: World) -> None:
    world.close()


def send_and_acknowledge(world: World) -> None:
    topic = world.topic()
    world.subscribe(topic)
    world.commit()
    world.send(topic)
    world.commit()
    world.send(topic, count=3)
    world.ack(topic, 0, 1)
    world.commit()
    world.quiet()


def overlapping_groups(world: World) -> None:
    """Groups that gather while others are on their way, and reach over ends of segments."""
    topic = world.topic()
    for size in (10, 300, 20, 20, 500, 20):
        world.send(topic, size)
        world.commit(is_waited_for=False)
        world.turns.step()
    world.turns.run()


def one_long_group(world: World) -> None:
    """One commit over several segments."""
    first, second = world.topic("first"), world.topic("second")
    for number in range(8):
        world.send(first if number % 3 else second, 150)
    world.commit()
    world.quiet()


def larger_than_a_segment(world: World) -> None:
    topic = world.topic()
    world.send(topic, 100)
    world.commit()
    world.send(topic, 3 * SMALL.segment_bytes)
    world.commit()
    world.send(topic, 100)
    world.commit()


def full_segments(world: World) -> None:
    """Segments that are sealed, and snapshots of them."""
    topic = world.topic()
    world.subscribe(topic, cursor=2)
    for _ in range(8):
        world.send(topic, 250)
        world.commit()
    world.quiet()


def reclaim(world: World) -> None:
    """Acknowledged messages are trimmed, and the segments that held them deleted."""
    topic = world.topic()
    world.subscribe(topic)
    for _ in range(6):
        world.send(topic, 300)
        world.commit()
    world.ack(topic, 1, 3)
    world.commit()
    world.ack(topic, 0, 1)
    world.trim(topic, 3)
    world.commit()
    for first in (3, 5):
        world.ack(topic, first, first + 1)
        world.trim(topic, 4)
        world.send(topic, 300)
        world.commit()
    world.quiet()


def endings(world: World) -> None:
    """Subscriptions and topics end, and a name is used again."""
    topic = world.topic("again")
    world.subscribe(topic, BILLING)
    world.subscribe(topic, AUDIT)
    for _ in range(3):
        world.send(topic, 300)
    world.commit()
    world.unsubscribe(topic, BILLING)
    world.commit()
    world.delete(topic)
    other = world.topic("again")
    world.send(other, 300)
    world.commit()
    world.subscribe(other, BILLING)
    world.commit()
    world.delete(other)
    world.commit()
    world.quiet()


def bury_and_give_up(world: World) -> None:
    """Dead letters, counts of deliveries, and topics that drop what nobody has read."""
    orders, dead = world.topic("orders"), world.topic("dead")
    world.subscribe(orders, BILLING, max_deliveries=3, dead_letter="dead")
    world.subscribe(orders, AUDIT)
    for _ in range(5):
        world.send(orders, 200)
    world.commit()
    world.redeliver(orders, (0, 2, 2, False), (3, 4, 3, True))
    world.commit()
    world.bury(orders, 0, dead)
    world.redeliver(orders, (1, 2, 3, False), (3, 4, 0, False))
    world.bury(orders, 2, dead)
    world.commit()
    world.trim(orders, 4, "dropped")
    world.send(orders, 200)
    world.commit()
    world.redeliver(orders, (4, 6, 2, False))
    world.trim(orders, 5, "expired")
    world.commit()
    world.trim(dead, 2, "purged")
    world.commit()
    world.quiet()


def move(world: World) -> None:
    """Segments of which little is alive are emptied, then the one that this was moved to."""
    stuck, busy, dead = world.topic("stuck"), world.topic("busy"), world.topic("dead")
    world.subscribe(stuck)
    world.subscribe(busy)
    for number in range(5):
        world.send(stuck, 20, session=b"t" * 16)
        for _ in range(2):
            world.send(busy, 200)
        if number == 1:
            world.bury(busy, 0, dead)
        end = world.naive.topics[busy].next_offset
        world.ack(busy, 0, end)
        world.trim(busy, end)
        world.commit()
    world.look_around()
    world.turns.run()
    for kept in (3, 4):
        world.ack(stuck, 0, kept)
        world.trim(stuck, kept)
        world.commit()
    world.look_around()
    world.quiet()


def close_cleanly(world: World) -> None:
    topic = world.topic()
    world.subscribe(topic)
    for _ in range(4):
        world.send(topic, 250)
    world.commit()
    world.ack(topic, 0, 2)
    world.trim(topic, 2)
    world.close()


WORKLOADS: list[Workload] = [
    begin,
    begin_and_close,
    send_and_acknowledge,
    overlapping_groups,
    one_long_group,
    larger_than_a_segment,
    full_segments,
    reclaim,
    endings,
    bury_and_give_up,
    move,
    close_cleanly,
]


# Of these fewer states are looked at where there is little time.
LONG = (bury_and_give_up, move)


def stride_of(workload: Workload) -> int:
    """Of so many states one is looked at."""
    return 4 if workload in LONG else 1


def done(workload: Workload, world: World | None = None) -> World:
    """A world in which the workload has been done."""
    world = world or World()
    workload(world)
    world.turns.run()
    assert world.failures == []
    assert world.durable == len(world.items)
    return world


def check(world: World, *, every: int, again: int, stride: int = 1, **how: Any) -> int:
    """Check all crash states of a world's trace, or one of ``stride``; how many.

    With every so manieth it is gone on, and of every so manieth the opening is checked too.
    """
    expectations = Expectations(world.items)
    count = 0
    for state in islice(crash_states(world.start, world.disk.trace, **how), 0, None, stride):
        count += 1
        with noted(state.place):
            opened = expectations.check(state)
            if count % again == 0:
                check_openings(expectations, state, opened, every)
            elif count % every == 0:
                check_goes_on(opened)
    return count


def check_openings(
    expectations: Expectations, state: CrashState, opened: World, every: int
) -> None:
    """Check all crash states of what was done to open one, and some of doing that again."""
    for count, again in enumerate(expectations.check_again(state, opened), start=1):
        if count % every == 0:
            check_goes_on(again)


def small_pages(seed: int | None = None) -> World:
    """A world on a disk that tears records, its workers in an order drawn from ``seed``."""
    chance = None if seed is None else random.Random(seed)
    return World(SimulatedDisk(page_bytes=TEARING), chance=chance)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_crash_leaves_what_was_durable(workload: Workload) -> None:
    world = done(workload, World(SimulatedDisk(page_bytes=256)))
    assert (
        check(world, stride=2 * stride_of(workload), every=10, again=500, sampled=1, alone=1) > 30
    )


@pytest.mark.slow
@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_crash_leaves_what_was_durable(workload: Workload) -> None:
    check(done(workload, small_pages()), stride=stride_of(workload), every=3, again=110)


@pytest.mark.slow
@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_crash_leaves_what_was_durable_when_groups_gather_and_names_come_out_of_order(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mbctl.journal.disk._INLINE_NS", -1)
    for seed in range(2):
        world = done(workload, small_pages(seed))
        check(world, stride=stride_of(workload), every=5, again=230, ordered=False)


@pytest.mark.slow
@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_crash_leaves_what_was_durable_on_pages_that_hold_several_records(
    workload: Workload,
) -> None:
    world = done(workload, World(SimulatedDisk()))
    check(world, stride=stride_of(workload), every=3, again=110)
