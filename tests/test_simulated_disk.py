"""The simulated disk: what is on it after a crash, what fails, and that it is like a real one."""

import errno
import os
import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from crash_states import crash_states, power_cuts
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_disk import PAGE_BYTES, SimulatedDisk

from mbctl.files import Directory, Disk

NEW = os.O_RDWR | os.O_CREAT
PAGE = PAGE_BYTES


def made(disk: SimulatedDisk, path: str = "/log", data: bytes = b"") -> int:
    """A file that is on disk with its name and content, open."""
    disk.write_file(path, data)
    return disk.open(path, os.O_RDWR)


def sync_directory(disk: SimulatedDisk, path: str = "/") -> None:
    descriptor = disk.open(path, os.O_RDONLY | os.O_DIRECTORY)
    disk.fsync(descriptor)
    disk.close(descriptor)


def trees(disk: SimulatedDisk, *, ordered: bool = True) -> list[dict[str, bytes | None]]:
    """What all power cuts may leave."""
    found = []
    for _, left in power_cuts(disk, random.Random(0), ordered=ordered):
        if left.tree() not in found:
            found.append(left.tree())
    return found


def contents(disk: SimulatedDisk, path: str = "/log") -> set[bytes | None]:
    """What all power cuts may leave of one file."""
    return {tree.get(path) for tree in trees(disk)}


# --- what a power cut leaves ------------------------------------------------------------------


def test_a_power_cut_may_take_what_was_not_synced() -> None:
    disk = SimulatedDisk()
    log = made(disk, data=b"old")
    disk.pwritev(log, [b"n", b"ew"], 0)
    assert disk.read_file("/log") == b"new"
    assert contents(disk) == {b"old", b"new"}
    disk.fdatasync(log)
    assert contents(disk) == {b"new"}


def test_pages_of_one_write_reach_the_disk_in_any_order() -> None:
    disk = SimulatedDisk()
    log = made(disk, data=b"-" * 3 * PAGE)
    disk.pwritev(log, [b"A" * PAGE * 3], 0)
    expected = {(a + b + c) for a in "-A" for b in "-A" for c in "-A"}
    found = {
        "".join(chr(content[at * PAGE]) for at in range(3))
        for content in contents(disk)
        if content is not None
    }
    assert found == expected


def test_a_page_may_be_left_as_it_was_at_any_moment_since_the_sync() -> None:
    disk = SimulatedDisk()
    log = made(disk, data=b"0")
    disk.pwritev(log, [b"1"], 0)
    disk.pwritev(log, [b"2"], 0)
    assert contents(disk) == {b"0", b"1", b"2"}


def test_the_length_may_be_kept_without_the_data_and_the_data_without_the_length() -> None:
    disk = SimulatedDisk()
    log = made(disk, data=b"a" * PAGE)
    disk.pwritev(log, [b"b" * PAGE], PAGE)
    assert contents(disk) == {b"a" * PAGE, b"a" * PAGE + bytes(PAGE), b"a" * PAGE + b"b" * PAGE}


def test_a_cut_file_is_whole_or_cut() -> None:
    disk = SimulatedDisk()
    log = made(disk, data=b"a" * (PAGE + 10))
    disk.truncate(log, 4)
    assert contents(disk) == {b"a" * (PAGE + 10), b"aaaa"}
    disk.truncate(log, 6)
    assert contents(disk) == {b"a" * (PAGE + 10), b"aaaa", b"aaaa\0\0"}
    disk.fdatasync(log)
    assert contents(disk) == {b"aaaa\0\0"}


def test_allocated_room_reads_as_zeros_and_lasts_only_when_synced() -> None:
    disk = SimulatedDisk()
    log = made(disk, data=b"a")
    disk.allocate(log, 10)
    assert contents(disk) == {b"a", b"a" + bytes(9)}
    disk.fdatasync(log)
    assert contents(disk) == {b"a" + bytes(9)}


