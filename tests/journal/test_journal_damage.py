"""Damage to the files of a journal: what is recovered, what is refused, and that bytes are kept.

A journal that was killed is damaged in one place and opened. Three things may come of it:
all is as it was; or what no record proves to have been durable is cut off and kept in
``lost+found``; or the journal is refused and nothing of it changed.
"""

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from crash_states import CrashState
from crc32c import crc32c
from journal_world import DATA, SMALL, Expectations, World, noted
from simulated_disk import SimulatedDisk

from mbctl.errors import NewerFormat, StorageCorrupt
from mbctl.journal.format import (
    BATCH,
    FORMAT_VERSION,
    HEAD_BYTES,
    SEGMENT_HEAD_BYTES,
    Head,
    place_of,
    salt_of,
    segment_name,
    unpack_head,
    unpack_segment_head,
)
from mbctl.journal.records import Damaged

LOST = f"{DATA}/lost+found"


class Record:
    """A record of the journal, and where it is."""

    def __init__(self, head: Head, segment: int, position: int) -> None:
        self.kind = head.kind
        self.number = head.number
        self.mark = head.mark
        self.segment = segment
        self.position = position
        self.end = position + HEAD_BYTES + head.body_size
        """The position after it."""
        self.path = path_of(segment)


def path_of(number: int) -> str:
    return f"{DATA}/{segment_name(number)}"


def segments(disk: SimulatedDisk) -> list[int]:
    """The numbers of all segments."""
    return [int(path[-18:-8]) for path in disk.tree() if path.endswith(".segment")]


def records(disk: SimulatedDisk, number: int) -> list[Record]:
    """The records of a segment, its footer included."""
    data = disk.read_file(path_of(number))
    head = unpack_segment_head(data)
    assert head is not None
    found, position = [], SEGMENT_HEAD_BYTES
    while (at := unpack_head(data, salt_of(head.journal_id), position)) is not None:
        found.append(Record(at, number, position))
        position = found[-1].end
    return found


class Killed:
    """A journal that was killed, to be damaged again and again."""

    def __init__(self, world: World) -> None:
        self.disk = world.disk.killed()
        self.items = list(world.items)
        self.batches = [item for item in self.items if isinstance(item, tuple)]
        self._expectations = Expectations(self.items)
        self.all = World(self.disk.copy()).seen()

    def damaged(self, path: str, change: Callable[[bytes], bytes]) -> SimulatedDisk:
        """A copy of the disk with a file changed."""
        disk = self.disk.copy()
        disk.write_file(path, change(disk.read_file(path)))
        return disk

    def opened(self, disk: SimulatedDisk) -> World | None:
        """Open it; None if it is refused, which must leave everything as it was."""
        before = bytes_of(disk)
        try:
            return World(disk)
        except (StorageCorrupt, NewerFormat):
            assert bytes_of(disk) == before, "what was refused was changed"
            return None

    def check_prefix(self, disk: SimulatedDisk) -> World:
        """Open it and assert that it holds the first items, however many."""
        return self._expectations.check(CrashState(disk, [], ""), is_bounded=False)


def bytes_of(disk: SimulatedDisk) -> dict[str, bytes | None]:
    """All files but the lock, into which every start writes."""
    return {path: data for path, data in disk.tree().items() if not path.endswith("/LOCK")}


def flipped(position: int, bit: int = 0) -> Callable[[bytes], bytes]:
    """Change a file by one bit."""

    def flip(data: bytes) -> bytes:
        return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]

    return flip


ROOMY = msgspec.structs.replace(SMALL, segment_bytes=8192)


def killed_world() -> World:
    """Some sealed segments, and one with records before a mark, the mark, and two after it."""
    world = World(options=msgspec.structs.replace(SMALL, segment_bytes=2560))
    topic = world.topic()
    world.subscribe(topic)
    world.commit()
    while len(segments(world.disk)) < 5:
        world.send(topic, 100)
        world.commit()
    for size in (30, 100):
        world.send(topic, size)
        world.commit()
    world.subscribe(topic, "audit")
    world.commit()
    world.quiet()
    world.send(topic, 60)
    world.commit()
    world.ack(topic, 0, 1)
    world.commit()
    assert world.durable == len(world.items)
    return world


