"""Opening a journal: what once went wrong, and what must stay so over many starts."""

from collections.abc import Callable

import msgspec
import pytest
from crash_states import crash_states
from journal_world import DATA, SMALL, Expectations, World, check_goes_on, noted
from simulated_disk import Call, SimulatedDisk
from test_journal_crash import (
    WORKLOADS,
    Workload,
    done,
    endings,
    one_long_group,
    overlapping_groups,
    reclaim,
)

from mbctl.journal.format import segment_name


def segments(disk: SimulatedDisk) -> list[str]:
    """The names of all segments."""
    return [path for path in disk.tree() if path.endswith(".segment")]


def kept(disk: SimulatedDisk) -> dict[str, bytes]:
    """What is in lost+found, by its name there."""
    found = f"{DATA}/lost+found/"
    return {p.removeprefix(found): d for p, d in disk.tree().items() if p.startswith(found) and d}


def again(world: World) -> World:
    """The same journal after a kill, with all that it held."""
    opened = World(world.disk.killed(), world.options)
    opened.begin_with(world.items)
    assert opened.seen() == world.naive.seen()
    return opened


def torn(disk: SimulatedDisk, name: str) -> SimulatedDisk:
    """The same disk with the beginning of a record after the last of a segment."""
    data = disk.read_file(f"{DATA}/{name}")
    end = len(data.rstrip(b"\0"))
    disk.write_file(f"{DATA}/{name}", data[:end] + b"mbRe torn" + data[end + 9 :])
    return disk


class Killed(BaseException):
    """The process is gone."""


def killed_while_sealing(number: int) -> Callable[[Call], bool]:
    """Be killed when the end of a segment is forced to disk."""

    def when(call: Call) -> bool:
        if call.kind == "fsync" and segment_name(number) in call.path:
            raise Killed
        return False

    return when


def send_until_killed(world: World, topic: int) -> None:
    """Send; this ends by the process being killed."""
    for _ in range(100):
        world.send(topic, 300)
        world.commit()


def test_record_numbers_go_on_where_a_snapshot_knows_of_more_than_the_segments() -> None:
    world = World()
    pinned, passing = world.topic("pinned"), world.topic("passing")
    world.send(pinned, 300)
    world.commit()
    while len(segments(world.disk)) < 5:
        world.send(passing, 300)
        world.commit()
    world.delete(passing)
    world.close()
    # What is dead is taken away, also the segment just before where replay begins.
    left = world.disk.power_cut()
    for _ in range(4):
        started = World(left)
        started.journal._keeper.tidy(is_pressed=True)
        started.turns.run()
        left = left.power_cut()
    opened = World(left)
    opened.begin_with(world.items)
    check_goes_on(opened)


def test_a_footer_that_was_not_synced_is_written_again() -> None:
    world = World()
    topic = world.topic()
    while len(segments(world.disk)) < 3:
        world.send(topic, 300)
        world.commit()

    world.disk.fail(killed_while_sealing(2), OSError())
    with pytest.raises(Killed):
        send_until_killed(world, topic)
    opened = World(world.disk.killed(), msgspec.structs.replace(SMALL, snapshot_bytes=1))
    opened.turns.run()
    opened.journal._keeper.tidy(is_pressed=True)
    opened.turns.run()
    seen = opened.seen()
    expectations = Expectations(world.items)
    for state in crash_states(opened.disk, [], ordered=False):
        with noted(state.place):
            assert World(state.disk).seen() == seen
    assert seen in expectations.all[world.durable :]


def test_batches_are_read_wherever_in_their_segment_they_are() -> None:
    world = World()
    topic = world.topic()
    for size in range(150, 420, 7):
        world.send(topic, size)
        world.commit()
    assert again(world).failures == []


def test_what_is_cut_off_is_kept_each_time() -> None:
    world = World(options=msgspec.structs.replace(SMALL, segment_bytes=8192))
    topic = world.topic()
    world.send(topic)
    world.commit()
    for count in range(1, 4):
        active = world.journal._space.active
        left = torn(world.disk.killed(), segment_name(active.number))
        opened = World(left, world.options)
        opened.begin_with(world.items)
        assert len([note for note in opened.notes if "never acknowledged" in note]) == 1
        assert [*kept(opened.disk).values()] == [b"mbRe torn"] * count
        opened.send(topic)
        opened.commit()
        world = opened


def test_what_is_cut_off_never_comes_back() -> None:
    world = World(options=msgspec.structs.replace(SMALL, segment_bytes=8192))
    topic = world.topic()
    world.commit()
    world.send(topic)
    count = len(world.items) - 1
    world.commit()
    left = world.disk.killed()
    name = f"{DATA}/{segment_name(1)}"
    data = left.read_file(name)
    end = len(data.rstrip(b"\0"))
    left.write_file(name, data[: end - 1] + bytes(len(data) - end + 1))
    opened = World(left, world.options)
    opened.begin_with(world.items[:count])
    assert opened.seen() == opened.naive.seen()
    assert again(opened).seen() == opened.seen()
    check_goes_on(opened)


def test_starts_that_nothing_follows_leave_no_trail() -> None:
    world = World()
    world.topic()
    world.commit()
    trees = set()
    for _ in range(12):
        world = again(world)
        world.quiet()
        trees.add(len(world.disk.tree()))
    assert max(trees) <= min(trees) + 1


def test_starts_leave_segments_that_are_deleted_when_they_are_dead() -> None:
    world = World()
    topic = world.topic()
    world.subscribe(topic)
    for _ in range(12):
        world.send(topic)
        world.commit()
        world = again(world)
    assert len(segments(world.disk)) > 12
    world.ack(topic, 0, 12)
    world.trim(topic, 12)
    world.commit()
    for _ in range(2):
        world.journal._keeper.tidy(is_pressed=True)
        world.quiet()
    assert len(segments(world.disk)) <= 3
    again(world)


def test_a_start_leaves_no_file_open_but_those_it_works_with() -> None:
    world = World()
    topic = world.topic()
    for _ in range(10):
        world.send(topic, 300)
        world.commit()
    opened = again(world)
    names = sorted(path.rpartition("/")[2] for path in opened.disk.descriptors())
    assert len([name for name in names if name == "LOCK"]) == 1
    opened.close()
    assert opened.disk.descriptors() == []


@pytest.mark.parametrize("workload", [overlapping_groups, one_long_group, reclaim, endings])
def test_without_syncs_a_kill_loses_nothing_and_a_power_cut_only_the_end(
    workload: Workload,
) -> None:
    options = msgspec.structs.replace(SMALL, durability="never")
    world = done(workload, World(SimulatedDisk(page_bytes=256), options))
    expectations = Expectations(world.items)
    for count, state in enumerate(crash_states(world.start, world.disk.trace, alone=1, sampled=1)):
        with noted(state.place):
            if state.place.endswith("killed") and count % 2:
                expectations.check(state, options=options)
            elif count % 11 == 0:
                expectations.check(state, is_bounded=False, options=options)


def test_a_snapshot_taken_at_any_time_changes_nothing() -> None:
    seen = set()
    for snapshot_bytes in (1, 1000, 3000, 1 << 30):
        options = msgspec.structs.replace(SMALL, snapshot_bytes=snapshot_bytes)
        for workload in WORKLOADS:
            world = done(workload, World(options=options))
            if not world.is_closed:
                world.quiet()
            opened = World(world.disk.power_cut(), options)
            assert opened.seen() == world.naive.seen()
            seen.add(world.disk.read_file(f"{DATA}/snapshot")[:64])
    assert len(seen) > 4
