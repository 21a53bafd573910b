"""The disk fails: at each call of a workload once, and when it is full.

A failed call either costs nothing, or it ends the journal: it says so once and names the
file, no commit is done after that, and the next start finds all that was done before.
"""

import errno
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest
from crash_states import CrashState
from journal_world import DATA, SMALL, TEARING, Expectations, World, check_goes_on, noted
from simulated_disk import Call, SimulatedDisk
from test_journal_crash import (
    close_cleanly,
    endings,
    full_segments,
    move,
    overlapping_groups,
    reclaim,
)

from mbctl.errors import DiskFull, MbctlError, StorageFailed
from mbctl.model import KIB, NS_PER_S

Workload = Callable[[World], None]
WORKLOADS = [overlapping_groups, full_segments, reclaim, endings, move, close_cleanly]
CHANGING = {
    *("pwritev", "fdatasync", "fsync", "allocate", "truncate", "rename", "unlink", "open", "mkdir")
}


def of_kind(kind: str, path: str = "") -> Callable[[Call], bool]:
    return lambda call: call.kind == kind and path in call.path


# --- each call fails once -------------------------------------------------------------------------


def calls_of(workload: Workload) -> list[Call]:
    """What a workload calls when nothing fails, without what comes before it."""
    world = World()
    first = len(world.disk.calls)
    workload(world)
    world.turns.run()
    return world.disk.calls[first:]


def run(world: World, workload: Workload) -> None:
    """Do a workload on a journal that may fail, as far as it gets."""
    workload(world)
    world.turns.run()
    world.quiet()
    if world.is_closed:
        return
    if world.failures:
        durable = world.durable
        world.send(world.topic())
        world.commit()
        world.quiet()
        assert world.durable == durable, "a commit is done after a failure"
    world.close()


def check_failed(world: World) -> str:
    """Assert that a failure was met as it should be; how it was met."""
    if world.failures:
        (failure,) = world.failures
        assert isinstance(failure, StorageFailed)
        assert failure.path.startswith(DATA)
    world.disk.mend()
    expectations = Expectations(world.items)
    # A restart, or a power cut: what was acknowledged is there after both.
    for left in (world.disk.killed(), world.disk.power_cut()):
        state = CrashState(left, [mark for mark in marks_of(world)], "")
        check_goes_on(expectations.check(state))
    return "ended" if world.failures else "went on"


def marks_of(world: World) -> list[object]:
    """What was marked in the trace of a world."""
    return [change.what for change in world.disk.trace if hasattr(change, "what")]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_calls_may_fail_once(workload: Workload, code: int) -> None:
    check_each_fails(workload, code, every=19)


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_each_call_may_fail_once(workload: Workload, code: int) -> None:
    outcomes = check_each_fails(workload, code, every=1)
    # Only lack of room can be lived with, and only where it was not promised.
    assert outcomes >= ({"ended", "went on"} if code == errno.ENOSPC else {"ended"})


