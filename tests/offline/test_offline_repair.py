"""Damage of every kind: verify finds it, repair keeps the rest and tells what is lost."""

import random
from collections.abc import Callable

import make_golden
import pytest
from damaged import (
    DATA,
    Original,
    check_repair,
    directory_of,
    flip,
    held_if_served,
    original,
    path_of,
    records_of,
    repair,
    segments_of,
)
from journal_world import World
from simulated_disk import SimulatedDisk

from mbctl.errors import InvalidArgument, NewerFormat, ServerError, StorageCorrupt
from mbctl.journal.format import BATCH, BOTH, CHANGES, COLD_NUMBER, FOOTER, HEAD_BYTES, LOST, MOVED
from mbctl.offline.repair import verify
from mbctl.offline.report import Loss

EACH = pytest.mark.parametrize("name", ["closed", "killed", "moved"])


def first_of(disk: SimulatedDisk, kind: int, number: int) -> int:
    """Where the first record of that kind is in a segment; of batches, one that is needed."""
    return next(
        position
        for position, head in records_of(disk, number)
        if head.kind == kind and (head.topic_id in (0, 1) or kind == BOTH)
    )


# --- what is whole --------------------------------------------------------------------------


@EACH
def test_whole_directory_is_found_whole_and_left_alone(name: str) -> None:
    before = original(name)
    report = check_repair(before, before.disk.copy())
    assert report.is_whole
    assert report.topics == len(before.held["topics"])
    assert report.totals.messages >= sum(
        len(batch[2]) for topic in before.held["topics"] for batch in topic["batches"]
    )


def test_write_that_was_never_finished_is_no_damage() -> None:
    before = original("killed")
    disk = before.disk.copy()
    number = segments_of(disk)[-2]
    *_, (position, _) = records_of(disk, number)
    flip(disk, path_of(number), position + 20)
    report = check_repair(before, disk)
    assert report.is_whole
    assert any("never finished" in note for note in report.notes)


# --- damage, one thing at a time ------------------------------------------------------------

Damage = Callable[[SimulatedDisk], None]


def in_head(kind: int, number: int) -> Damage:
    return lambda disk: flip(disk, path_of(number), first_of(disk, kind, number) + 30)


def in_body(kind: int, number: int) -> Damage:
    return lambda disk: flip(disk, path_of(number), first_of(disk, kind, number) + HEAD_BYTES + 5)


def in_file(name: str, position: int) -> Damage:
    return lambda disk: flip(disk, f"{DATA}/{name}", position)


def without(path: str) -> Damage:
    return lambda disk: disk.remove_file(path)


def zeroed(path: str) -> Damage:
    return lambda disk: disk.write_file(path, bytes(len(disk.read_file(path))))


def cut_to(path: str, size: int) -> Damage:
    return lambda disk: disk.write_file(path, disk.read_file(path)[:size])


def without_footer(damage: Damage, number: int) -> Damage:
    """That, in a segment whose footer is damaged as well."""

    def both(disk: SimulatedDisk) -> None:
        damage(disk)
        flip(disk, path_of(number), len(disk.read_file(path_of(number))) - 5)
        flip(disk, path_of(number), first_of_footer, 3)

    first_of_footer = records_of(original("closed").disk, number)[-1][0] + 40
    return both


def swapped(one: int, other: int) -> Damage:
    def swap(disk: SimulatedDisk) -> None:
        contents = disk.read_file(path_of(one)), disk.read_file(path_of(other))
        disk.write_file(path_of(one), contents[1])
        disk.write_file(path_of(other), contents[0])

    return swap


def copied(one: int, other: int) -> Damage:
    return lambda disk: disk.write_file(path_of(other), disk.read_file(path_of(one)))


def renamed(one: int, other: int) -> Damage:
    def rename(disk: SimulatedDisk) -> None:
        disk.write_file(path_of(other), disk.read_file(path_of(one)))
        disk.remove_file(path_of(one))

    return rename


def of_another_journal(number: int) -> Damage:
    return lambda disk: disk.write_file(
        path_of(number), original("killed").disk.read_file(path_of(number))
    )