def test_a_new_file_is_lost_without_a_sync_of_its_directory() -> None:
    disk = SimulatedDisk()
    log = disk.open("/log", NEW)
    disk.pwritev(log, [b"x"], 0)
    disk.fdatasync(log)
    assert trees(disk) == [{}, {"/log": b"x"}]
    sync_directory(disk)
    assert trees(disk) == [{"/log": b"x"}]


def test_a_new_file_is_empty_without_a_sync_of_its_own() -> None:
    disk = SimulatedDisk()
    disk.pwritev(disk.open("/log", NEW), [b"x"], 0)
    sync_directory(disk)
    assert contents(disk) == {b"", b"\0", b"x"}


def test_a_rename_is_done_or_not_and_takes_the_content_as_it_is_on_disk() -> None:
    disk = SimulatedDisk()
    disk.write_file("/new", b"new")
    disk.write_file("/old", b"old")
    disk.rename("/new", "/old")
    assert trees(disk) == [{"/new": b"new", "/old": b"old"}, {"/old": b"new"}]
    sync_directory(disk)
    assert trees(disk) == [{"/old": b"new"}]


def test_an_unsynced_file_that_is_renamed_over_another_may_leave_it_empty() -> None:
    disk = SimulatedDisk()
    disk.write_file("/old", b"old")
    disk.pwritev(disk.open("/new", NEW), [b"new"], 0)
    disk.rename("/new", "/old")
    assert {"/old": b""} in trees(disk)


def test_a_removed_name_may_come_back_until_its_directory_is_synced() -> None:
    disk = SimulatedDisk()
    disk.write_file("/log", b"x")
    disk.unlink("/log")
    assert trees(disk) == [{"/log": b"x"}, {}]
    sync_directory(disk)
    assert trees(disk) == [{}]


def test_operations_on_one_directory_are_kept_in_order_or_also_out_of_it() -> None:
    disk = SimulatedDisk()
    for name in ("/a", "/b"):
        disk.close(disk.open(name, NEW))
    in_order = [set[str](), {"/a"}, {"/a", "/b"}]
    assert [set(tree) for tree in trees(disk)] == in_order
    out_of_order = [set(tree) for tree in trees(disk, ordered=False)]
    assert sorted(out_of_order, key=sorted) == sorted([*in_order, {"/b"}], key=sorted)


def test_directories_are_made_and_synced_one_by_one() -> None:
    disk = SimulatedDisk()
    disk.mkdir("/a")
    disk.mkdir("/a/b")
    disk.close(disk.open("/a/b/log", NEW))
    sync_directory(disk, "/a/b")
    assert disk.power_cut().tree() == {}
    sync_directory(disk, "/a")
    assert disk.power_cut().tree() == {}
    sync_directory(disk, "/")
    assert disk.power_cut().tree() == {"/a": None, "/a/b": None, "/a/b/log": b""}


def test_a_rename_to_another_directory_lasts_when_both_are_synced() -> None:
    disk = SimulatedDisk()
    disk.mkdir("/lost")
    disk.write_file("/log", b"x")
    disk.rename("/log", "/lost/log")
    kept, moved = {"/log": b"x", "/lost": None}, {"/lost": None, "/lost/log": b"x"}
    sync_directory(disk, "/lost")
    assert trees(disk) == [kept, moved]
    sync_directory(disk, "/")
    assert trees(disk) == [moved]


def test_a_kill_keeps_all_and_syncs_nothing() -> None:
    disk = SimulatedDisk()
    log = made(disk, data=b"old")
    disk.lock(log)
    disk.pwritev(log, [b"new"], 0)
    killed = disk.killed()
    assert killed.read_file("/log") == b"new"
    assert killed.power_cut().read_file("/log") == b"old"
    killed.lock(killed.open("/log", os.O_RDWR))
    with pytest.raises(OSError, match="Bad file"):
        killed.size(log)