def check_each_fails(workload: Workload, code: int, *, every: int) -> set[str]:
    """Let every so manieth call of a workload fail once; the ways that was met."""
    outcomes = set()
    calls = list(enumerate(calls_of(workload)))
    for number, call in calls[len(workload.__name__) % every :: every]:
        if call.kind not in CHANGING and (code != errno.EIO or call.kind == "close"):
            continue
        world = World()
        world.disk.fail(len(world.disk.calls) + number, OSError(code, "broken"))
        with noted(str(call)):
            run(world, workload)
            outcome = check_failed(world)
            # What makes a record durable cannot be gone on without.
            if call.kind == "fdatasync":
                assert outcome == "ended"
        outcomes.add(outcome)
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize("workload", WORKLOADS)
def test_all_calls_of_a_kind_may_fail_from_some_time_on(workload: Workload) -> None:
    calls = calls_of(workload)
    for kind in sorted({call.kind for call in calls} & CHANGING):
        numbers = [number for number, call in enumerate(calls) if call.kind == kind]
        for number in {numbers[0], numbers[len(numbers) // 2], numbers[-1]}:
            world = World()
            first = len(world.disk.calls) + number
            world.disk.fail(
                lambda call, kind=kind, first=first: (  # type: ignore[misc]
                    call.kind == kind and call.number >= first
                ),
                OSError(errno.EIO, "broken"),
                times=None,
            )
            with noted(f"{kind} from {number} on"):
                run(world, workload)
                check_failed(world)


@pytest.mark.parametrize("size", [1, 50, 200])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_short_writes_change_nothing(workload: Workload, size: int) -> None:
    world = World()
    world.disk.shorten(of_kind("pwritev"), size, times=None)
    run(world, workload)
    assert world.failures == []
    assert check_failed(world) == "went on"


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.EIO, errno.EFBIG], ids=["EIO", "EFBIG"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_each_write_may_be_short_and_then_fail(workload: Workload, code: int) -> None:
    writes = [n for n, call in enumerate(calls_of(workload)) if call.kind == "pwritev"]
    for number in writes:
        world = World()
        first = len(world.disk.calls) + number
        world.disk.shorten(first, 40)
        world.disk.fail(first + 1, OSError(code, "broken"))
        with noted(f"write {number}"):
            run(world, workload)
            check_failed(world)


def test_calls_of_a_start_may_fail() -> None:
    check_each_start_fails(every=5)


@pytest.mark.slow
def test_each_call_of_a_start_may_fail() -> None:
    check_each_start_fails(every=1)


def check_each_start_fails(every: int) -> None:
    """Let every so manieth call of a start fail that has a torn tail to cut."""
    world = World()
    overlapping_groups(world)
    world.turns.run()
    # A torn tail, so that it is cut and put away as well.
    expectations = Expectations(world.items)
    state = CrashState(torn(world.disk.killed()), marks_of(world), "")
    left = state.disk
    count = len(expectations.check(CrashState(left.copy(), state.marks, "")).disk.calls)
    for number in range(0, count, every):
        disk = left.copy()
        disk.fail(number, OSError(errno.EIO, "broken"))
        with noted(f"call {number}"):
            try:
                opened = World(disk)
            except (OSError, MbctlError):
                pass
            else:
                opened.turns.run()
                assert len(opened.failures) <= 1
            disk.mend()
            for again in (disk.killed(), disk.power_cut()):
                check_goes_on(expectations.check(CrashState(again, state.marks, "")))


def torn(disk: SimulatedDisk) -> SimulatedDisk:
    """The same disk with the beginning of a record after the last one."""
    segments = [p for p in disk.tree() if p.endswith(".segment")]
    path = max(p for p in segments if any(disk.read_file(p)[64:]))
    data = disk.read_file(path)
    end = len(data.rstrip(b"\0"))
    disk.write_file(path, data[:end] + b"mbRe" + data[end + 4 :])
    return disk


def test_a_first_start_that_fails_can_be_tried_again() -> None:
    count = len(World().disk.calls)
    for number in range(count):
        disk = SimulatedDisk(page_bytes=TEARING)
        disk.fail(number, OSError(errno.EIO, "broken"))
        with noted(f"call {number}"):
            with suppress(OSError, MbctlError):
                World(disk)
            for again in (disk.killed(), disk.power_cut()):
                check_goes_on(World(again))


# --- what a failed sync leaves ------------------------------------------------------------------


def test_what_a_failed_sync_did_not_write_is_written_by_the_next_start() -> None:
    world = World()
    topic = world.topic()
    world.commit()
    world.disk.fail(of_kind("fdatasync"), OSError(errno.EIO, "broken"))
    world.send(topic)
    world.commit()
    assert world.failures
    # The process ends; readers of the file see the record, the disk has not got it.
    opened = World(world.disk.killed())
    assert len(opened.seen()[1][topic][4]) == 1
    again = World(opened.disk.power_cut())
    assert again.seen() == opened.seen()


# --- a full disk ----------------------------------------------------------------------------------

ROOMY = msgspec.structs.replace(SMALL, segment_bytes=8192, snapshot_bytes=16384)
# Small beside a segment, as it is in truth.
PAGE_BYTES = 256
# What is kept for the next snapshot.
KEPT_BYTES = 256 * KIB


class FillingWorld(World):
    """A World that asks for room before it appends, as the engine does."""

    refused = 0

    def ask_and_send(self, topic_id: int, size: int) -> bool:
        """Send if there is room; whether there was."""
        try:
            self.journal.check_room(size + 10)
        except DiskFull:
            self.refused += 1
            return False
        self.send(topic_id, size)
        self.commit()
        return True

    def ask_and_ack(self, topic_id: int, next_: int) -> bool:
        """Acknowledge all below and let it go; whether there was room for that."""
        try:
            self.journal.check_room(40, is_reserved=True)
        except DiskFull:
            self.refused += 1
            return False
        topic = self.naive.topics[topic_id]
        self.ack(topic_id, topic.first_offset, next_)
        self.trim(topic_id, next_)
        self.commit()
        return True

    def fill(self, topic_id: int, size: int) -> int:
        """Send until there is no room; how many that were."""
        count = 0
        while self.ask_and_send(topic_id, size):
            count += 1
            assert count < 10_000
        return count


@pytest.fixture
def nothing_kept_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill the disk to its last byte: the journal leaves none of it to others."""
    monkeypatch.setattr("mbctl.journal.space._kept_free", lambda total: 0)


# Around the end of a segment.
ROOMS = [64 * KIB, 64 * KIB + 512, 68 * KIB, 71 * KIB]


def full_world(room: int, size: int) -> tuple[FillingWorld, int]:
    """A journal that has filled its disk; and the topic."""
    disk = SimulatedDisk(KEPT_BYTES + room, page_bytes=PAGE_BYTES)
    world = FillingWorld(disk, ROOMY)
    topic = world.topic()
    world.subscribe(topic)
    world.commit()
    assert world.fill(topic, size) > 5
    return world, topic


@pytest.mark.usefixtures("nothing_kept_free")
@pytest.mark.parametrize("size", [20, 300, 1500, 3000])
@pytest.mark.parametrize("room", ROOMS)
def test_a_full_disk_refuses_sends_and_nothing_is_changed(room: int, size: int) -> None:
    world, topic = full_world(room, size)
    assert world.failures == []
    world.turns.advance(NS_PER_S)
    tree = world.disk.tree()
    for _ in range(3):
        assert not world.ask_and_send(topic, size)
        world.turns.advance(NS_PER_S)
    assert world.disk.tree() == tree
    # What is there can be read, after a restart as well.
    again = World(world.disk.power_cut(), ROOMY)
    assert again.seen() == world.naive.seen()


@pytest.mark.usefixtures("nothing_kept_free")
@pytest.mark.parametrize("size", [20, 300, 1500, 3000])
@pytest.mark.parametrize("room", ROOMS[::2])
def test_a_full_disk_takes_acknowledgements_and_then_sends_again(room: int, size: int) -> None:
    world, topic = full_world(room, size)
    for _ in range(5):
        messages = world.naive.topics[topic].next_offset
        assert world.ask_and_ack(topic, messages)
        # Where what is dead is still being written to, being refused makes room.
        for _ in range(3):
            world.ask_and_send(topic, size)
            world.turns.advance(NS_PER_S)
        assert world.fill(topic, size) > 3, "no room came back"
        assert world.failures == []
    again = World(world.disk.power_cut(), ROOMY)
    assert again.seen() == world.naive.seen()


@pytest.mark.usefixtures("nothing_kept_free")
def test_many_acknowledgements_fit_into_what_is_kept_back() -> None:
    world, topic = full_world(ROOMS[0], 20)
    # Each asks for room for the largest changes that may follow from it.
    for offset in range(ROOMY.segment_bytes // 4 // 680):
        assert world.ask_and_ack(topic, offset + 1)
    assert world.failures == []


@pytest.mark.usefixtures("nothing_kept_free")
def test_acknowledgements_that_free_nothing_are_refused_in_the_end_and_end_nothing() -> None:
    world, topic = full_world(ROOMS[0], 20)
    count = 0
    while count < 5_000:
        try:
            world.journal.check_room(40, is_reserved=True)
        except DiskFull:
            break
        world.ack(topic, 2 * count % 200 + 1, 2 * count % 200 + 2)
        world.commit()
        count += 1
    assert count < 5_000
    assert world.failures == []
    again = World(world.disk.power_cut(), ROOMY)
    assert again.seen() == world.naive.seen()


@pytest.mark.usefixtures("nothing_kept_free")
@pytest.mark.parametrize("size", [20, 300, 1500])
@pytest.mark.parametrize("room", ROOMS)
def test_a_journal_on_a_full_disk_is_opened(room: int, size: int) -> None:
    world, topic = full_world(room, size)
    for left in (world.disk.killed(), world.disk.power_cut()):
        again = FillingWorld(left, ROOMY)
        assert again.seen() == world.naive.seen()
        again.begin_with(world.items)
        assert again.ask_and_ack(topic, again.naive.topics[topic].next_offset)
        for _ in range(3):
            again.ask_and_send(topic, 300)
            again.turns.advance(NS_PER_S)
        assert again.fill(topic, 300) > 3
        assert again.failures == []


def test_a_bound_refuses_sends_and_space_comes_back() -> None:
    bound = 32 * KIB
    options = msgspec.structs.replace(ROOMY, max_bytes=bound)
    world = FillingWorld(SimulatedDisk(), options)
    topic = world.topic()
    world.subscribe(topic)
    world.commit()
    for _ in range(5):
        count = world.fill(topic, 100)
        assert count > 20
        # The last record's head, and marks that say what is durable.
        assert world.journal.taken <= bound + 800
        assert world.ask_and_ack(topic, world.naive.topics[topic].next_offset)
        for _ in range(3):
            world.ask_and_send(topic, 100)
            world.turns.advance(NS_PER_S)
    assert world.failures == []
    again = World(world.disk.power_cut(), options)
    assert again.seen() == world.naive.seen()


def test_the_default_leaves_a_part_of_the_disk_free() -> None:
    gib = 1 << 30
    disk = SimulatedDisk(gib + KEPT_BYTES + ROOMS[0], PAGE_BYTES)
    world = FillingWorld(disk, ROOMY)
    topic = world.topic()
    world.commit()
    assert world.fill(topic, 300) > 5
    assert disk.free("/")[0] >= gib


def test_a_disk_that_is_full_from_the_start_is_an_error_that_names_it() -> None:
    disk = SimulatedDisk(capacity=3 * 4096)
    with pytest.raises(OSError, match="No space") as caught:
        World(disk, ROOMY)
    assert str(caught.value.filename).startswith(DATA)
    disk.capacity = 1 << 30
    check_goes_on(World(disk.killed(), ROOMY))


def test_two_journals_never_open_one_directory() -> None:
    world = World()
    tree = world.disk.tree()
    with pytest.raises(MbctlError, match="is in use by the process"):
        World(world.disk)
    assert world.disk.tree() == tree
    world.close()
    assert World(world.disk).failures == []
