"""Which batches a journal has that may be needed, and where: of each topic, in order.

In the segments that were appended to, those of a topic follow each other. Some may have been
moved to cold segments, and be in both if somebody was killed in between: then the newest
copy counts. What is moved is older than most, and little; so whole columns are taken over
wherever nothing of a segment was moved.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import add, lt

from mbctl.journal.footer import Columns, SegmentIndex
from mbctl.journal.format import POSITION_BITS, is_cold
from mbctl.journal.records import BatchRun
from mbctl.journal.state import State, TopicState


class Runs:
    """The batches of one topic."""

    def __init__(self, topic: TopicState) -> None:
        self.first_offset = topic.first_offset
        self.runs: list[BatchRun] = []
        self._moved: list[tuple[int, Columns]] = []

    def add(self, number: int, columns: Columns) -> None:
        """Add what a segment has; they come by rising number, the cold ones last."""
        if columns.next_offset <= self.first_offset:
            return
        if is_cold(number):
            self._moved.append((number, columns))
        else:
            self.runs.append(columns.run(number))

    def merge(self) -> None:
        """Put what was moved between the others, and in place of what is still there."""
        if not self._moved:
            return
        moved = _Moved(self._moved, self.first_offset)
        merged: list[BatchRun] = []
        at = 0
        for run in self.runs:
            low = bisect_left(moved.firsts, run.firsts[0], at)
            high = bisect_left(moved.firsts, run.next_offset, low)
            merged += moved.runs(at, low)
            merged += [run] if low == high else _mixed(run, moved, low, high)
            at = high
        merged += moved.runs(at, len(moved.firsts))
        self.runs, self._moved = merged, []

    def live(self) -> Counter[int]:
        """How many of them are in which segment."""
        found: Counter[int] = Counter()
        for run in self.runs:
            number, last = run.places[0] >> POSITION_BITS, run.places[-1] >> POSITION_BITS
            if number == last and not is_cold(number):
                found[number] += len(run.places)
            else:
                found.update(place >> POSITION_BITS for place in run.places)
        return found

    def missing_from(self, next_offset: int) -> int | None:
        """The first offset below ``next_offset`` that should be there and is not."""
        at = self.first_offset
        for run in self.runs:
            if run.firsts[0] > at:
                break
            at = max(at, run.next_offset)
        return at if at < next_offset else None


def runs_of(state: State, segments: Sequence[tuple[int, SegmentIndex]]) -> dict[int, Runs]:
    """By topic id, the batches that may be needed; the segments come by rising number."""
    runs = {topic_id: Runs(topic) for topic_id, topic in state.topics.items()}
    for number, index in segments:
        for topic_id, columns in index.topics.items():
            if topic_id in runs:
                runs[topic_id].add(number, columns)
    for of_topic in runs.values():
        of_topic.merge()
    return runs


class _Moved:
    """What was moved of a topic, by rising offset, each once."""

    def __init__(self, columns: list[tuple[int, Columns]], first_offset: int) -> None:
        self.firsts, self.nexts, self.places = array("Q"), array("Q"), array("Q")
        self.timestamps, self.sizes = array("q"), array("I")
        for number, one in columns:
            self.firsts += one.firsts
            self.nexts.extend(map(add, one.firsts, one.counts))
            self.places += one.places(number)
            self.timestamps += one.timestamps
            self.sizes += one.sizes
        if all(map(lt, self.firsts, islice(self.firsts, 1, None))):
            # Most often they were moved in order.
            kept = slice(bisect_right(self.nexts, first_offset), None)
            self._keep(lambda column: column[kept])
            return
        order = sorted(range(len(self.firsts)), key=self.firsts.__getitem__)
        # Those of one offset stay in order, so that the newest copy is the last.
        after = [*map(self.firsts.__getitem__, order[1:]), -1]
        picked = [
            at
            for at, following in zip(order, after, strict=True)
            if self.firsts[at] != following and self.nexts[at] > first_offset
        ]
        self._keep(lambda column: array(column.typecode, map(column.__getitem__, picked)))

    def _keep(self, pick: Callable[["array[int]"], "array[int]"]) -> None:
        self.firsts, self.nexts = pick(self.firsts), pick(self.nexts)
        self.places = pick(self.places)
        self.timestamps, self.sizes = pick(self.timestamps), pick(self.sizes)

    def runs(self, low: int, high: int) -> Iterator[BatchRun]:
        """Some of them, as runs that have no gaps."""
        begun = low
        for at in range(low, high):
            if at + 1 == high or self.nexts[at] != self.firsts[at + 1]:
                yield BatchRun(
                    self.firsts[begun : at + 1],
                    self.places[begun : at + 1],
                    self.timestamps[begun : at + 1],
                    self.sizes[begun : at + 1],
                    self.nexts[at],
                )
                begun = at + 1


def _mixed(run: BatchRun, moved: _Moved, low: int, high: int) -> Iterator[BatchRun]:
    """A run of which some batches were moved, and what was moved of it."""
    at = 0
    while low < high:
        end = bisect_left(run.firsts, moved.firsts[low], at)
        yield from _part(run, at, end, moved.firsts[low])
        # Those that follow each other there and here.
        begun, at = low, end
        while low < high and at < len(run.firsts) and run.firsts[at] == moved.firsts[low]:
            low, at = low + 1, at + 1
        # One that is not here at all stands for itself.
        low = max(low, begun + 1)
        yield from moved.runs(begun, low)
    yield from _part(run, at, len(run.firsts), run.next_offset)


def _part(run: BatchRun, at: int, end: int, next_offset: int) -> Iterator[BatchRun]:
    if at < end:
        yield BatchRun(
            run.firsts[at:end],
            run.places[at:end],
            run.timestamps[at:end],
            run.sizes[at:end],
            next_offset,
        )
