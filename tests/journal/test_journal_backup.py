"""Backups of a journal that goes on: each is what it amounted to at one moment."""

import io
import random
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from crash_states import CrashState
from journal_world import DATA, SMALL, Expectations, Progressed, World, check_goes_on
from simulated_disk import SimulatedDisk

from mbctl.errors import MbctlError, ServerError, ServerStopping
from mbctl.files import Directory
from mbctl.journal.backup import CONTENTS_NAME
from mbctl.journal.records import Backup
from mbctl.model import NS_PER_S
from mbctl.offline.repair import verify

OPTIONS = msgspec.structs.replace(SMALL, segment_bytes=4096, snapshot_bytes=4096)


class Taken:
    """A backup that is being read a piece at a time, and when it was begun and given."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world = world
        self.chance = chance
        self.durable_before = world.durable
        self.appended_after: int | None = None
        self.backup: Backup | None = None
        self.content = b""
        self.is_reading = False
        world.journal.backup(self._given)

    @property
    def is_complete(self) -> bool:
        """Whether all of it was read."""
        return self.backup is not None and len(self.content) == self.backup.size

    def _given(self, backup: Backup | MbctlError) -> None:
        assert not isinstance(backup, MbctlError), backup
        self.backup = backup
        # All that was appended before it was asked for is in it, but for what came meanwhile.
        self.appended_after = len(self.world.items)

    def read_some(self) -> None:
        """Ask for the next piece, of any size."""
        if self.backup is None or self.is_reading or self.is_complete:
            return
        self.is_reading = True
        self.backup.read(len(self.content), self.chance.randint(1, 5000), self._read)

    def _read(self, piece: bytes | MbctlError) -> None:
        assert isinstance(piece, bytes), piece
        assert piece
        self.content += piece
        self.is_reading = False

    def restored(self) -> SimulatedDisk:
        """A disk with a directory of it."""
        disk = SimulatedDisk()
        disk.mkdir(DATA)
        with tarfile.open(fileobj=io.BytesIO(self.content)) as archive:
            for member in archive:
                found = archive.extractfile(member)
                assert found is not None
                if member.name != CONTENTS_NAME:
                    disk.write_file(f"{DATA}/{member.name}", found.read())
        return disk


class Going:
    """Traffic at random: a topic that is read at once, one that is not, and one that is dropped."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.world = World(SimulatedDisk(), OPTIONS, chance=chance)
        self.topics = [self.world.topic(name) for name in ("busy", "stuck", "dropped")]
        for topic in self.topics:
            self.world.subscribe(topic)
        self.world.commit()

    def act(self) -> None:
        """Do something, and let some of what follows from it happen."""
        world, (busy, stuck, dropped) = self.world, self.topics
        kind = self.chance.choice("bbbbbbsdat")
        if kind == "b":
            world.send(busy, 200)
            end = world.naive.topics[busy].next_offset
            world.ack(busy, end - 1, end)
            world.trim(busy, end)
        elif kind in "sd":
            world.send(stuck if kind == "s" else dropped, 60)
        elif kind == "a" and world.naive.topics[dropped].next_offset > 3:
            end = world.naive.topics[dropped].next_offset
            if world.naive.topics[dropped].first_offset < end - 1:
                world.trim(dropped, end - 1, "dropped")
        world.commit(is_waited_for=False)
        for _ in range(self.chance.randint(0, 12)):
            world.turns.step()
        if kind == "t":
            world.turns.advance(self.chance.randint(0, NS_PER_S // 5))


def play(seed: int) -> tuple[int, int]:
    """Take backups while things go on; how many, and how many batches were moved."""
    chance = random.Random(seed)
    going = Going(chance)
    world = going.world
    taken: list[Taken] = []
    under_way: list[Taken] = []
    for _ in range(250):
        going.act()
        if chance.random() < 0.04 and len(under_way) < 2:
            under_way.append(Taken(world, chance))
        for one in list(under_way):
            one.read_some()
            if one.is_complete:
                assert one.backup is not None
                one.backup.close()
                under_way.remove(one)
                taken.append(one)
    while not all(one.is_complete for one in under_way):
        for one in under_way:
            one.read_some()
        world.turns.run()
    taken += under_way
    assert world.failures == []
    expectations = Expectations(world.items)
    for one in taken:
        check(one, expectations)
    return len(taken), world.moved


def check(one: Taken, expectations: Expectations) -> None:
    """Assert that what is restored is what there was at one moment while it was begun."""
    disk = one.restored()
    assert one.appended_after is not None
    report = verify(Directory(disk, Path(DATA)))
    assert report.is_whole, report.findings
    mark = Progressed(one.appended_after, one.durable_before)
    found = expectations.check(CrashState(disk, [mark], "backup"), options=OPTIONS)
    check_goes_on(found)


@pytest.mark.parametrize("seed", range(6))
def test_backups_are_what_there_was_at_one_moment(seed: int) -> None:
    count, _ = play(seed)
    assert count > 0


def test_backups_are_taken_while_batches_are_moved() -> None:
    assert sum(play(100 + seed)[1] for seed in range(2)) > 10


def test_what_is_deleted_meanwhile_is_kept_until_the_backup_ends() -> None:
    world = World(SimulatedDisk(), OPTIONS)
    topic = world.topic()
    for _ in range(60):
        world.send(topic, 200)
        world.commit()
    given: list[Any] = []
    world.journal.backup(given.append)
    world.turns.run()
    (backup,) = given
    files = len(world.disk.tree())
    world.delete(topic)
    world.commit()
    world.turns.advance(NS_PER_S)
    assert len(world.disk.tree()) >= files
    backup.close()
    backup.close()
    world.turns.advance(NS_PER_S)
    assert len(world.disk.tree()) <= files - 5


def test_a_journal_that_is_closed_gives_no_backup_and_ends_those_that_are_open() -> None:
    world = World(SimulatedDisk(), OPTIONS)
    world.send(world.topic(), 200)
    world.commit()
    given: list[Any] = []
    world.journal.backup(given.append)
    world.turns.run()
    world.close()
    assert world.disk.descriptors() == []
    pieces: list[Any] = []
    given[0].read(0, 10, pieces.append)
    world.journal.backup(pieces.append)
    assert [type(piece) for piece in pieces] == [ServerStopping, ServerStopping]


def test_a_disk_that_cannot_read_fails_the_backup_and_nothing_else() -> None:
    world = World(SimulatedDisk(), OPTIONS)
    topic = world.topic()
    for _ in range(20):
        world.send(topic, 200)
    world.commit()
    given: list[Any] = []
    world.journal.backup(given.append)
    world.turns.run()
    world.disk.fail(lambda call: call.kind == "pread", OSError(5, "broken"))
    pieces: list[Any] = []
    given[0].read(given[0].size // 2, 5000, pieces.append)
    world.turns.run()
    assert [type(piece) for piece in pieces] == [ServerError]
    assert world.failures == []
    world.send(topic, 200)
    world.commit()
    assert world.durable == len(world.items)
