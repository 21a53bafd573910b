"""What crashes may leave of a simulated disk: at every moment of a trace, or at one."""

import random
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, Final

import msgspec
from simulated_disk import Change, Marked, SimulatedDisk, Wrote

# So many combinations of what a power cut may leave are all tried; of more, a selection.
FEW: Final = 16
# Of so many things at most, each is kept or lost alone.
ALONE_MAX: Final = 24


class CrashState(msgspec.Struct, frozen=True):
    """A disk after a crash, and what had been marked in the trace by then."""

    disk: SimulatedDisk
    marks: list[Any]
    place: str
    """After which change the crash came and what it left, for people."""


def crash_states(
    start: SimulatedDisk,
    trace: Sequence[Change],
    *,
    seed: int = 0,
    sampled: int = 4,
    alone: int = ALONE_MAX,
    ordered: bool = True,
) -> Iterator[CrashState]:
    """The states that a crash may leave at any moment while ``trace`` happens to ``start``.

    At each moment there is one after a kill of the process, and those after a power cut:
    of more than a few, ``alone`` things are kept and lost alone, and so many combinations
    are ``sampled``. What was seen before with the same marks is left out.
    """
    chance = random.Random(seed)
    disk, marks, seen = start.copy(), list[Any](), set[int]()
    changes: list[Change | None] = [*_in_pages(trace, start.page_bytes)]
    # What a trace that begins with a mark has marked counts from the start.
    if not changes or not isinstance(changes[0], Marked):
        changes.insert(0, None)
    for number, change in enumerate(changes):
        if isinstance(change, Marked):
            marks.append(change.what)
        elif change is not None:
            disk.apply(change)
            disk.trace.clear()
        place = f"after change {number} {_shown(change)}: "
        if change is not None:
            yield CrashState(disk.killed(), marks[:], place + "killed")
        cuts = power_cuts(disk, chance, sampled=sampled, alone=alone, ordered=ordered)
        for chosen, left in cuts:
            key = hash((len(marks), tuple(left.tree().items())))
            if key not in seen:
                seen.add(key)
                yield CrashState(left, marks[:], place + f"power cut that left {chosen}")


def power_cuts(
    disk: SimulatedDisk,
    chance: random.Random,
    *,
    sampled: int = 4,
    alone: int = ALONE_MAX,
    ordered: bool = True,
) -> Iterator[tuple[list[int], SimulatedDisk]]:
    """What power cuts may leave of a disk as it is now: all of it where that is little."""
    counts = disk.choices(ordered=ordered)
    are_few = prod(counts) <= FEW
    for chosen in _all(counts) if are_few else _some(counts, chance, sampled, alone):
        yield chosen, disk.power_cut(chosen, ordered=ordered)


def _all(counts: list[int]) -> Iterator[list[int]]:
    if not counts:
        yield []
        return
    for rest in _all(counts[1:]):
        for first in range(counts[0]):
            yield [first, *rest]


def _some(
    counts: list[int], chance: random.Random, sampled: int, alone: int
) -> Iterator[list[int]]:
    """Nothing, everything, each thing alone, everything but each, and some at random."""
    everything = [count - 1 for count in counts]
    yield [0] * len(counts)
    yield everything
    changing = [at for at, count in enumerate(counts) if count > 1]
    for at in chance.sample(changing, min(len(changing), alone)):
        yield [everything[at] if at == here else 0 for here in range(len(counts))]
        yield [0 if at == here else everything[here] for here in range(len(counts))]
    for _ in range(sampled):
        yield [chance.randrange(count) for count in counts]


def _in_pages(trace: Sequence[Change], page_bytes: int) -> Iterator[Change]:
    """The trace with every write as one for each of its pages, in their order."""
    for change in trace:
        if not isinstance(change, Wrote):
            yield change
            continue
        position, data = change.position, change.data
        while data:
            size = page_bytes - position % page_bytes
            yield Wrote(change.inode, position, data[:size])
            position, data = position + size, data[size:]


def _shown(change: Change | None) -> str:
    if isinstance(change, Wrote):
        return f"Wrote(inode={change.inode}, {len(change.data)} bytes at {change.position})"
    return str(change)