def test_what_is_left_is_a_disk_of_its_own() -> None:
    disk = SimulatedDisk()
    log = made(disk, data=b"old")
    disk.pwritev(log, [b"new"], 0)
    for left in (disk.killed(), disk.power_cut()):
        found = left.open("/log", os.O_RDWR)
        left.pwritev(found, [b"other"], 0)
        left.fdatasync(found)
        left.unlink("/log")
    assert disk.read_file("/log") == b"new"
    assert disk.power_cut().read_file("/log") == b"old"


# --- faults -----------------------------------------------------------------------------------


def test_what_a_failed_sync_did_not_write_is_never_written() -> None:
    disk = SimulatedDisk()
    log = made(disk, data=b"-" * 2 * PAGE)
    disk.pwritev(log, [b"A"], 0)
    disk.fail(lambda call: call.kind == "fdatasync", OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        disk.fdatasync(log)
    disk.fdatasync(log)
    assert disk.read_file("/log")[:1] == b"A"
    assert disk.power_cut().read_file("/log")[:1] == b"-"
    # A later write to the page brings all of it.
    disk.pwritev(log, [b"B"], 1)
    disk.fdatasync(log)
    assert disk.power_cut().read_file("/log")[:2] == b"AB"


def test_a_call_fails_by_its_number_once() -> None:
    disk = SimulatedDisk()
    disk.fail(1, OSError(errno.EIO, "broken"))
    log = disk.open("/log", NEW)
    with pytest.raises(OSError, match="broken"):
        disk.pwritev(log, [b"x"], 0)
    assert disk.pwritev(log, [b"x"], 0) == 1


@pytest.mark.parametrize(("times", "expected"), [(1, [2, 5]), (None, [2, 2])])
def test_a_short_write_writes_what_it_says(times: int | None, expected: list[int]) -> None:
    disk = SimulatedDisk()
    log = made(disk)
    disk.shorten(lambda call: True, 2, times=times)
    assert [disk.pwritev(log, [b"abc", b"de"], 0) for _ in range(2)] == expected


def test_a_full_disk_refuses_what_needs_room_and_nothing_else() -> None:
    disk = SimulatedDisk(capacity=3 * PAGE)
    log = made(disk, data=b"x")
    disk.allocate(log, 2 * PAGE)
    assert disk.free("/") == (PAGE, 3 * PAGE)
    other = disk.open("/other", NEW)
    assert disk.pwritev(other, [b"y" * 2 * PAGE], 0) == PAGE
    for call in (
        lambda: disk.pwritev(other, [b"y"], PAGE),
        lambda: disk.allocate(log, 3 * PAGE),
        lambda: disk.open("/third", NEW),
    ):
        with pytest.raises(OSError, match="No space"):
            call()
    assert disk.pwritev(log, [b"z" * 2 * PAGE], 0) == 2 * PAGE
    disk.unlink("/other")
    assert disk.free("/")[0] == 0
    disk.close(other)
    assert disk.free("/")[0] == PAGE


# --- crash states of a trace ------------------------------------------------------------------


def test_crash_states_are_those_of_every_moment() -> None:
    disk = SimulatedDisk()
    disk.write_file("/log", b"-" * 2 * PAGE)
    start = disk.copy()
    disk.trace.clear()
    log = disk.open("/log", os.O_RDWR)
    for letter in (b"A", b"B"):
        disk.pwritev(log, [letter * 2 * PAGE], 0)
        disk.fdatasync(log)
        disk.mark(letter)
    found = {
        (chr(content[0]) + chr(content[PAGE]), b"".join(state.marks))
        for state in crash_states(start, disk.trace)
        if (content := state.disk.read_file("/log"))
    }
    assert found == {
        *(("--", b""), ("A-", b""), ("-A", b""), ("AA", b"")),
        *(("AA", b"A"), ("BA", b"A"), ("AB", b"A"), ("BB", b"A")),
        ("BB", b"AB"),
    }


def test_crash_states_of_much_are_a_selection_with_the_extremes() -> None:
    disk = SimulatedDisk()
    disk.write_file("/log", b"-" * 8 * PAGE)
    start = disk.copy()
    disk.trace.clear()
    disk.pwritev(disk.open("/log", os.O_RDWR), [b"A" * 8 * PAGE], 0)
    found = {
        "".join(chr(content[at * PAGE]) for at in range(8))
        for state in crash_states(start, disk.trace)
        if (content := state.disk.read_file("/log"))
    }
    alone = {"-" * at + "A" + "-" * (7 - at) for at in range(8)}
    without = {"A" * at + "-" + "A" * (7 - at) for at in range(8)}
    assert {"-" * 8, "A" * 8, *alone, *without} <= found
    assert len(found) < 200


# --- like a real one --------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "folder", "folder/a", "none/a", "a/b"])
FLAGS = st.sampled_from(
    [os.O_RDONLY, os.O_RDWR, NEW, NEW | os.O_EXCL, os.O_RDONLY | os.O_DIRECTORY]
)
NUMBERS = st.integers(0, 3)
"""Which of the open descriptors, counted from the last."""
PLACES = st.integers(0, 10) | st.sampled_from([PAGE - 1, PAGE, 2 * PAGE + 3])
CALLS = st.one_of(
    st.tuples(st.just("open"), NAMES, FLAGS),
    st.tuples(st.just("pwritev"), NUMBERS, st.lists(st.binary(max_size=6), min_size=1), PLACES),
    st.tuples(st.just("pread"), NUMBERS, PLACES, PLACES),
    st.tuples(st.just("truncate"), NUMBERS, PLACES),
    st.tuples(st.just("allocate"), NUMBERS, PLACES),
    st.tuples(st.just("size"), NUMBERS),
    st.tuples(st.just("lock"), NUMBERS),
    st.tuples(st.sampled_from(["fsync", "fdatasync"]), NUMBERS),
    st.tuples(st.just("close"), NUMBERS),
    st.tuples(st.just("rename"), NAMES, NAMES),
    st.tuples(st.just("unlink"), NAMES),
    st.tuples(st.just("mkdir"), NAMES),
    st.tuples(st.just("listdir"), NAMES),
)


class Caller:
    """Makes calls to a disk, each answer in a form that can be compared."""

    def __init__(self, disk: Disk, root: str) -> None:
        self.disk, self.root = disk, root
        self.open: list[tuple[int, bool]] = []
        Directory(disk, Path(root)).make()
        disk.mkdir(f"{root}/folder")

    def answer(self, kind: str, *args: Any) -> Any:
        try:
            return self._call(kind, *args)
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    def _call(self, kind: str, *args: Any) -> Any:
        if isinstance(args[0], str):
            paths = [f"{self.root}/{arg}" if isinstance(arg, str) else arg for arg in args]
            answer = getattr(self.disk, kind)(*paths)
            if kind == "open":
                self.open.append((answer, bool(args[1] & os.O_DIRECTORY)))
                return None
            return sorted(answer) if kind == "listdir" else answer
        if args[0] >= len(self.open):
            return None
        descriptor, is_directory = self.open[-1 - args[0]]
        if kind == "close":
            self.open.remove((descriptor, is_directory))
        # What a directory's length is differs from one file system to the next.
        if is_directory and kind == "size":
            return None
        return getattr(self.disk, kind)(descriptor, *args[1:])

    def close(self) -> None:
        for descriptor, _ in self.open:
            self.disk.close(descriptor)


@pytest.fixture
def roots(tmp_path: Path) -> Iterator[str]:
    """Directories that nobody has used."""
    return (str(tmp_path / str(number)) for number in count())


def test_it_answers_as_a_real_disk_does(roots: Iterator[str]) -> None:
    @settings(max_examples=100)
    @given(st.lists(CALLS, max_size=25))
    def compare(calls: list[tuple[Any, ...]]) -> None:
        root = next(roots)
        real, simulated = Caller(Disk(), root), Caller(SimulatedDisk(), root)
        try:
            for call in calls:
                assert real.answer(*call) == simulated.answer(*call), call
        finally:
            real.close()

    compare()
