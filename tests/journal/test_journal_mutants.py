"""Broken journals and disks: the other tests of the journal must fail on every one of them.

A test of crashes that passes whatever the journal does would prove nothing. Here the
journal is broken in the ways that journals are, and each time something has to notice.
"""

from collections.abc import Callable
from typing import Any

import engine_world
import msgspec
import pytest
import test_journal_crash as crashes
import test_journal_damage as damages
from crash_states import crash_states
from journal_world import TEARING, Expectations, World, check_goes_on
from simulated_disk import SimulatedDisk
from test_journal_model import walk_many

from mbctl.errors import MbctlError
from mbctl.files import Directory, File
from mbctl.journal.cold import ColdSegment
from mbctl.journal.disk import DiskJournal
from mbctl.journal.keeper import Keeper
from mbctl.journal.mover import Mover
from mbctl.journal.records import Acknowledged, Record, TopicTrimmed
from mbctl.journal.recovery import recover
from mbctl.journal.scan import Scan, scan
from mbctl.journal.segment import create_segment
from mbctl.journal.snapshot import Snapshot, write_snapshot
from mbctl.journal.state import State

Patch = pytest.MonkeyPatch
CAUGHT = (AssertionError, MbctlError, OSError, KeyError)


class ForgetfulDisk(SimulatedDisk):
    """A disk that says it has synced a file and has not."""

    def fdatasync(self, descriptor: int) -> None:
        self._called("fdatasync", self._descriptor(descriptor).path)


class DirectoryForgettingDisk(SimulatedDisk):
    """A disk that says it has synced a directory and has not."""

    def fsync(self, descriptor: int) -> None:
        if self._is_file(self._descriptor(descriptor).inode):
            super().fsync(descriptor)


class EarlyJournal(DiskJournal):
    """A journal that says a commit is done when it has begun."""

    def commit(self, done: Callable[[], None]) -> None:
        done()
        super().commit(lambda: None)


class UnsyncedFile(File):
    """A file that is never forced to disk."""

    def sync_all(self) -> None:
        pass


class UnsyncedDirectory(Directory):
    """A directory whose names are never forced to disk."""

    def sync(self) -> None:
        pass


class DirectoryOfUnsyncedFiles(Directory):
    """A directory whose files are never forced to disk."""

    def _open(self, name: str, flags: int) -> File:
        path = self.path / name
        return UnsyncedFile(self.disk, path, self.disk.open(str(path), flags))