# Name of the damage: what it does, and whether messages and changes are lost by it.
TABLE: dict[str, tuple[Damage, bool, bool]] = {
    "head of a batch": (in_head(BATCH, 2), True, False),
    "body of a batch": (in_body(BATCH, 2), True, False),
    "head of a batch, footer too": (without_footer(in_head(BATCH, 2), 2), True, False),
    "body of a batch, footer too": (without_footer(in_body(BATCH, 2), 2), True, False),
    "head of changes": (in_head(CHANGES, 3), False, False),
    "body of changes": (in_body(CHANGES, 3), False, False),
    "head of changes, footer too": (without_footer(in_head(CHANGES, 3), 3), False, False),
    "body of changes, footer too": (without_footer(in_body(CHANGES, 3), 3), False, False),
    "head of a dead letter": (in_head(BOTH, 4), True, False),
    "body of a dead letter": (in_body(BOTH, 4), True, False),
    "head of a dead letter, footer too": (without_footer(in_head(BOTH, 4), 4), True, False),
    "body of a dead letter, footer too": (without_footer(in_body(BOTH, 4), 4), True, False),
    "head of a footer": (in_head(FOOTER, 2), False, False),
    "body of a footer": (in_body(FOOTER, 2), False, False),
    "trailer": (
        lambda disk: flip(disk, path_of(2), len(disk.read_file(path_of(2))) - 1),
        False,
        False,
    ),
    "head of a segment": (in_file("0000000002.segment", 20), False, False),
    "segment missing": (without(path_of(2)), True, False),
    "first segment missing": (without(path_of(1)), True, False),
    "segment zeroed": (zeroed(path_of(2)), True, False),
    "segment cut off": (cut_to(path_of(2), 500), True, False),
    "segment empty": (cut_to(path_of(2), 0), True, False),
    "segment without its head": (cut_to(path_of(2), 63), True, False),
    "two segments swapped": (swapped(2, 3), False, False),
    "segment copied over another": (copied(1, 2), True, False),
    "segment renamed": (renamed(2, 9), False, True),
    "segment of another journal": (of_another_journal(2), True, False),
    "spare segment missing": (without(path_of(5)), False, True),
    "snapshot missing": (without(f"{DATA}/snapshot"), False, False),
    "head of the snapshot": (in_file("snapshot", 30), False, False),
    "body of the snapshot": (in_file("snapshot", 100), False, False),
    "snapshot empty": (cut_to(f"{DATA}/snapshot", 0), False, False),
    "FORMAT missing": (without(f"{DATA}/FORMAT"), False, False),
    "FORMAT empty": (cut_to(f"{DATA}/FORMAT", 0), False, False),
    "FORMAT garbled": (in_file("FORMAT", 1), False, False),
    "FORMAT with another id": (in_file("FORMAT", 40), False, False),
}


@pytest.mark.parametrize("damage", TABLE)
def test_damage_is_found_and_all_else_is_kept(damage: str) -> None:
    before = original("closed")
    disk = before.disk.copy()
    act, loses_messages, loses_changes = TABLE[damage]
    act(disk)
    report = check_repair(before, disk)
    assert not report.is_whole
    assert bool(report.lost) == loses_messages, report.lost
    # A snapshot covers these changes, so it does not matter that they are not readable.
    assert bool(report.lost_records) == loses_changes, report.lost_records


COLD = COLD_NUMBER + 1

# The same of a directory of which what is left of some segments was moved.
COLD_TABLE: dict[str, tuple[Damage, bool]] = {
    "head of a batch": (in_head(MOVED, COLD), True),
    "body of a batch": (in_body(MOVED, COLD), True),
    "head of a footer": (in_head(FOOTER, COLD), False),
    "body of a footer": (in_body(FOOTER, COLD), False),
    "head of a segment": (in_file("0000000001.cold", 20), False),
    "segment missing": (without(path_of(COLD)), True),
    "segment zeroed": (zeroed(path_of(COLD)), True),
    "segment cut off": (cut_to(path_of(COLD), 150), True),
    "segment empty": (cut_to(path_of(COLD), 0), True),
    "two cold segments swapped": (swapped(COLD, COLD + 1), False),
    "swapped with another": (swapped(COLD, 4), False),
    "copied over another": (copied(4, COLD), True),
    "cold segment renamed": (renamed(COLD, COLD + 8), False),
    "segment of another journal": (
        lambda disk: disk.write_file(path_of(COLD), original("killed").disk.read_file(path_of(2))),
        True,
    ),
    "segment beside it": (in_head(BATCH, 3), False),
    "snapshot missing": (without(f"{DATA}/snapshot"), False),
}


@pytest.mark.parametrize("damage", COLD_TABLE)
def test_damage_of_what_was_moved_is_found_and_all_else_is_kept(damage: str) -> None:
    before = original("moved")
    disk = before.disk.copy()
    act, loses_messages = COLD_TABLE[damage]
    act(disk)
    report = check_repair(before, disk)
    assert not report.is_whole
    assert bool(report.lost) == loses_messages, report.lost


@EACH
def test_every_byte_that_is_damaged_is_found_or_does_not_matter(name: str) -> None:
    before = original(name)
    chance = random.Random(4)
    outcomes = {True: 0, False: 0}
    for number in segments_of(before.disk):
        data = before.disk.read_file(path_of(number)).rstrip(b"\0")
        for _ in range(8):
            disk = before.disk.copy()
            position = chance.randrange(len(data))
            flip(disk, path_of(number), position, chance.randrange(8))
            try:
                report = check_repair(before, disk)
            except AssertionError as error:
                raise AssertionError(f"byte {position} of segment {number}: {error}") from error
            outcomes[report.is_whole] += 1
            # One byte is in one record, of three messages at most.
            assert sum(loss.next - loss.first for loss in report.lost) <= 3
    assert outcomes[False] > 10, outcomes