@pytest.fixture(scope="module")
def killed() -> Killed:
    """A journal of several segments, killed."""
    found = Killed(killed_world())
    numbers = segments(found.disk)
    assert len(numbers) >= 4
    assert records(found.disk, numbers[-2])
    assert records(found.disk, numbers[-1]) == []
    return found


@pytest.fixture(scope="module")
def last(killed: Killed) -> list[Record]:
    """The records of the segment that was written to."""
    found = records(killed.disk, segments(killed.disk)[-2])
    assert len(found) >= 6
    return found


def proven(found: list[Record], without: Record) -> int:
    """Up to which position the other records of a segment prove that all was durable."""
    segment = place_of(found[0].segment, 0)
    return max([other.mark - segment for other in found if other is not without] + [0])


# --- the last segment ---------------------------------------------------------------------------


@pytest.mark.slow
def test_every_cut_of_the_last_segment_leaves_the_records_before_it(
    killed: Killed, last: list[Record]
) -> None:
    path = last[0].path
    before = len(killed.check_prefix(killed.disk.copy()).items)
    for position in range(last[-1].end, -1, -1):
        disk = killed.damaged(path, lambda data, size=position: data[:size])  # type: ignore[misc]
        with noted(f"cut at {position}"):
            if position < SEGMENT_HEAD_BYTES:
                assert killed.opened(disk) is None
                continue
            whole = [record for record in last if record.end <= position]
            world = killed.check_prefix(disk)
            count = len(world.items)
            assert count <= before
            before = count
            end = whole[-1].end if whole else SEGMENT_HEAD_BYTES
            rest = killed.disk.read_file(path)[end:position].rstrip(b"\0")
            assert kept(disk) == ([rest] if rest else [])


def kept(disk: SimulatedDisk) -> list[bytes]:
    """What is in lost+found."""
    return [data for path, data in disk.tree().items() if path.startswith(LOST + "/") and data]


def damages(last: list[Record], part: str) -> Iterator[tuple[Record, int]]:
    """Every byte of the heads, or every third of the bodies, of a segment's records."""
    for record in last:
        head = range(record.position, record.position + HEAD_BYTES)
        body = range(record.position + HEAD_BYTES, record.end, 3)
        for position in head if part == "head" else body:
            yield record, position


def test_every_byte_of_a_head_flipped_is_refused_below_the_mark_and_cut_above(
    killed: Killed, last: list[Record]
) -> None:
    outcomes = set()
    for record, position in damages(last, "head"):
        disk = killed.damaged(record.path, flipped(position, position % 8))
        with noted(f"byte {position}"):
            if proven(last, record) > record.position:
                assert killed.opened(disk) is None
                outcomes.add("refused")
            else:
                check_cut(killed, disk, record)
                outcomes.add("cut")
    assert outcomes == {"refused", "cut"}


def check_cut(killed: Killed, disk: SimulatedDisk, record: Record) -> None:
    """Assert that a record and what follows it is cut off and kept, and what is before is there."""
    rest = disk.read_file(record.path)[record.position :].rstrip(b"\0")
    world = killed.check_prefix(disk)
    assert kept(disk) == [rest]
    assert len([note for note in world.notes if "never acknowledged" in note]) == 1
    assert world.journal._next_record == record.number


def test_every_body_flipped_above_the_mark_is_cut(killed: Killed, last: list[Record]) -> None:
    count = 0
    for record, position in damages(last, "body"):
        if proven(last, record) <= record.position:
            check_cut(killed, killed.damaged(record.path, flipped(position)), record)
            count += 1
    assert count > 5


def test_a_batch_flipped_below_the_mark_is_told_to_who_reads_it_and_no_other_is_lost(
    killed: Killed, last: list[Record]
) -> None:
    count = 0
    for record, position in damages(last, "body"):
        if record.kind == BATCH and proven(last, record) > record.position:
            check_damaged_batch(killed, record, position)
            count += 1
    assert count > 20


