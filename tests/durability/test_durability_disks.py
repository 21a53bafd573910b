"""The bad disks: they are as bad as they say, and no worse."""

import os
from pathlib import Path

import pytest
from crashes.disks import PHASES, PowerCutDisk, phase_of
from hypothesis import given
from hypothesis import strategies as st

from mbctl.files import Disk

CALLS = ("open", "pwritev", "fdatasync", "fsync", "allocate", "truncate", "rename", "unlink")


def create(disk: Disk, path: Path) -> int:
    return disk.open(str(path), os.O_RDWR | os.O_CREAT | os.O_EXCL)


class DryDisk(PowerCutDisk):
    """A power cut takes all that was not synced."""

    leak = 0.0


class LeakyDisk(PowerCutDisk):
    """A power cut leaves some pages of everything."""

    leak = 1.0


def test_what_was_not_synced_is_gone_after_a_power_cut_and_the_rest_is_there(
    tmp_path: Path,
) -> None:
    disk = DryDisk()
    file = create(disk, tmp_path / "a")
    disk.allocate(file, 16)
    assert disk.pwritev(file, [b"syn", b"ced"], 0) == 6
    disk.fdatasync(file)
    disk.pwritev(file, [b"lost!"], 6)
    assert disk.pread(file, 20, 0) == b"syncedlost!\0\0\0\0\0"
    assert disk.pread(file, 3, 5) == b"dlo"
    # What another process sees is what a power cut leaves.
    assert (tmp_path / "a").read_bytes() == b"synced" + bytes(10)
    disk.fsync(file)
    assert (tmp_path / "a").read_bytes() == b"syncedlost!\0\0\0\0\0"
    disk.close(file)


def test_some_pages_of_what_was_not_synced_survive_a_power_cut(tmp_path: Path) -> None:
    disk = LeakyDisk()
    file = create(disk, tmp_path / "a")
    size = 100 * 4096
    disk.allocate(file, size)
    disk.pwritev(file, [b"x" * size], 0)
    left = (tmp_path / "a").read_bytes()
    pages = {left[first : first + 4096] for first in range(0, size, 4096)}
    assert pages == {b"x" * 4096, bytes(4096)}
    disk.close(file)


WRITES = st.tuples(st.just("write"), st.integers(0, 60), st.binary(min_size=1, max_size=40))
SYNCS = st.tuples(st.sampled_from(["fdatasync", "fsync"]), st.just(0), st.just(b""))
CUTS = st.tuples(st.just("truncate"), st.integers(0, 80), st.just(b""))


@given(st.lists(st.one_of(WRITES, SYNCS, CUTS)))
def test_until_the_power_is_cut_the_disk_is_like_any_other(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[str, int, bytes]]
) -> None:
    directory = tmp_path_factory.mktemp("disks")
    disks: list[Disk] = [Disk(), LeakyDisk()]
    files = [create(disk, directory / str(n)) for n, disk in enumerate(disks)]
    for name, number, content in acts:
        for disk, file in zip(disks, files, strict=True):
            if name == "write":
                disk.pwritev(file, [content], number)
            elif name == "truncate":
                disk.truncate(file, number)
            else:
                getattr(disk, name)(file)
        plain, bad = (
            (disk.size(file), disk.pread(file, 100, 0), disk.pread(file, 9, 50))
            for disk, file in zip(disks, files, strict=True)
        )
        assert plain == bad
    for disk, file in zip(disks, files, strict=True):
        disk.close(file)


def test_every_phase_but_recovery_is_told_by_its_calls() -> None:
    names = (
        *("0000000001.segment", "0000000001.segment.tmp", "snapshot", "snapshot.tmp", "LOCK"),
        *("0000000001.cold", "0000000001.cold.tmp"),
    )
    phases = {phase_of(call, f"dir/{name}") for call in CALLS for name in names}
    assert phases == {*PHASES, ""} - {"recovery"}
