"""Counts what is alive in each segment, and says which ones are worth emptying.

How many batches of a segment are alive is counted; how many bytes that is, is an estimate:
by the mean size of all of them while all are alive, then of what was found to be left of
others, until somebody has looked what is left of this one.
"""

from collections import Counter
from collections.abc import Iterable

from mbctl.journal.format import HEAD_BYTES, POSITION_BITS, is_cold

# What a batch has in a segment beside its body: a head, and its part of the footer.
BATCH_BYTES = HEAD_BYTES + 28
# So many segments at most are emptied into one.
_SOURCES_MAX = 64


class Census:
    """The sealed segments, how large they are, and how much of each is alive."""

    def __init__(
        self, sizes: dict[int, int], live: dict[int, int], batches: dict[int, tuple[int, int]]
    ) -> None:
        self.sizes: dict[int, int] = {}
        """The lengths of the sealed segments."""
        self.bytes = 0
        """Bytes of all of them, and of a copy that is being made."""
        self._live: Counter[int] = Counter(live)
        self._batches = Counter({number: count for number, (count, _) in batches.items()})
        self._batch_bytes = Counter({number: size for number, (_, size) in batches.items()})
        # How large a batch is taken to be that is alive in a segment of which some are dead.
        self._left: dict[int, int] = {}
        # How large those were that somebody looked at last.
        self._usual: int | None = None
        # How many batches of a segment were alive when somebody looked, and a while ago.
        self._known: dict[int, int] = {}
        self._before: dict[int, int] = {}
        # Those of which nothing has died between the last two looks around.
        self._steady: set[int] = set()
        self.is_changed = False
        """Whether segments were sealed since the last ``look_around``."""
        # Those that cannot be emptied: something in them is damaged, and kept for whoever asks.
        self._fixed: set[int] = set()
        # Bytes of the segments in which something is alive, and estimated bytes that are.
        self._held = self._alive = 0
        self.add_sealed(sizes)

    def live(self, number: int) -> int:
        """How many batches of that segment may still be needed."""
        return self._live[number]

    def add_batch(self, number: int, size: int) -> None:
        """Count a batch of ``size`` bytes that was appended to that segment."""
        self._live[number] += 1
        self._batches[number] += 1
        self._batch_bytes[number] += size + BATCH_BYTES

    def add_sealed(self, sizes: dict[int, int]) -> None:
        """Take over segments that were sealed."""
        for number, size in sizes.items():
            self.sizes[number] = size
            self.bytes += size
            mean = self._batch_bytes[number] // max(1, self._batches[number])
            self._left[number] = mean if self._usual is None else min(mean, self._usual)
            self._count(number, 1)
        self.is_changed = True

    def add_cold(self, number: int, size: int, batches: int) -> None:
        """Take over a cold segment to which so many batches were moved."""
        self._batches[number], self._batch_bytes[number] = batches, size
        self.add_sealed({number: size})

    def move(self, places: Iterable[int], number: int) -> None:
        """Count batches as being in that segment, and not at ``places`` any more."""
        counts = Counter(place >> POSITION_BITS for place in places)
        self.subtract(counts)
        self._live[number] += sum(counts.values())

    def subtract(self, counts: Counter[int]) -> bool:
        """Count batches out, by segment; whether nothing is alive in one of these now."""
        is_one_dead = False
        for number, count in counts.items():
            is_sealed = number in self.sizes
            if is_sealed:
                self._count(number, -1)
            self._live[number] -= count
            assert self._live[number] >= 0, f"more was released of segment {number} than it had"
            if is_sealed:
                self._count(number, 1)
                is_one_dead |= not self._live[number]
        return is_one_dead

    def remove(self, number: int) -> None:
        """Forget a segment in which nothing is alive."""
        assert not self._live[number]
        self.bytes -= self.sizes.pop(number)
        for by_number in (self._live, self._batches, self._batch_bytes, self._left):
            del by_number[number]
        self._known.pop(number, None)
        self._steady.discard(number)
        self._fixed.discard(number)

    def fix(self, number: int) -> None:
        """Leave that segment as it is from now on."""
        if number in self.sizes and number not in self._fixed:
            self._count(number, -1)
            self._fixed.add(number)

    def put_right(self, number: int, count: int, size: int) -> None:
        """Take it that ``count`` batches that are alive there have ``size`` bytes."""
        self._known[number] = self._live[number]
        if number in self.sizes and count:
            self._count(number, -1)
            self._left[number] = self._usual = -(-size // count)
            self._count(number, 1)

    def _count(self, number: int, sign: int) -> None:
        """Count a segment and what is alive in it in, or out."""
        if self._live[number] and number not in self._fixed:
            self._held += sign * self.sizes[number]
            self._alive += sign * self.alive(number)

    # --- what to empty ------------------------------------------------------------------------

    def alive(self, number: int) -> int:
        """About how many bytes of a sealed segment are alive."""
        if self._live[number] == self._batches[number]:
            return min(self.sizes[number], self._batch_bytes[number])
        return min(self.sizes[number], self._live[number] * self._left[number])

    def excess(self) -> int:
        """By how many bytes the segments are larger than twice what is alive in them."""
        return self._held - 2 * self._alive

    def is_sparse(self, number: int) -> bool:
        """Whether less than half of a segment is alive, but something."""
        if not self._live[number] or number in self._fixed:
            return False
        return 2 * self.alive(number) < self.sizes[number]

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing has died anywhere between the last two looks around."""
        return len(self._steady) == len(self._before)

    def look_around(self) -> list[int]:
        """Note which segments are at rest; those to look at, which may be emptier than it seems.

        At rest are those of which nothing has died since this was asked the last time: one
        that is being read to its end is left alone.
        """
        self.is_changed = False
        before, self._before = self._before, {}
        self._steady.clear()
        doubtful: list[int] = []
        for number in self.sizes:
            live = self._live[number]
            if not live or number in self._fixed:
                continue
            self._before[number] = live
            if before.get(number) == live:
                self._steady.add(number)
                is_known = live == self._batches[number] or self._known.get(number) == live
                if not is_known and not self.is_sparse(number):
                    doubtful.append(number)
        return doubtful[:_SOURCES_MAX]

    def sources(self, capacity: int, excess: int) -> list[int]:
        """The segments to empty into one of about ``capacity`` bytes, the emptiest first.

        They are as many as free ``excess`` bytes; and cold ones that are no larger than those
        together, so that there never are many small ones: a batch is moved for that only to
        a segment that is twice as large.
        """
        sparse = [number for number in self._steady if self.is_sparse(number)]
        sparse.sort(key=lambda number: self.alive(number) / self.sizes[number])
        chosen: list[int] = []
        total = 0
        for number in sparse[:_SOURCES_MAX]:
            alive = self.alive(number)
            if chosen and (excess <= 0 or total + alive > capacity):
                break
            chosen.append(number)
            total += alive
            excess -= self.sizes[number] - alive
        others = [n for n in self.sizes if is_cold(n) and self._live[n] and n not in chosen]
        for number in sorted(others, key=self.sizes.__getitem__):
            alive = self.alive(number)
            is_small = self.sizes[number] <= total and total + alive <= capacity
            if not chosen or not is_small or len(chosen) >= _SOURCES_MAX:
                break
            if number not in self._fixed:
                chosen.append(number)
                total += alive
        return chosen
