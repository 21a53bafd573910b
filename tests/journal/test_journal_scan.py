"""Reading what is on the disk: zeros that count, scattered batches, bad sectors, old sessions."""

import errno

import pytest
from journal_world import SMALL, World
from simulated_disk import SimulatedDisk

import mbctl.files
from mbctl.journal.disk import JournalOptions
from mbctl.journal.format import position_of
from mbctl.journal.records import Damaged
from mbctl.model import KIB, NS_PER_S

LARGE = JournalOptions(segment_bytes=64 * KIB, tail_bytes=0)


@pytest.mark.parametrize("size", [*range(1, 600, 13), 2000])
def test_zeros_at_the_end_of_the_last_message_are_not_taken_for_room(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mbctl.files, "_BLOCK_BYTES", 256)
    monkeypatch.setattr(mbctl.files, "_ZEROS", bytes(256))
    world = World(options=LARGE)
    topic = world.topic()
    world.send(topic, payload=b"begins" + bytes(size))
    world.commit()

    opened = World(world.disk.copy(), LARGE, items=world.items)

    assert opened.seen() == world.naive.seen()
    assert opened.notes == []


def test_scattered_batches_do_not_keep_what_lies_between_them() -> None:
    world = World(options=JournalOptions(segment_bytes=1 << 20, tail_bytes=0))
    topics = [world.topic(f"topic-{number}") for number in range(50)]
    for _ in range(20):
        for topic in topics:
            world.send(topic, 200)
    world.commit()
    places = [place for (topic, _), place in world.places.items() if topic == topics[7]]

    found: list[list[object]] = []
    world.journal.read(places, found.append)
    world.turns.run()

    kept = {id(body.obj): len(body.obj) for body in found[0] if isinstance(body, memoryview)}
    size = sum(len(body) for body in found[0])  # type: ignore[arg-type]
    assert sum(kept.values()) < 2 * size
    assert len(found[0]) == 20


class BadSector(SimulatedDisk):
    """A disk on which one byte of every file cannot be read, once it is known which."""

    bad = -1

    def pread(self, descriptor: int, size: int, position: int) -> bytes:
        if position <= self.bad < position + size:
            raise OSError(errno.EIO, "bad sector")
        return super().pread(descriptor, size, position)


def test_a_bad_sector_costs_only_what_is_in_it() -> None:
    disk = BadSector()
    world = World(disk, LARGE)
    topic = world.topic()
    for _ in range(5):
        world.send(topic, 3000)
    world.commit()
    places = [world.places[topic, offset] for offset in range(5)]

    disk.bad = position_of(places[2]) + 1000
    bodies = world.read(places)

    assert [isinstance(body, Damaged) for body in bodies] == [False, False, True, False, False]
    assert not world.failures


def test_the_sends_of_a_session_are_known_whatever_the_clock_on_the_wall_does() -> None:
    world = World()
    early, late = world.topic("early"), world.topic("late")
    world.send(early, session=b"a" * 16)
    world.commit()
    world.turns.wall_offset_ns -= 3600 * NS_PER_S
    world.send(late, session=b"b" * 16)
    world.commit()
    world.close()

    opened = World(world.disk.copy(), items=world.items)
    assert {session.session for session in opened.recovered.sessions} == {b"a" * 16, b"b" * 16}


def test_sessions_that_were_idle_for_long_are_forgotten() -> None:
    world = World()
    topic = world.topic()
    world.send(topic, session=b"a" * 16)
    world.commit()
    world.turns.advance(3600 * NS_PER_S)
    for _ in range(2 * SMALL.segment_bytes // 100):
        world.send(topic, session=b"b" * 16)
        world.commit()
    world.close()

    opened = World(world.disk.copy(), items=world.items)
    assert [session.session for session in opened.recovered.sessions] == [b"b" * 16]
