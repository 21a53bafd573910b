"""Directories to be damaged, what they held, and what must be left of it after a repair."""

import functools
from pathlib import Path
from typing import Any

import make_golden
import msgspec
from journal_world import DATA
from simulated_disk import SimulatedDisk

from mbctl.errors import StorageCorrupt
from mbctl.files import Directory
from mbctl.journal.format import (
    COLD_NUMBER,
    HEAD_BYTES,
    SEGMENT_HEAD_BYTES,
    Head,
    salt_of,
    segment_name,
    unpack_head,
)
from mbctl.offline import repair as offline
from mbctl.offline.repair import verify
from mbctl.offline.report import Report

NOW = 1_800_000_000_000_000_000


def directory_of(disk: SimulatedDisk) -> Directory:
    return Directory(disk, Path(DATA))


def repair(directory: Directory) -> Report:
    """Repair a directory; new segments are small."""
    segment_bytes = make_golden.OPTIONS.segment_bytes
    return offline.repair(directory, created=NOW, segment_bytes=segment_bytes)


def path_of(number: int) -> str:
    return f"{DATA}/{segment_name(number)}"


class Original(msgspec.Struct, frozen=True):
    """A directory before it is damaged, and what it holds."""

    disk: SimulatedDisk
    held: Any


@functools.cache
def original(name: str) -> Original:
    """One of the golden workloads, made anew: ``closed``, ``killed`` or ``moved``."""
    world = make_golden.filled()
    disk = make_golden.DIRECTORIES[name](world)
    return Original(disk, make_golden.held(directory_of(disk.copy())))


def segments_of(disk: SimulatedDisk) -> list[int]:
    """The numbers of all segments, the cold ones first."""
    cold = [int(path[-15:-5]) + COLD_NUMBER for path in disk.tree() if path.endswith(".cold")]
    return cold + [int(path[-18:-8]) for path in disk.tree() if path.endswith(".segment")]


def records_of(disk: SimulatedDisk, number: int) -> list[tuple[int, Head]]:
    """The records of a segment with their positions, its footer included."""
    said = msgspec.json.decode(disk.read_file(f"{DATA}/FORMAT"))
    salt = salt_of(bytes.fromhex(said["journal"]))
    data = disk.read_file(path_of(number))
    found, position = [], SEGMENT_HEAD_BYTES
    while (head := unpack_head(data, salt, position)) is not None:
        found.append((position, head))
        position += HEAD_BYTES + head.body_size
    return found


def flip(disk: SimulatedDisk, path: str, position: int, bit: int = 0) -> None:
    """Turn one bit over."""
    data = bytearray(disk.read_file(path))
    data[position] ^= 1 << bit
    disk.write_file(path, bytes(data))


def held_if_served(disk: SimulatedDisk) -> Any:
    """What a server finds in a directory, or None if it refuses it; the disk is not changed."""
    try:
        return make_golden.held(directory_of(disk.copy()))
    except StorageCorrupt:
        return None


def check_repair(before: Original, disk: SimulatedDisk) -> Report:
    """Verify and repair a damaged directory; assert that all holds that always must.

    Returns what verify said of it.
    """
    as_it_was = disk.tree()
    report = verify(directory_of(disk))
    assert disk.tree() == as_it_was, "verify changed something"
    served = held_if_served(disk)
    if report.is_whole:
        assert served is not None, "a server refuses what verify finds whole"
        assert b'"lost"' not in msgspec.json.encode(served), "a message that was whole is lost"
        repair(directory_of(disk))
        changed = {path for path, data in disk.tree().items() if data != as_it_was.get(path)}
        assert changed <= {f"{DATA}/LOCK"}, "what was whole is changed"
        return report
    repaired = repair(directory_of(disk))
    check_kept(as_it_was, disk, repaired)
    again = verify(directory_of(disk))
    assert again.is_whole, f"{again.findings} are left of {report.findings}"
    assert not again.lost
    found = held_if_served(disk)
    assert found is not None, "a server refuses what was repaired"
    for name in ("findings", "lost", "lost_records", "may_be_missing"):
        assert getattr(repaired, name) == getattr(report, name)
    check_held(before.held, found, report)
    return report


def check_kept(as_it_was: Any, disk: SimulatedDisk, repaired: Report) -> None:
    """Assert that every file that was is still there, byte for byte: here, or where it is said."""
    tree = disk.tree()
    assert repaired.kept_in
    for path, data in as_it_was.items():
        name = path.removeprefix(f"{DATA}/")
        if data is None or name == path:
            continue
        is_moved = name in repaired.put_away
        assert tree[f"{DATA}/{repaired.kept_in}/{name}" if is_moved else path] == data, name


def check_held(whole: Any, found: Any, report: Report) -> None:
    """Assert that what is found is what was there, but for what the report tells of."""
    is_told = bool(report.lost_records or report.may_be_missing)
    is_cut = any("never finished" in note for note in report.notes)
    then = {topic["topic_id"]: topic for topic in whole["topics"]}
    now = {topic["topic_id"]: topic for topic in found["topics"]}
    assert len({topic["name"] for topic in now.values()}) == len(now)
    if not is_told and not is_cut:
        assert set(then) == set(now)
    for topic_id in set(then) & set(now):
        lost = {
            offset
            for loss in report.lost
            if loss.topic_id == topic_id
            for offset in range(loss.first, loss.next)
        }
        check_topic(then[topic_id], now[topic_id], lost, is_told=is_told, is_cut=is_cut)
    assert found["next_topic_id"] >= max([*now, 0]) + 1


def check_topic(then: Any, now: Any, lost: set[int], *, is_told: bool, is_cut: bool) -> None:
    """Assert the same of one topic."""
    at = min(now["first_offset"], now["batches"][0][0]) if now["batches"] else now["next_offset"]
    there = {}
    for first, _, payloads in now["batches"]:
        assert first == at, "offsets are missing"
        count = payloads["lost"] if isinstance(payloads, dict) else len(payloads)
        kept = range(max(first, now["first_offset"]), first + count)
        assert isinstance(payloads, dict) == bool(set(kept) & lost), "lost and there, or neither"
        at += count
        if not isinstance(payloads, dict):
            there[first] = payloads
    assert at == now["next_offset"]
    for first, _, payloads in then["batches"]:
        if first in there:
            assert there[first] == payloads
        elif not is_cut and first >= now["first_offset"]:
            # How far a topic reached may not be known if more than that is lost.
            end = min(first + len(payloads), at) if is_told else first + len(payloads)
            assert set(range(first, end)) <= lost
    assert is_cut or now["next_offset"] >= then["next_offset"] or is_told
    if not is_told and not is_cut:
        assert now["subscriptions"] == then["subscriptions"]
        assert {**now, "batches": 0, "next_offset": 0} == {**then, "batches": 0, "next_offset": 0}
        return
    before = {state["subscriber"]: acknowledged_by(state) for state in then["subscriptions"]}
    for state in now["subscriptions"]:
        acknowledged = acknowledged_by(state)
        # What was subscribed anew or has ended may be as it was before that.
        if state["subscriber"] in before:
            assert acknowledged <= before[state["subscriber"]]


def acknowledged_by(state: Any) -> set[int]:
    """The offsets that a subscription has acknowledged."""
    ranges = [(0, state["cursor"]), *state["acknowledged"]]
    return {offset for first, next_ in ranges for offset in range(first, next_)}