def check_damaged_batch(killed: Killed, record: Record, position: int) -> None:
    disk = killed.damaged(record.path, flipped(position))
    world = World(disk)
    place = place_of(record.segment, record.position)
    # Once when it is found, and again after a restart, and the bytes are still the same.
    for again in (world, World(disk.power_cut())):
        places = [p for topic in again.recovered.topics for run in topic.runs for p in run.places]
        found = dict(zip(places, again.read(places), strict=True))
        damage = found.pop(place)
        assert isinstance(damage, Damaged)
        assert f"byte {record.position}" in damage.reason
        assert not any(isinstance(body, Damaged) for body in found.values())
        assert len(found) + 1 == len(killed.batches)
    assert (
        disk.read_file(record.path)[record.position : record.end]
        == (flipped(position)(killed.disk.read_file(record.path))[record.position : record.end])
    )


def test_changes_flipped_below_the_mark_are_refused(killed: Killed) -> None:
    world = World(options=ROOMY)
    topic = world.topic()
    world.commit()
    world.send(topic)
    world.commit()
    early = Killed(world)
    found = records(early.disk, 1)
    for position in range(found[0].position + HEAD_BYTES, found[0].end):
        assert early.opened(early.damaged(found[0].path, flipped(position))) is None


def test_whole_records_after_a_torn_one_are_cut_as_well() -> None:
    world = World(SimulatedDisk(), ROOMY)
    topic = world.topic()
    world.commit()
    for _ in range(3):
        world.send(topic, 40)
    killed = Killed(world)
    world.commit()
    written = Killed(world)
    first = records(written.disk, 1)[1]
    disk = written.damaged(first.path, flipped(first.position + HEAD_BYTES + 5))
    opened = killed.check_prefix(disk)
    assert len(opened.items) == 1
    assert kept(disk)[0].count(b"mbRe") == 3


# --- payloads that look like a journal ------------------------------------------------------------


@pytest.mark.parametrize("source", ["an old record of the same journal", "a forged one"])
def test_a_torn_payload_that_looks_like_a_record_proves_nothing(source: str) -> None:
    world = World(SimulatedDisk(), ROOMY)
    topic = world.topic()
    world.commit()
    world.send(topic, 50)
    world.commit()
    world.quiet()
    found = records(world.disk, 1)
    data = world.disk.read_file(path_of(1))
    if source == "a forged one":
        forged = bytearray(data[found[-1].position : found[-1].position + HEAD_BYTES])
        struct.pack_into("<Q", forged, 16, 1_000)
        struct.pack_into("<Q", forged, HEAD_BYTES - 16, place_of(9, 9))
        forged[-4:] = struct.pack("<I", crc32c(bytes(forged[:-4])))
        payload = bytes(forged)
    else:
        payload = data[found[1].position : found[-1].end]
    world.send(topic, payload=payload)
    world.commit()
    killed = Killed(world)
    torn = records(killed.disk, 1)[-1]
    at = killed.disk.read_file(path_of(1)).find(payload[:80], torn.position)
    assert at > 0
    opened = World(killed.damaged(torn.path, flipped(torn.position + 3)))
    assert len(opened.seen()[1][topic][4]) == 1


# --- sealed segments, their footers, snapshot, format -------------------------------------------


# A third of the bytes, which is each field of each kind of record many times.
@pytest.mark.slow
def test_any_byte_flipped_anywhere_is_never_silently_something_else(killed: Killed) -> None:
    check_any_flip(killed, every=3)


@pytest.mark.slow
def test_any_byte_flipped_after_a_clean_end_is_never_silently_something_else() -> None:
    world = killed_world()
    world.close()
    check_any_flip(Killed(world), every=3)


def check_any_flip(killed: Killed, every: int) -> None:
    """Flip bytes of all files: it is as it was, or reported, refused, or an unproven tail cut."""
    outcomes: dict[str, int] = {}
    chance = random.Random(0)
    number = segments(killed.disk)[-2]
    for path, data in bytes_of(killed.disk).items():
        for position in range(chance.randrange(every), len((data or b"").rstrip(b"\0")), every):
            disk = killed.damaged(path, flipped(position, chance.randrange(8)))
            with noted(f"byte {position} of {path}"):
                world = killed.opened(disk)
                outcome = "refused" if world is None else outcome_of(killed, world)
                if outcome == "cut":
                    assert path == path_of(number)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert {"as it was", "refused", "reported"} <= set(outcomes)