def in_directory(kind: type[Directory], function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, in a directory of another kind."""

    def changed(directory: Directory, *args: Any) -> Any:
        return function(kind(directory.disk, directory.path), *args)

    return changed


# --- found by crashing everywhere -------------------------------------------------------------


def acknowledge_early(patch: Patch) -> None:
    patch.setattr("mbctl.journal.disk.DiskJournal", EarlyJournal)
    patch.setattr("mbctl.journal.disk._INLINE_NS", -1)


def skip_the_sync_of_a_new_segment(patch: Patch) -> None:
    mutant = in_directory(DirectoryOfUnsyncedFiles, create_segment)
    patch.setattr("mbctl.journal.space.create_segment", mutant)


def skip_the_sync_of_a_new_segments_name(patch: Patch) -> None:
    mutant = in_directory(UnsyncedDirectory, create_segment)
    patch.setattr("mbctl.journal.space.create_segment", mutant)


def skip_the_sync_of_a_snapshot(patch: Patch) -> None:
    mutant = in_directory(DirectoryOfUnsyncedFiles, write_snapshot)
    patch.setattr("mbctl.journal.keeper.write_snapshot", mutant)


def skip_the_sync_of_a_snapshots_name(patch: Patch) -> None:
    mutant = in_directory(UnsyncedDirectory, write_snapshot)
    patch.setattr("mbctl.journal.keeper.write_snapshot", mutant)


def skip_all_syncs_of_a_start(patch: Patch) -> None:
    def mutant(directory: Directory, *args: Any, **named: Any) -> Any:
        class Unsynced(DirectoryOfUnsyncedFiles, UnsyncedDirectory):
            """Neither files nor names are forced to disk."""

        return recover(Unsynced(directory.disk, directory.path), *args, **named)

    patch.setattr("mbctl.journal.disk.recover", mutant)


def forget_acknowledgements(patch: Patch) -> None:
    add = State.add

    def mutant(self: State, record: Record) -> None:
        if not isinstance(record, Acknowledged):
            add(self, record)

    patch.setattr(State, "add", mutant)


def cover_a_segment_too_much(patch: Patch) -> None:
    def mutant(directory: Directory, state: State, segment: int, *args: Any) -> Snapshot:
        return write_snapshot(directory, state, segment + 1, *args)

    patch.setattr("mbctl.journal.keeper.write_snapshot", mutant)


def delete_what_no_snapshot_covers(patch: Patch) -> None:
    tidy = Keeper.tidy

    def mutant(self: Keeper, **how: Any) -> None:
        if dead := [n for n in self._census.sizes if not self._census.live(n)]:
            self._delete(dead)
        tidy(self, **how)

    patch.setattr(Keeper, "tidy", mutant)


def number_records_anew(patch: Patch) -> None:
    def mutant(*args: Any, **named: Any) -> Any:
        opened = recover(*args, **named)
        number = max(1, opened.next_number - 1)
        return msgspec.structs.replace(opened, next_number=number)

    patch.setattr("mbctl.journal.disk.recover", mutant)


def skip_the_sync_of_a_copy(patch: Patch) -> None:
    mutant = in_directory(DirectoryOfUnsyncedFiles, ColdSegment)
    patch.setattr("mbctl.journal.mover.ColdSegment", mutant)


def skip_the_sync_of_a_copys_name(patch: Patch) -> None:
    mutant = in_directory(UnsyncedDirectory, ColdSegment)
    patch.setattr("mbctl.journal.mover.ColdSegment", mutant)


def name_no_copy(patch: Patch) -> None:
    """Switch to a copy that is not sealed and has no name yet."""
    patch.setattr(Mover, "_finish", lambda self, move: (move.cold.position, 0))


def forget_what_was_moved(patch: Patch) -> None:
    patch.setattr("mbctl.journal.runs.Runs.merge", lambda self: None)


MUTANTS: dict[Callable[[Patch], None], crashes.Workload] = {
    acknowledge_early: crashes.send_and_acknowledge,
    skip_the_sync_of_a_new_segment: crashes.one_long_group,
    skip_the_sync_of_a_new_segments_name: crashes.one_long_group,
    skip_the_sync_of_a_snapshot: crashes.full_segments,
    skip_the_sync_of_a_snapshots_name: crashes.reclaim,
    skip_all_syncs_of_a_start: crashes.send_and_acknowledge,
    forget_acknowledgements: crashes.send_and_acknowledge,
    cover_a_segment_too_much: crashes.full_segments,
    delete_what_no_snapshot_covers: crashes.reclaim,
    number_records_anew: crashes.send_and_acknowledge,
    skip_the_sync_of_a_copy: crashes.move,
    skip_the_sync_of_a_copys_name: crashes.move,
    name_no_copy: crashes.move,
    forget_what_was_moved: crashes.move,
}


def check_crashes(workload: crashes.Workload, disk: SimulatedDisk) -> None:
    """What the tests of crashes do, in short."""
    world = crashes.done(workload, World(disk))
    expectations = Expectations(world.items)
    for state in crash_states(world.start, world.disk.trace, ordered=False):
        check_goes_on(expectations.check(state))


# These are found late.
SLOW = (
    *(skip_the_sync_of_a_snapshot, skip_the_sync_of_a_snapshots_name),
    *(cover_a_segment_too_much, forget_acknowledgements),
    *(skip_the_sync_of_a_copy, skip_the_sync_of_a_copys_name, forget_what_was_moved),
)


@pytest.mark.parametrize(
    "mutant",
    [pytest.param(m, marks=pytest.mark.slow) if m in SLOW else m for m in MUTANTS],
)
def test_crashing_everywhere_finds_a_journal_that_would(
    mutant: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    mutant(monkeypatch)
    with pytest.raises(CAUGHT):
        check_crashes(MUTANTS[mutant], SimulatedDisk(page_bytes=TEARING))


@pytest.mark.parametrize("kind", [ForgetfulDisk, DirectoryForgettingDisk])
def test_crashing_everywhere_finds_a_disk_that_does_not_sync(kind: type[SimulatedDisk]) -> None:
    with pytest.raises(CAUGHT):
        check_crashes(crashes.send_and_acknowledge, kind(page_bytes=TEARING))


# --- found by damaging everything -------------------------------------------------------------


def scan_ignoring_marks(*args: Any, durable: int = 0, **named: Any) -> Scan:
    found = scan(*args, durable=0, **named)
    found.mark = 0
    return found


def test_flipping_heads_finds_a_recovery_that_ignores_marks(monkeypatch: Patch) -> None:
    killed = damages.Killed(damages.killed_world())
    last = damages.records(killed.disk, damages.segments(killed.disk)[-2])
    monkeypatch.setattr("mbctl.journal.recovery.scan", scan_ignoring_marks)
    with pytest.raises(CAUGHT):
        damages.test_every_byte_of_a_head_flipped_is_refused_below_the_mark_and_cut_above(
            killed, last
        )


def test_flipping_bodies_finds_a_reader_that_ignores_checksums(monkeypatch: Patch) -> None:
    killed = damages.Killed(damages.killed_world())
    last = damages.records(killed.disk, damages.segments(killed.disk)[-2])
    monkeypatch.setattr("mbctl.journal.reader.crc32c", lambda body: AnyNumber())
    with pytest.raises(CAUGHT):
        damages.test_a_batch_flipped_below_the_mark_is_told_to_who_reads_it_and_no_other_is_lost(
            killed, last
        )


class AnyNumber(int):
    """Is equal to every number."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


# --- found by random walks --------------------------------------------------------------------


class ForgetfulCrashingDisk(engine_world.CrashingDisk, ForgetfulDisk):
    """Crashes, and has not synced."""


def forget_to_sync(patch: Patch) -> None:
    patch.setattr("engine_world.CrashingDisk", ForgetfulCrashingDisk)


def forget_sessions(patch: Patch) -> None:
    patch.setattr("mbctl.core.broker.Broker.restore_session", lambda *args: None)


def release_too_early(patch: Patch) -> None:
    """Reclaim what is acknowledged by one reader, whether or not the others have it."""
    append = DiskJournal.append

    def mutant(self: DiskJournal, record: Record) -> None:
        append(self, record)
        if isinstance(record, Acknowledged):
            append(self, TopicTrimmed(record.topic_id, record.ranges[-1][1]))

    patch.setattr(DiskJournal, "append", mutant)


@pytest.mark.parametrize(
    "mutant",
    [
        *(acknowledge_early, forget_to_sync, forget_acknowledgements),
        *(forget_sessions, release_too_early),
    ],
)
def test_random_walks_find_a_journal_that_would(
    mutant: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    mutant(monkeypatch)
    with pytest.raises(CAUGHT):
        walk_many(range(20), 150)