def damage_at_random(disk: SimulatedDisk, chance: random.Random) -> list[str]:
    """Damage several things; what, for people."""
    done = []
    for _ in range(chance.choice([1, 2, 3, 5, 9])):
        one, other = chance.choice(segments_of(disk)), chance.choice(segments_of(disk))
        data = disk.read_file(path_of(one))
        used = len(data.rstrip(b"\0"))
        at = chance.randrange(used + 1)
        kinds = ["flip", "flip", "flip", "flip", "cut", "zeros", "swap", "copy", "remove"]
        kind = chance.choice([*kinds, "snapshot", "FORMAT"])
        if kind == "flip" and at < used:
            flip(disk, path_of(one), at, chance.randrange(8))
        elif kind == "cut":
            disk.write_file(path_of(one), data[:at])
        elif kind == "zeros":
            size = min(chance.randrange(700), len(data) - at)
            disk.write_file(path_of(one), data[:at] + bytes(size) + data[at + size :])
        elif kind == "swap":
            swapped(one, other)(disk)
        elif kind == "copy":
            copied(one, other)(disk)
        elif kind == "remove" and one != segments_of(disk)[-1]:
            # Nothing tells of the last file, once it is gone.
            disk.remove_file(path_of(one))
        elif f"{DATA}/{kind}" in disk.tree():
            disk.remove_file(f"{DATA}/{kind}")
        done.append(f"{kind} {one} {other} {at}")
    return done


def check_random_damage(seeds: range) -> None:
    for seed in seeds:
        chance = random.Random(seed)
        before = original(chance.choice(["closed", "killed", "moved"]))
        disk = before.disk.copy()
        done = damage_at_random(disk, chance)
        try:
            check_repair(before, disk)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {done}: {error}") from error


def test_much_damage_at_once_is_repaired_in_one_go() -> None:
    check_random_damage(range(40))


@pytest.mark.slow
def test_very_much_damage_at_once_is_repaired_in_one_go() -> None:
    check_random_damage(range(1_000, 1_300))


# --- what exactly is lost, and how it shows -------------------------------------------------


def test_lost_messages_are_told_by_topic_and_offset_and_read_as_lost() -> None:
    before = original("closed")
    disk = before.disk.copy()
    position, head = next(
        r for r in records_of(disk, 2) if r[1].kind == BATCH and r[1].topic_id == 1
    )
    flip(disk, path_of(2), position + 10)
    report = check_repair(before, disk)
    (topic,) = [t for t in before.held["topics"] if t["topic_id"] == head.topic_id]
    next_offset = head.first_offset + head.count
    assert report.lost == [Loss(topic["name"], head.topic_id, head.first_offset, next_offset)]
    assert len(report.findings) == 1
    found = held_if_served(disk)
    (topic,) = [t for t in found["topics"] if t["topic_id"] == head.topic_id]
    assert [b[2] for b in topic["batches"] if b[0] == head.first_offset] == [{"lost": head.count}]
    assert any("earlier repair" in note for note in verify(directory_of(disk)).notes)
    assert [h.kind for _, h in records_of(disk, 2)].count(LOST) == 1


def test_subscription_keeps_its_older_place_when_its_acknowledgement_is_lost() -> None:
    world = World(options=make_golden.OPTIONS)
    orders = world.topic()
    world.subscribe(orders)
    world.send(orders, count=3)
    world.ack(orders, 0, 1)
    world.commit()
    world.ack(orders, 1, 3)
    world.commit()
    # A mark after it says that it was durable.
    world.quiet()
    disk = world.disk.killed()
    before = Original(disk.copy(), make_golden.held(directory_of(disk.copy())))
    last = [p for p, head in records_of(disk, 1) if head.kind == CHANGES][-1]
    flip(disk, path_of(1), last + HEAD_BYTES + 3)
    assert held_if_served(disk) is None
    report = check_repair(before, disk)
    assert [(found.position, found.what) for found in report.lost_records] == [
        (last, "a record of changes has a wrong checksum")
    ]
    ((state,),) = [topic["subscriptions"] for topic in held_if_served(disk)["topics"]]
    assert (state["cursor"], state["acknowledged"]) == (1, [])
    assert report.lost == []


