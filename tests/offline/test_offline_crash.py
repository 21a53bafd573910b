"""A repair that is killed, loses power or finds a disk that fails, and is begun again."""

import errno
from collections.abc import Callable
from typing import Any

import pytest
from crash_states import crash_states
from damaged import (
    DATA,
    check_held,
    check_kept,
    directory_of,
    flip,
    held_if_served,
    original,
    path_of,
    repair,
)
from simulated_disk import SimulatedDisk

from mbctl.offline.repair import verify
from mbctl.offline.report import Report


def one_byte(disk: SimulatedDisk) -> None:
    flip(disk, path_of(2), 700)


def much(disk: SimulatedDisk) -> None:
    flip(disk, path_of(2), 700)
    flip(disk, f"{DATA}/FORMAT", 1)
    flip(disk, f"{DATA}/snapshot", 100)
    # It is segment 1 there, and nothing is left of 3.
    disk.write_file(path_of(3), disk.read_file(path_of(1)))
    disk.remove_file(path_of(5))


class Repaired:
    """A damaged disk, how a repair of it goes, and what comes of it."""

    def __init__(self, damage: Callable[[SimulatedDisk], None]) -> None:
        self.start = original("closed").disk.copy()
        damage(self.start)
        assert held_if_served(self.start) is None or damage is one_byte
        self.served_before = held_if_served(self.start)
        disk = self.start.copy()
        self.report: Report = repair(directory_of(disk))
        self.trace = disk.trace
        self.calls = disk.calls
        self.held: Any = held_if_served(disk)
        check_held(original("closed").held, self.held, self.report)

    def check(self, disk: SimulatedDisk, place: str) -> None:
        """Assert that what a crash left is refused or done, and that a repair completes it."""
        served = held_if_served(disk)
        assert served in (self.served_before, self.held, None), place
        again = repair(directory_of(disk))
        assert held_if_served(disk) == self.held, place
        assert verify(directory_of(disk)).is_whole
        if again.kept_in:
            # Who goes on tells the same as who began.
            assert (again.findings, again.lost) == (self.report.findings, self.report.lost), place
        else:
            again = self.report
        check_kept(self.start.tree(), disk, again)
        left = {path.removeprefix(f"{DATA}/") for path in disk.tree() if path != DATA}
        assert not left & {"repaired", "repairing"}, place


@pytest.mark.parametrize(
    ("damage", "ordered"),
    [
        pytest.param(much, True, marks=pytest.mark.slow),
        pytest.param(much, False, marks=pytest.mark.slow),
        (one_byte, True),
        pytest.param(one_byte, False, marks=pytest.mark.slow),
    ],
)
def test_repair_that_crashes_anywhere_is_completed_by_another(
    damage: Callable[[SimulatedDisk], None], ordered: bool
) -> None:
    repaired = Repaired(damage)
    count = 0
    for state in crash_states(repaired.start, repaired.trace, sampled=1, ordered=ordered):
        repaired.check(state.disk, state.place)
        count += 1
    assert count > 50


@pytest.mark.parametrize("damage", [one_byte, pytest.param(much, marks=pytest.mark.slow)])
def test_repair_whose_disk_fails_anywhere_is_completed_by_another(
    damage: Callable[[SimulatedDisk], None],
) -> None:
    repaired = Repaired(damage)
    failed = 0
    for number, call in enumerate(repaired.calls):
        if call.kind == "close":
            continue
        disk = repaired.start.copy()
        error = errno.ENOSPC if call.kind in ("pwritev", "allocate", "mkdir") else errno.EIO
        disk.fail(number, OSError(error, "it fails"))
        try:
            repair(directory_of(disk))
        except OSError:
            failed += 1
            assert not [p for p in disk.tree() if p.startswith(f"{DATA}/repairing/")], call
        repaired.check(disk.killed(), f"{call} fails")
    assert failed > 50
