"""Files and directories on a disk: whole writes, names in errors, locks, the same on every disk."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from simulated_disk import Call, SimulatedDisk

from mbctl.files import Directory, Disk, File, is_full, named
from mbctl.journal.segment import create_segment


@pytest.fixture(params=["real", "simulated"])
def disk(request: pytest.FixtureRequest) -> Disk:
    """Both disks: what is said here holds on each."""
    return Disk() if request.param == "real" else SimulatedDisk()


@pytest.fixture
def directory(disk: Disk, tmp_path: Path) -> Directory:
    """An empty directory."""
    found = Directory(disk, tmp_path / "data")
    found.make()
    return found


@pytest.fixture
def simulated() -> tuple[SimulatedDisk, Directory]:
    """A simulated disk, and an empty directory on it."""
    disk = SimulatedDisk()
    directory = Directory(disk, Path("/data"))
    directory.make()
    return disk, directory


def of_kind(kind: str) -> Callable[[Call], bool]:
    return lambda call: call.kind == kind


# --- files ------------------------------------------------------------------------------------


def test_a_write_puts_the_buffers_one_after_the_other(directory: Directory) -> None:
    file = directory.create("log")
    file.write([b"ab", bytearray(b"cd"), memoryview(b"ef")], 3)
    assert file.read(100, 0) == b"\0\0\0abcdef"
    assert file.size == 9
    file.close()


def test_a_write_of_more_buffers_than_one_call_takes_is_whole(directory: Directory) -> None:
    file = directory.create("log")
    buffers = [b"%04d" % number for number in range(2_500)]
    file.write(buffers, 0)
    assert file.read(file.size, 0) == b"".join(buffers)
    file.close()


def test_a_write_takes_buffers_of_wide_items(directory: Directory) -> None:
    file = directory.create("log")
    file.write([memoryview(b"12345678").cast("Q"), b"9"], 0)
    assert file.read(100, 0) == b"123456789"
    file.close()


def test_a_write_of_nothing_writes_nothing(directory: Directory) -> None:
    file = directory.create("log")
    file.write([], 5)
    file.write([b"", b"x", b""], 0)
    file.write([b""], 9)
    assert file.size == 1
    file.close()


def test_a_read_ends_where_the_file_does(directory: Directory) -> None:
    file = directory.create("log")
    file.write([b"abc"], 0)
    assert [file.read(2, 0), file.read(9, 1), file.read(9, 3)] == [b"ab", b"bc", b""]
    file.close()


def test_allocated_room_reads_as_zeros_and_keeps_what_is_there(directory: Directory) -> None:
    file = directory.create("log")
    file.write([b"abc"], 0)
    file.allocate(5)
    assert file.read(9, 0) == b"abc\0\0"
    file.allocate(2)
    assert file.size == 5
    file.truncate(2)
    assert file.read(9, 0) == b"ab"
    file.close()


def test_syncing_is_done_on_files_and_directories(directory: Directory) -> None:
    file = directory.create("log")
    file.sync()
    file.sync_all()
    file.close()
    directory.sync()


def test_a_file_is_locked_by_one_at_a_time(directory: Directory) -> None:
    first, second = directory.open_or_create("LOCK"), directory.open_or_create("LOCK")
    assert first.lock()
    assert first.lock()
    assert not second.lock()
    first.close()
    assert second.lock()
    second.close()


def test_closing_twice_does_nothing(directory: Directory) -> None:
    file = directory.create("log")
    file.close()
    other = directory.open("log")
    file.close()
    assert other.size == 0
    other.close()


def test_files_are_for_their_owner_only(directory: Directory, disk: Disk) -> None:
    directory.create("log").close()
    assert stat.S_IMODE(disk.stat(str(directory.path / "log")).st_mode) == 0o600
    assert stat.S_IMODE(disk.stat(str(directory.path)).st_mode) == 0o700


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"x")
    (tmp_path / "log").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links") as caught:
        Directory(Disk(), tmp_path).open("log", writable=True)
    assert caught.value.errno == errno.ELOOP


# --- what a disk does to a write ----------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7])
def test_short_writes_are_gone_on_with(
    simulated: tuple[SimulatedDisk, Directory], size: int
) -> None:
    disk, directory = simulated
    file = directory.create("log")
    disk.shorten(of_kind("pwritev"), size, times=None)
    file.write([b"abc", b"", b"de", b"f"], 0)
    assert file.read(100, 0) == b"abcdef"


def test_a_write_that_writes_nothing_is_an_error(
    simulated: tuple[SimulatedDisk, Directory],
) -> None:
    disk, directory = simulated
    file = directory.create("log")
    disk.shorten(of_kind("pwritev"), 0)
    with pytest.raises(OSError, match="nothing was written"):
        file.write([b"abc"], 0)


def test_a_write_that_fills_the_disk_is_an_error_after_a_part(
    simulated: tuple[SimulatedDisk, Directory],
) -> None:
    disk, directory = simulated
    file = directory.create("log")
    disk.capacity = 2 * disk.page_bytes
    with pytest.raises(OSError, match="No space") as caught:
        file.write([b"x" * 3 * disk.page_bytes], 0)
    assert is_full(caught.value)
    assert file.size == 2 * disk.page_bytes


def test_errors_that_mean_no_room_are_told_from_others() -> None:
    assert all(is_full(OSError(code, "")) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
    assert not any(is_full(OSError(code, "")) for code in (errno.EIO, errno.EROFS, errno.ENOENT))


FILE_CALLS: dict[str, Callable[[File], object]] = {
    "pwritev": lambda file: file.write([b"x"], 0),
    "pread": lambda file: file.read(1, 0),
    "fdatasync": File.sync,
    "fsync": File.sync_all,
    "allocate": lambda file: file.allocate(10),
    "truncate": lambda file: file.truncate(0),
    "size": lambda file: file.size,
    "lock": File.lock,
}
DIRECTORY_CALLS: dict[str, Callable[[Directory], object]] = {
    "open": lambda directory: directory.open("log"),
    "rename": lambda directory: directory.rename("log", "log2"),
    "unlink": lambda directory: directory.unlink("log"),
}
WHOLE_DIRECTORY_CALLS: dict[str, Callable[[Directory], object]] = {
    "listdir": Directory.names,
    "free": Directory.free,
    "fsync": Directory.sync,
}


@pytest.mark.parametrize("kind", FILE_CALLS)
def test_an_error_of_a_file_names_it(simulated: tuple[SimulatedDisk, Directory], kind: str) -> None:
    disk, directory = simulated
    file = directory.create("log")
    disk.fail(of_kind(kind), OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken") as caught:
        FILE_CALLS[kind](file)
    assert caught.value.filename == "/data/log"
    assert not disk._faults[0].times


def test_an_error_of_a_file_that_was_renamed_names_it_as_it_is(
    simulated: tuple[SimulatedDisk, Directory],
) -> None:
    disk, directory = simulated
    file = create_segment(directory, 7, 4096, bytes(16), 0).file
    assert str(file.path) == "/data/0000000007.segment"
    disk.fail(of_kind("fdatasync"), OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken") as caught:
        file.sync()
    assert caught.value.filename == "/data/0000000007.segment"


@pytest.mark.parametrize("kind", DIRECTORY_CALLS | WHOLE_DIRECTORY_CALLS)
def test_an_error_of_a_directory_names_what_it_was_about(
    simulated: tuple[SimulatedDisk, Directory], kind: str
) -> None:
    disk, directory = simulated
    directory.create("log")
    disk.fail(of_kind(kind), OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken") as caught:
        (DIRECTORY_CALLS | WHOLE_DIRECTORY_CALLS)[kind](directory)
    assert caught.value.filename == ("/data/log" if kind in DIRECTORY_CALLS else "/data")


def test_an_error_that_names_its_file_keeps_the_name() -> None:
    with pytest.raises(OSError, match="broken") as caught, named(Path("/data")):
        raise OSError(errno.EIO, "broken", "/other")
    assert caught.value.filename == "/other"


# --- directories --------------------------------------------------------------------------------


def test_a_directory_is_made_with_those_above_it(disk: Disk, tmp_path: Path) -> None:
    directory = Directory(disk, tmp_path / "a" / "b" / "c")
    directory.make()
    assert directory.names() == []
    directory.create("log").close()
    directory.make()
    assert directory.names() == ["log"]


def test_a_made_directory_outlives_a_power_cut() -> None:
    disk = SimulatedDisk()
    Directory(disk, Path("/data/of/ours")).make()
    assert disk.power_cut().tree() == {"/data": None, "/data/of": None, "/data/of/ours": None}


def test_a_directory_made_before_a_kill_outlives_a_power_cut_after_it() -> None:
    disk = SimulatedDisk()
    disk.fail(of_kind("fsync"), OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        Directory(disk, Path("/data")).make()
    again = disk.killed()
    Directory(again, Path("/data")).make()
    assert again.power_cut().tree() == {"/data": None}


def test_names_are_sorted(directory: Directory) -> None:
    for name in ("b", "c", "a"):
        directory.create(name).close()
    assert directory.names() == ["a", "b", "c"]


def test_creating_refuses_a_name_that_is_there(directory: Directory) -> None:
    directory.create("log").close()
    with pytest.raises(FileExistsError):
        directory.create("log")


def test_opening_refuses_a_name_that_is_not_there(directory: Directory) -> None:
    with pytest.raises(FileNotFoundError):
        directory.open("log")


def test_a_file_that_is_opened_to_read_is_not_written(directory: Directory) -> None:
    directory.create("log").close()
    file = directory.open("log")
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.write([b"x"], 0)
    file.close()


def test_renaming_replaces_and_unlinking_removes(directory: Directory) -> None:
    for name in ("old", "new"):
        file = directory.open_or_create(name)
        file.write([name.encode()], 0)
        file.close()
    directory.rename("new", "old")
    assert directory.names() == ["old"]
    file = directory.open("old")
    assert file.read(10, 0) == b"new"
    file.close()
    directory.unlink("old")
    assert directory.names() == []


def test_room_is_told_with_what_there_is_in_all(directory: Directory) -> None:
    free, whole = directory.free()
    assert 0 < free <= whole


def test_descriptors_are_not_inherited(tmp_path: Path) -> None:
    descriptor = Disk().open(str(tmp_path / "log"), os.O_RDWR | os.O_CREAT)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