def outcome_of(killed: Killed, world: World) -> str:
    """What became of a journal that was damaged and opened."""
    places = [p for topic in world.recovered.topics for run in topic.runs for p in run.places]
    if any(isinstance(body, Damaged) for body in world.read(places)):
        return "reported"
    if world.seen() == killed.all:
        return "as it was"
    assert kept(world.disk), "something is missing and nothing is kept"
    killed.check_prefix(world.disk.killed())
    return "cut"


def test_a_record_proves_that_the_segments_before_it_were_whole() -> None:
    world = World()
    topic = world.topic()
    while 2 not in segments(world.disk) or not records(world.disk, 2):
        world.send(topic)
        world.commit()
    killed = Killed(world)
    sealed, only = records(killed.disk, 1), records(killed.disk, 2)
    assert len(only) == 1
    assert only[0].mark < place_of(2, 0)
    for position in range(sealed[0].position, sealed[-1].end):
        with noted(f"byte {position}"):
            opened = killed.opened(killed.damaged(path_of(1), flipped(position)))
            if opened is not None:
                assert outcome_of(killed, opened) in ("as it was", "reported")


@pytest.mark.parametrize("name", ["snapshot", "FORMAT"])
def test_a_file_that_all_depends_on_is_refused_when_it_is_cut_or_missing(
    killed: Killed, name: str
) -> None:
    path = f"{DATA}/{name}"
    for size in range(len(killed.disk.read_file(path)) - 1):
        disk = killed.damaged(path, lambda data, size=size: data[:size])  # type: ignore[misc]
        assert killed.opened(disk) is None, size
    disk = killed.disk.copy()
    disk.remove_file(path)
    assert killed.opened(disk) is None


def test_a_sealed_segment_is_read_by_its_records_when_its_trailer_is_damaged(
    killed: Killed,
) -> None:
    first = segments(killed.disk)[0]
    size = len(killed.disk.read_file(path_of(first)))
    for position in range(size - 20, size):
        world = killed.opened(killed.damaged(path_of(first), flipped(position)))
        assert world is not None
        assert world.seen() == killed.all


# --- whole segments -----------------------------------------------------------------------------


def removed(disk: SimulatedDisk, number: int) -> None:
    disk.remove_file(path_of(number))


def zeroed(disk: SimulatedDisk, number: int) -> None:
    disk.write_file(path_of(number), bytes(len(disk.read_file(path_of(number)))))


def emptied(disk: SimulatedDisk, number: int) -> None:
    disk.write_file(path_of(number), b"")


def replaced_by_another(disk: SimulatedDisk, number: int) -> None:
    other = next(n for n in segments(disk) if n != number)
    disk.write_file(path_of(number), disk.read_file(path_of(other)))


def swapped(disk: SimulatedDisk, number: int) -> None:
    other = next(n for n in segments(disk) if n != number)
    mine, its = disk.read_file(path_of(number)), disk.read_file(path_of(other))
    disk.write_file(path_of(number), its)
    disk.write_file(path_of(other), mine)


def renamed(disk: SimulatedDisk, number: int) -> None:
    disk.write_file(path_of(number) + ".bak", disk.read_file(path_of(number)))
    disk.remove_file(path_of(number))


def renumbered(disk: SimulatedDisk, number: int) -> None:
    disk.write_file(path_of(segments(disk)[-1] + 1), disk.read_file(path_of(number)))
    disk.remove_file(path_of(number))


def of_another_journal(disk: SimulatedDisk, number: int) -> None:
    other = killed_world().disk
    disk.write_file(path_of(number), other.read_file(path_of(number)))


def without_records(disk: SimulatedDisk, number: int) -> None:
    data = disk.read_file(path_of(number))
    disk.write_file(path_of(number), data[:SEGMENT_HEAD_BYTES].ljust(SMALL.segment_bytes, b"\0"))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "damage",
    [
        *(removed, zeroed, emptied, replaced_by_another, swapped, renamed, renumbered),
        *(of_another_journal, without_records),
    ],
)
def test_a_segment_that_is_not_what_it_was_is_refused(
    killed: Killed, damage: Callable[[SimulatedDisk, int], None], which: int
) -> None:
    disk = killed.disk.copy()
    damage(disk, segments(disk)[which])
    assert killed.opened(disk) is None


