"""Makes the golden directories of the format: ``python tests/journal/make_golden.py``.

They were made once, by the version that the format began with, and stay as they are: who
changes the format adds others. What they hold is in ``expected.json`` beside their files,
of which the zeros at the end are left off.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[at]) for at in (0, 1, 2)]

from journal_world import DATA, World
from simulated_disk import SimulatedDisk
from virtual_turns import VirtualTurns

from mbctl import batch as batches
from mbctl.files import Directory, Disk
from mbctl.journal.disk import JournalOptions, open_journal
from mbctl.journal.format import segment_name
from mbctl.journal.records import (
    Acknowledged,
    BatchRun,
    Damaged,
    Journal,
    Recovered,
    RecoveredTopic,
    TopicCreated,
)
from mbctl.model import TopicSettings
from mbctl.offline.repair import repair

GOLDEN = Path(__file__).parent / "golden"
VERSION = "format-1"
OPTIONS = JournalOptions(segment_bytes=3072, snapshot_bytes=4096, tail_bytes=512, window=4)


# --- what they hold -----------------------------------------------------------------------


def fill(world: World) -> None:
    """Everything that a journal can hold, over several segments and a snapshot."""
    orders, gone, logs = world.topic("orders"), world.topic("gone"), world.topic("logs")
    settings = TopicSettings(max_messages=1000, retain_age=0.5, when_full="drop_oldest")
    world._append(TopicCreated(4, "bounded", settings, world.turns.wall_ns()))
    world.subscribe(orders, "billing")
    world.subscribe(orders, "audit", 2)
    world.subscribe(logs, "billing")
    world.subscribe(gone, "billing")
    world.subscribe(logs, "strict", max_deliveries=3, dead_letter="bounded")
    world.commit()
    for at in range(8):
        world.send(orders, 40, count=1 + at % 3, session=b"A" * 16)
        world.send(gone, 30, session=b"B" * 16)
        world.send(logs, 20, count=2, session=b"A" * 16)
        world.commit()
        if at % 3 == 2:
            world.quiet()
    world.ack(orders, 0, 4)
    world.ack(orders, 6, 9)
    world.ack(orders, 5, 6, "audit")
    world.ack(logs, 0, 7)
    world.trim(logs, 7)
    world.commit()
    world.delete(gone)
    world.unsubscribe(logs)
    world.commit()
    world.trim(logs, 9, "expired")
    world.redeliver(logs, (9, 11, 2, False), (12, 13, 3, True), subscriber="strict")
    world.redeliver(logs, (9, 10, 3, False), subscriber="strict")
    also = Acknowledged(logs, "strict", [(9, 10)])
    world.send(4, 30, also=also)
    world.commit()
    again = world.topic("gone")
    world.send(again, 30, session=b"C" * 16)
    world.subscribe(again, "late", 1)
    world.commit()


def close(world: World) -> SimulatedDisk:
    """End it as a server that is told to stop; the disk then."""
    world.close()
    return world.disk.killed()


def kill(world: World) -> SimulatedDisk:
    """End it in the middle of sending; the disk then."""
    for _ in range(3):
        world.send(world.naive.next_topic_id - 1, 60, session=b"C" * 16)
        world.commit()
    world.ack(1, 9, 10)
    world.commit()
    return world.disk.killed()


def move(world: World) -> SimulatedDisk:
    """End it after what is left of mostly dead segments was moved; the disk then."""
    world.journal.index = world
    space = world.journal._space
    # So that what is left of two segments does not go into one.
    space.capacity = 900
    for _ in range(2):
        world.look_around()
        world.turns.run()
    space.capacity = OPTIONS.segment_bytes
    assert world.moved
    return kill(world)


def damage_and_repair(world: World) -> SimulatedDisk:
    """The same, damaged so that a batch is lost, and repaired; the disk then."""
    disk = kill(world)
    path = f"{DATA}/{segment_name(2)}"
    content = disk.read_file(path)
    disk.write_file(path, content[:1150] + bytes(100) + content[1250:])
    repair(Directory(disk, Path(DATA)), created=0, segment_bytes=OPTIONS.segment_bytes)
    return disk.killed()


DIRECTORIES: dict[str, Callable[[World], SimulatedDisk]] = {
    "closed": close,
    "killed": kill,
    "moved": move,
    "repaired": damage_and_repair,
}


def filled() -> World:
    """A world that has everything, and has moved nothing."""
    world = World(options=OPTIONS, is_moving=False)
    fill(world)
    return world


# --- files --------------------------------------------------------------------------------


def make(name: str) -> None:
    """Make one of the directories."""
    world = filled()
    disk = DIRECTORIES[name](world)
    target = GOLDEN / VERSION / name
    target.mkdir(parents=True)
    lengths = {}
    for path, content in disk.tree().items():
        file = path.removeprefix(f"{DATA}/")
        if content is not None and "/" not in file:
            lengths[file] = len(content)
            (target / f"{file}.bin").write_bytes(content.rstrip(b"\0"))
    write_json(target / "lengths.json", lengths)
    if name != "repaired":
        assert World(disk.copy(), OPTIONS).seen() == world.naive.seen()
    write_json(target / "expected.json", held(Directory(disk, Path(DATA))))


def write_json(path: Path, value: Any) -> None:
    """Write a value for people and programs."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")