def test_topic_whose_creation_is_lost_gets_a_name_of_its_own() -> None:
    before = original("closed")
    disk = before.disk.copy()
    disk.remove_file(f"{DATA}/snapshot")
    without_footer(in_body(CHANGES, 1), 1)(disk)
    report = check_repair(before, disk)
    found = {topic["topic_id"]: topic["name"] for topic in held_if_served(disk)["topics"]}
    assert found[1] == "recovered-1"
    assert found[5] == "gone"
    assert report.lost_records
    assert any("recovered-1" in sentence for sentence in report.may_be_missing)


def test_offset_that_was_given_is_not_given_again_after_the_end_is_lost() -> None:
    before = original("closed")
    disk = before.disk.copy()
    for number in segments_of(disk)[1:]:
        disk.remove_file(path_of(number))
    report = check_repair(before, disk)
    assert sum(loss.next - loss.first for loss in report.lost) > 10
    for topic in held_if_served(disk)["topics"]:
        (then,) = [t for t in before.held["topics"] if t["topic_id"] == topic["topic_id"]]
        assert topic["next_offset"] == then["next_offset"]


def test_journal_of_which_only_the_snapshot_is_left_keeps_topics_and_subscriptions() -> None:
    before = original("closed")
    disk = before.disk.copy()
    for number in segments_of(disk):
        disk.remove_file(path_of(number))
    check_repair(before, disk)
    found = held_if_served(disk)
    assert [t["subscriptions"] for t in found["topics"]] == [
        t["subscriptions"] for t in before.held["topics"]
    ]


def test_repair_that_was_interrupted_is_said_to_be() -> None:
    disk = original("closed").disk.copy()
    disk.mkdir(f"{DATA}/repaired")
    report = verify(directory_of(disk))
    assert [finding.what for finding in report.findings] == ["a repair was interrupted"]


def test_verify_makes_no_lock_where_there_is_none() -> None:
    disk = original("closed").disk.copy()
    disk.remove_file(f"{DATA}/LOCK")
    before = disk.tree()
    assert verify(directory_of(disk)).is_whole
    assert disk.tree() == before


# --- what is refused ------------------------------------------------------------------------


def test_directory_in_use_is_refused() -> None:
    disk = original("killed").disk.copy()
    lock = directory_of(disk).open_or_create("LOCK")
    assert lock.lock()
    before = disk.tree()
    with pytest.raises(ServerError, match="is in use by the process"):
        verify(directory_of(disk))
    with pytest.raises(ServerError, match="is in use by the process"):
        repair(directory_of(disk))
    assert disk.tree() == before


def test_what_is_no_data_directory_is_refused() -> None:
    disk = SimulatedDisk()
    disk.mkdir("/data")
    with pytest.raises(InvalidArgument, match="is empty"):
        verify(directory_of(disk))
    disk.write_file("/data/notes.txt", b"mine")
    with pytest.raises(InvalidArgument, match="not a data directory"):
        repair(directory_of(disk))
    assert disk.tree()["/data/notes.txt"] == b"mine"


def test_newer_version_is_refused_and_not_repaired() -> None:
    disk = original("killed").disk.copy()
    data = disk.read_file(f"{DATA}/FORMAT")
    disk.write_file(f"{DATA}/FORMAT", data.replace(b'"format":1', b'"format":2'))
    before = disk.tree()
    for act in (verify, repair):
        with pytest.raises(NewerFormat):
            act(directory_of(disk))
    assert {**disk.tree(), f"{DATA}/LOCK": b""} == {**before, f"{DATA}/LOCK": b""}


def test_files_that_nothing_tells_the_journal_of_are_left_alone() -> None:
    disk = original("closed").disk.copy()
    for path, data in disk.tree().items():
        if data is not None and path.startswith(f"{DATA}/"):
            disk.write_file(path, b"x" * len(data))
    before = disk.tree()
    with pytest.raises(StorageCorrupt, match="nothing tells"):
        repair(directory_of(disk))
    assert disk.tree() == before


def test_first_start_that_was_interrupted_is_whole() -> None:
    disk = World(options=make_golden.OPTIONS).disk.killed()
    disk.remove_file(f"{DATA}/FORMAT")
    report = verify(directory_of(disk))
    assert report.is_whole
    assert report.notes == ["nothing has been kept here yet"]
    assert held_if_served(disk)["topics"] == []


@pytest.mark.parametrize("is_damaged", [False, True])
def test_snapshot_of_which_all_else_is_missing_is_not_begun_over(is_damaged: bool) -> None:
    before = original("closed")
    disk = before.disk.copy()
    for number in segments_of(disk):
        disk.remove_file(path_of(number))
    disk.remove_file(f"{DATA}/FORMAT")
    if is_damaged:
        flip(disk, f"{DATA}/snapshot", 20)
    assert held_if_served(disk) is None
    if is_damaged:
        with pytest.raises(StorageCorrupt, match="nothing tells"):
            repair(directory_of(disk))
    else:
        check_repair(before, disk)
