"""Moving live batches out of mostly dead segments: how much disk is used, and what may go wrong."""

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from journal_world import DATA, SMALL, World
from simulated_disk import SimulatedDisk
from test_journal_faults import FillingWorld

from mbctl.journal.census import BATCH_BYTES
from mbctl.journal.format import HEAD_BYTES, is_cold, position_of, segment_name, segment_of
from mbctl.journal.records import Damaged
from mbctl.model import KIB, NS_PER_S

OPTIONS = msgspec.structs.replace(SMALL, segment_bytes=16 * KIB, snapshot_bytes=16 * KIB)
TINY = msgspec.structs.replace(SMALL, segment_bytes=2048, snapshot_bytes=2048)


def traffic(world: World, rounds: int, *, every: int = 6, size: int = 150) -> None:
    """One topic that nobody reads gets a message now and then; another is read at once."""
    topics = {topic.created.name: topic_id for topic_id, topic in world.naive.topics.items()}
    stuck = topics.get("stuck") or world.topic("stuck")
    busy = topics.get("busy") or world.topic("busy")
    for topic in (stuck, busy):
        if not world.naive.topics[topic].places:
            world.subscribe(topic)
    for number in range(rounds):
        if every and number % every == 0:
            world.send(stuck, 60, session=b"t" * 16)
        world.send(busy, size)
        world.commit()
        end = world.naive.topics[busy].next_offset
        world.ack(busy, end - 1, end)
        world.trim(busy, end)
        world.commit()
        world.turns.advance(NS_PER_S // 20)


def live_bytes(world: World) -> int:
    """Bytes of the records of all batches that are kept, and of what footers say of them."""
    return sum(
        len(body) + BATCH_BYTES
        for topic in world.naive.topics.values()
        for first, count, _, body in topic.batches
        if first + count > topic.first_offset
    )


def colds(world: World) -> list[str]:
    """The cold segments that are there."""
    return [path for path in world.disk.tree() if path.endswith(".cold")]


def again(world: World) -> World:
    """The same journal after a power cut, with all that it held."""
    opened = World(world.disk.power_cut(), world.options, items=world.items)
    assert opened.seen() == world.naive.seen()
    return opened


# --- how much disk is used --------------------------------------------------------------------


@pytest.mark.slow
def test_disk_use_stays_under_twice_what_is_alive_and_two_segments() -> None:
    options = msgspec.structs.replace(OPTIONS, segment_bytes=64 * KIB)
    world = World(SimulatedDisk(), options)
    worst = 0.0
    for _ in range(400):
        traffic(world, 5, every=5, size=4000)
        bound = 2 * live_bytes(world) + 2 * options.segment_bytes
        worst = max(worst, world.journal.taken / bound)
    assert world.moved > 100
    assert worst < 1
    # All that was ever written is many times that.
    written = sum(len(item[1]) for item in world.items if isinstance(item, tuple))
    assert written > 100 * options.segment_bytes
    assert written > 10 * world.journal.taken
    assert len(colds(world)) < 8
    opened = again(world)
    traffic(opened, 40)
    again(opened)


def test_nothing_is_moved_where_a_subscription_follows() -> None:
    world = World(SimulatedDisk(), OPTIONS)
    topic = world.topic()
    world.subscribe(topic)
    for _ in range(300):
        world.send(topic, 150)
        world.commit()
        end = world.naive.topics[topic].next_offset
        # It lags behind by a segment and a half.
        if end > 12:
            world.ack(topic, end - 13, end - 12)
            world.trim(topic, end - 12)
            world.commit()
        world.turns.advance(NS_PER_S // 20)
    assert world.moved == 0


def test_what_was_moved_is_read_at_its_new_place_and_deleted_when_it_is_dead() -> None:
    world = World(SimulatedDisk(), OPTIONS)
    traffic(world, 300)
    stuck = world.naive.topics[1]
    places = [world.places[1, first] for first, *_ in stuck.batches]
    assert any(is_cold(segment_of(place)) for place in places)
    assert world.read(places) == [body for *_, body in stuck.batches]
    world.ack(1, 0, stuck.next_offset)
    world.trim(1, stuck.next_offset)
    world.commit()
    world.turns.advance(3 * NS_PER_S)
    assert colds(world) == []
    again(world)


def test_order_and_sessions_are_untouched() -> None:
    world = World(SimulatedDisk(), OPTIONS)
    traffic(world, 300)
    for _ in range(3):
        world = again(world)
        traffic(world, 100)
    (topic,) = [t for t in world.recovered.topics if t.name == "stuck"]
    firsts = [first for run in topic.runs for first in run.firsts]
    assert firsts == sorted(set(firsts))
    assert len(colds(world)) >= 1


def moving(**more: Any) -> World:
    """A world in which nothing was moved yet, and something will be as soon as it may."""
    world = World(SimulatedDisk(), msgspec.structs.replace(OPTIONS, **more))
    world.journal.index = None
    traffic(world, 300)
    assert world.moved == 0
    world.journal.index = world
    return world


def test_a_topic_that_ends_at_any_moment_of_a_move_leaves_nothing() -> None:
    found = set()
    for steps in range(0, 120, 13):
        world = moving()
        world.look_around()
        for _ in range(steps):
            world.turns.step()
        found.add((world.moved > 0, bool(colds(world))))
        world.delete(1)
        world.commit()
        world.turns.advance(5 * NS_PER_S)
        assert colds(world) == [], f"deleted after {steps} steps"
        again(world)
    assert len(found) > 1


def test_a_read_under_way_keeps_what_it_reads_until_it_is_answered() -> None:
    world = moving(tail_bytes=0)
    wanted = [body for *_, body in world.naive.topics[1].batches]
    old = [world.places[1, first] for first, *_ in world.naive.topics[1].batches]
    reader = world.turns.workers[1]
    found: list[list[bytes]] = []
    world.journal.read(old, found.append)
    held, reader.jobs = reader.jobs, deque()
    world.turns.advance(5 * NS_PER_S)
    assert world.moved > 0
    reader.jobs.extendleft(held)
    there = len(world.disk.tree())
    world.turns.advance(5 * NS_PER_S)
    assert [bytes(body) for body in found[0]] == wanted
    assert len(world.disk.tree()) < there, "what was emptied is not deleted then"
    assert world.read([world.places[1, f] for f, *_ in world.naive.topics[1].batches]) == wanted


def test_what_is_damaged_stays_where_it_is_and_all_else_is_moved() -> None:
    world = moving(tail_bytes=0)
    stuck = world.naive.topics[1].batches
    damaged = next(first for first, *_ in stuck[5:])
    place = world.places[1, damaged]
    path = f"{DATA}/{segment_name(segment_of(place))}"
    content = bytearray(world.disk.read_file(path))
    content[position_of(place) + HEAD_BYTES + 3] ^= 1
    world.disk.write_file(path, bytes(content))
    world.turns.advance(5 * NS_PER_S)
    assert world.failures == []
    assert world.places[1, damaged] == place
    assert is_cold(segment_of(world.places[1, stuck[0][0]]))
    assert path in world.disk.tree()
    bodies = world.read([world.places[1, first] for first, *_ in stuck])
    told = [first for (first, *_), body in zip(stuck, bodies, strict=True) if type(body) is Damaged]
    assert told == [damaged]
    # It is not tried again and again.
    before = len(world.disk.calls)
    world.turns.advance(60 * NS_PER_S)
    assert len(world.disk.calls) - before < 10


@pytest.mark.parametrize(("stuck_size", "busy_size"), [(5, 3000), (3000, 30)])
def test_sizes_that_differ_much_do_not_mislead_about_what_is_alive(
    stuck_size: int, busy_size: int
) -> None:
    options = msgspec.structs.replace(OPTIONS, segment_bytes=64 * KIB)
    world = World(SimulatedDisk(), options)
    stuck, busy = world.topic("stuck"), world.topic("busy")
    world.subscribe(stuck)
    world.subscribe(busy)
    worst = 0.0
    few = stuck_size > busy_size
    for number in range(250 if few else 700):
        for _ in range(1 if few else 6):
            if not few or number % 4 == 0:
                world.send(stuck, stuck_size)
        for _ in range(30 if few else 1):
            world.send(busy, busy_size)
        end = world.naive.topics[busy].next_offset
        world.ack(busy, world.naive.topics[busy].first_offset, end)
        world.trim(busy, end)
        world.commit()
        world.turns.advance(NS_PER_S // 10)
        if number % 10 == 0:
            bound = 2 * live_bytes(world) + 2 * options.segment_bytes
            worst = max(worst, world.journal.taken / bound)
    assert world.moved > 50
    assert worst < 1


def test_a_journal_at_rest_does_nothing() -> None:
    world = moving()
    world.turns.advance(10 * NS_PER_S)
    assert world.moved > 0
    calls, timers = len(world.disk.calls), world.turns.fired
    world.turns.advance(1000 * NS_PER_S)
    assert len(world.disk.calls) == calls
    assert world.turns.fired - timers < 10


# --- a full disk ----------------------------------------------------------------------------------


def fill_and_free(world: FillingWorld, rounds: int) -> None:
    """Fill the disk, free all but a little of every segment, and expect room for more."""
    stuck, busy = world.topic("stuck"), world.topic("busy")
    world.subscribe(stuck)
    world.subscribe(busy)
    world.commit()
    for number in range(rounds):
        count = 0
        while world.ask_and_send(busy, 500):
            count += 1
            if count % 12 == 0:
                world.ask_and_send(stuck, 20)
        assert count > 20, f"no room came back in round {number}"
        assert world.ask_and_ack(busy, world.naive.topics[busy].next_offset)
        for _ in range(8):
            # To be refused is to ask for room.
            world.turns.advance(NS_PER_S)
            if not world.ask_and_send(busy, 500):
                world.turns.advance(NS_PER_S)
    assert world.failures == []
    assert world.moved > rounds
    assert World(world.disk.power_cut(), world.options).seen() == world.naive.seen()


ROOMY = msgspec.structs.replace(SMALL, segment_bytes=8 * KIB, snapshot_bytes=16 * KIB)


def test_a_bound_is_no_dead_end_for_a_subscription_that_is_stuck() -> None:
    bound = 128 * KIB
    world = FillingWorld(SimulatedDisk(), msgspec.structs.replace(ROOMY, max_bytes=bound))
    taken = []
    world.journal.commit = watched(world.journal.commit, lambda: taken.append(world.journal.taken))  # type: ignore[method-assign]
    fill_and_free(world, 12)
    # Above the bound is what was moved, for as long as both copies are there.
    assert max(taken) <= bound + bound // 8 // 2 + 2 * KIB


@pytest.mark.parametrize("max_bytes", [None, 1 << 30])
def test_a_full_disk_is_no_dead_end_for_a_subscription_that_is_stuck(
    max_bytes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mbctl.journal.space._kept_free", lambda total: 4 * KIB)
    disk = SimulatedDisk(256 * KIB + 100 * KIB, page_bytes=256)
    fill_and_free(FillingWorld(disk, msgspec.structs.replace(ROOMY, max_bytes=max_bytes)), 12)


def watched(call: Callable[..., Any], then: Callable[[], Any]) -> Callable[..., Any]:
    """The same, and something after it."""

    def both(*args: Any, **named: Any) -> Any:
        result = call(*args, **named)
        then()
        return result

    return both