def test_the_segment_that_was_written_to_is_missed(killed: Killed) -> None:
    disk = killed.disk.copy()
    removed(disk, segments(disk)[-2])
    assert killed.opened(disk) is None


def test_a_copy_of_a_segment_under_a_number_of_its_own_is_refused(killed: Killed) -> None:
    disk = killed.disk.copy()
    first, *_, last = segments(disk)
    disk.write_file(path_of(last + 1), disk.read_file(path_of(first)))
    assert killed.opened(disk) is None


def test_a_segment_nothing_was_written_to_may_be_missing(killed: Killed) -> None:
    disk = killed.disk.copy()
    removed(disk, segments(disk)[-1])
    world = killed.opened(disk)
    assert world is not None
    assert world.seen() == killed.all


@pytest.mark.parametrize(
    "name", ["snapshot.tmp", "0000000002.segment.tmp", "0000000009.segment.tmp", "FORMAT.tmp"]
)
def test_what_was_not_finished_is_not_looked_at(killed: Killed, name: str) -> None:
    for data in (b"", b"nonsense", killed.disk.read_file(path_of(segments(killed.disk)[0]))):
        disk = killed.disk.copy()
        disk.write_file(f"{DATA}/{name}", data)
        world = killed.opened(disk)
        assert world is not None
        assert world.seen() == killed.all


def test_strange_files_are_left_alone(killed: Killed) -> None:
    names = ["README", "2.segment", "0000000001.segment.bak", "snapshot.old", "core"]
    disk = killed.disk.copy()
    for name in names:
        disk.write_file(f"{DATA}/{name}", b"strange")
    world = killed.opened(disk)
    assert world is not None
    world.close()
    assert all(disk.read_file(f"{DATA}/{name}") == b"strange" for name in names)


# --- formats of a later version -------------------------------------------------------------------


def newer_directory(killed: Killed) -> SimulatedDisk:
    old, new = b'"format":%d' % FORMAT_VERSION, b'"format":%d' % (FORMAT_VERSION + 1)
    return killed.damaged(f"{DATA}/FORMAT", lambda data: data.replace(old, new))


def newer_snapshot(killed: Killed) -> SimulatedDisk:
    return killed.damaged(f"{DATA}/snapshot", lambda data: reversioned(data, 0, 8, 56))


def newer_segment(killed: Killed) -> SimulatedDisk:
    path = path_of(segments(killed.disk)[1])
    return killed.damaged(path, lambda data: reversioned(data, 0, 8, 48))


def newer_record(killed: Killed) -> SimulatedDisk:
    record = records(killed.disk, segments(killed.disk)[-2])[-1]
    head = unpack_segment_head(killed.disk.read_file(record.path))
    assert head is not None
    salt = salt_of(head.journal_id)
    return killed.damaged(
        record.path,
        lambda data: reversioned(data, record.position, 4, HEAD_BYTES - 4, salt),
    )


def reversioned(data: bytes, at: int, version: int, crc: int, salt: int = 0) -> bytes:
    """The same bytes with the next version in the head that is at ``at``, its CRC right."""
    assert data[at + version] == FORMAT_VERSION
    changed = bytearray(data)
    old = struct.unpack_from("<I", changed, at + crc)[0]
    assert old == crc32c(bytes(changed[at : at + crc]), salt)
    changed[at + version] += 1
    struct.pack_into("<I", changed, at + crc, crc32c(bytes(changed[at : at + crc]), salt))
    return bytes(changed)


@pytest.mark.parametrize("newer", [newer_directory, newer_snapshot, newer_segment, newer_record])
def test_a_newer_format_is_refused_and_nothing_written(
    killed: Killed, newer: Callable[[Killed], Any]
) -> None:
    disk = newer(killed)
    before = bytes_of(disk)
    with pytest.raises(NewerFormat) as caught:
        World(disk)
    assert f"format {FORMAT_VERSION + 1}" in str(caught.value)
    assert bytes_of(disk) == before