def copy(name: str, target: Path) -> Directory:
    """Put a golden directory to ``target``, as it was."""
    target.mkdir(mode=0o700)
    source = GOLDEN / VERSION / name
    for file, length in msgspec.json.decode((source / "lengths.json").read_bytes()).items():
        content = (source / f"{file}.bin").read_bytes()
        (target / file).write_bytes(content)
        with (target / file).open("r+b") as opened:
            opened.truncate(length)
    return Directory(Disk(), target)


# --- looking ------------------------------------------------------------------------------


def held(directory: Directory) -> Any:
    """What a journal holds, as plain values; it is opened and closed."""
    turns = VirtualTurns()
    journal, recovered = open_journal(directory, turns, OPTIONS, new_worker=turns.new_worker)
    found = {
        "next_topic_id": recovered.next_topic_id,
        "topics": [_topic(topic, journal, turns) for topic in recovered.topics],
        "sessions": _sessions(recovered),
    }
    ended: list[bool] = []
    journal.close(lambda: ended.append(True))
    turns.run()
    assert ended
    return found


def _topic(topic: RecoveredTopic, journal: Journal, turns: VirtualTurns) -> Any:
    found = msgspec.to_builtins(
        {
            field: getattr(topic, field)
            for field in topic.__struct_fields__
            if field not in ("runs", "subscriptions")
        }
    )
    found["batches"] = [
        batch for run in topic.runs for batch in _batches(run, topic.first_offset, journal, turns)
    ]
    found["subscriptions"] = [msgspec.to_builtins(state) for state in topic.subscriptions]
    return msgspec.json.decode(msgspec.json.encode(found))


def _batches(run: BatchRun, first_offset: int, journal: Journal, turns: VirtualTurns) -> Any:
    nexts = [*run.firsts[1:], run.next_offset]
    for first, next_, place, timestamp in zip(
        run.firsts, nexts, run.places, run.timestamps, strict=True
    ):
        if next_ > first_offset:
            bodies: list[Any] = []
            journal.read([place], bodies.extend)
            turns.run()
            yield [first, timestamp, _payloads(bodies[0], next_ - first)]


def _payloads(body: Any, count: int) -> Any:
    if isinstance(body, Damaged):
        return {"lost": count}
    payloads = [payload.decode() for payload in batches.decode(body).payloads]
    assert len(payloads) == count
    return payloads


def _sessions(recovered: Recovered) -> Any:
    return {
        state.session.hex(): [list(answer) for answer in state.answers]
        for state in recovered.sessions
    }


if __name__ == "__main__":
    for each in DIRECTORIES:
        # One that is there was made by the version it is to be compared with.
        if not (GOLDEN / VERSION / each).exists():
            make(each)
