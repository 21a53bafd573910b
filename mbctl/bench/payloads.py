"""Payloads to send, and the check that each arrived once and in order.

    plain      the publisher's byte, then random bytes of a pool that repeats; a reader compares
               what it gets with the slice of the pool that must come next, at the speed of C
    numbered   the publisher's byte, the message's number, then random bytes; a reader looks at
               every message by itself

The pool is drawn from a seed, so publishers and readers have the same without talking.
"""

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache

import msgspec

POOL_BYTES = 8 * 1024 * 1024
"""About how much a pool takes; above the caches of most machines, so that reading it is real."""
POOL_MESSAGES_MAX = 65_536
HEAD = 9
"""The publisher's byte and the number's eight: the least that a numbered payload takes."""

_FAULTS_SHOWN = 5


class Content(msgspec.Struct, frozen=True):
    """What is sent: messages of ``size`` bytes, numbered one by one or not."""

    size: int = 100
    numbered: bool = False
    seed: int = 1
    mixed: bool = False
    """Whether sizes go evenly from half of ``size`` to half as much again."""


def pool_of(content: Content, publisher: int) -> list[bytes]:
    """The payloads of one publisher, which repeat; the same list for the same arguments."""
    return _pool(content.size, content.seed, publisher, content.mixed)


@lru_cache(maxsize=32)
def _pool(size: int, seed: int, publisher: int, mixed: bool) -> list[bytes]:
    count = min(max(POOL_BYTES // size, 16), POOL_MESSAGES_MAX)
    source = random.Random(seed * 256 + publisher)
    head = bytes([publisher])
    if mixed:
        sizes = range(max(size // 2, HEAD) - 1, size + size // 2)
        return [head + source.randbytes(source.choice(sizes)) for _ in range(count)]
    drawn = source.randbytes((size - 1) * count)
    return [head + drawn[n * (size - 1) : (n + 1) * (size - 1)] for n in range(count)]


def batches_of(content: Content, publisher: int, batch: int) -> Iterator[list[bytes]]:
    """Batches of one publisher, endlessly."""
    pool = pool_of(content, publisher)
    # Slices of the pool are made before the measuring begins; together they begin anew with it.
    doubled = pool + pool
    count = len(pool)
    batch = min(batch, count)
    starts = list(range(0, count - count % batch, batch))
    if not content.numbered:
        slices = [doubled[start : start + batch] for start in starts]
        while True:
            yield from slices
    number = 0
    while True:
        for start in starts:
            payloads = doubled[start : start + batch]
            yield [numbered(p, number + n) for n, p in enumerate(payloads)]
            number += batch


def numbered(payload: bytes, number: int) -> bytes:
    """``payload`` with a number of its own after the publisher's byte."""
    return payload[:1] + number.to_bytes(8, "big") + payload[HEAD:]


class Check:
    """Looks at all that one reader gets; ``count`` messages so far, ``faults`` in sentences."""

    def __init__(self, content: Content, publishers: int, batch: int) -> None:
        self.count = 0
        self._faults: list[str] = []
        self._faults_count = 0
        kind = _NumberedSource if content.numbered else _PlainSource
        self._sources = [kind(content, number, batch) for number in range(publishers)]
        self._single = self._sources[0] if publishers == 1 else None

    @property
    def faults(self) -> list[str]:
        """What went wrong, the first few of it and how much there is in all."""
        more = self._faults_count - len(self._faults)
        return [*self._faults, f"and {more:,} more"] if more > 0 else self._faults

    def take(self, payloads: Sequence[bytes]) -> None:
        """Compare a group with what must come next."""
        self.count += len(payloads)
        if type(payloads) is not list:
            payloads = list(payloads)
        single = self._single
        if single is not None and single.matches(payloads):
            return
        self._sort_out(payloads)

    def finish(self, totals: Sequence[int]) -> None:
        """Compare with how many messages each publisher sent in all."""
        for source, total in zip(self._sources, totals, strict=True):
            for fault in source.missing(total):
                self._note(fault)

    def _sort_out(self, payloads: Sequence[bytes]) -> None:
        """Give each run of messages to the publisher it came from."""
        first, length = 0, len(payloads)
        while first < len(payloads):
            owner = payloads[first][0] if payloads[first] else 256
            if owner >= len(self._sources):
                self._note(f"a message that nobody sent: {bytes(payloads[first][:16])!r}...")
                first += 1
                continue
            source = self._sources[owner]
            # As much as matches in one piece, found from above.
            length = min(length, len(payloads) - first)
            while not source.matches(payloads[first : first + length]):
                if length == 1:
                    for fault in source.explain(payloads[first]):
                        self._note(fault)
                    break
                length = min(length // 2, source.run)
            first += length
            length = 2 * length

    def _note(self, fault: str) -> None:
        self._faults_count += 1
        if len(self._faults) < _FAULTS_SHOWN:
            self._faults.append(fault)


class _PlainSource:
    """One publisher's messages as a reader expects them, from a pool that repeats."""

    def __init__(self, content: Content, publisher: int, batch: int) -> None:
        pool = pool_of(content, publisher)
        self.run = min(batch, len(pool))
        # The publisher sends whole batches, and begins anew where no whole one is left.
        self._pool = pool[: len(pool) - len(pool) % self.run]
        self._batches = [
            self._pool[start : start + self.run] for start in range(0, len(self._pool), self.run)
        ]
        self._who = f"publisher {publisher}"
        self._position = 0
        """In the pool."""
        self._count = 0
        """All in all."""
        self._places: dict[bytes, int] = {}

    def matches(self, payloads: Sequence[bytes]) -> bool:
        """Whether these come next; if so they are counted."""
        count, first, run = len(payloads), self._position, self.run
        if first % run or count % run:
            if payloads != self._expected(first, count):
                return False
        else:
            # Whole batches, as they mostly come: each is compared with one that is there already.
            batch = first // run
            for start in range(0, count, run):
                if payloads[start : start + run] != self._batches[batch]:
                    return False
                batch = (batch + 1) % len(self._batches)
        self._position = (first + count) % len(self._pool)
        self._count += count
        return True

    def _expected(self, first: int, count: int) -> list[bytes]:
        """So many payloads from this position on."""
        expected = self._pool[first : first + count]
        while len(expected) < count:
            expected += self._pool[: count - len(expected)]
        return expected

    def explain(self, payload: bytes) -> list[str]:
        """What is wrong with a message that does not come next."""
        if not self._places:
            self._places = {payload: place for place, payload in enumerate(self._pool)}
        place = self._places.get(payload)
        if place is None:
            return [f"{self._who}: a message was changed after number {self._count:,}"]
        ahead = (place - self._position) % len(self._pool)
        if ahead > len(self._pool) // 2:
            # It counts as a second copy; if it is only late, its first one counts as lost.
            return [f"{self._who}: a message came twice or late, after number {self._count:,}"]
        self._position = (place + 1) % len(self._pool)
        fault = f"{self._who}: {ahead:,} lost after number {self._count:,}"
        self._count += ahead + 1
        return [fault]

    def missing(self, total: int) -> list[str]:
        """Whether the end is not there, or more than all."""
        if self._count == total:
            return []
        return [f"{self._who}: {total:,} were sent, and the last seen is number {self._count:,}"]


class _NumberedSource:
    """One publisher's messages as a reader expects them, each with its number."""

    run = 1

    def __init__(self, content: Content, publisher: int, batch: int) -> None:
        self._pool = pool_of(content, publisher)
        self._usable = len(self._pool) - len(self._pool) % min(batch, len(self._pool))
        self._who = f"publisher {publisher}"
        self._next = 0
        self._lost: set[int] = set()

    def matches(self, payloads: Sequence[bytes]) -> bool:
        """Whether these come next; if so they are counted."""
        if len(payloads) != 1 or payloads[0] != self._expected(self._next):
            return False
        self._next += 1
        return True

    def _expected(self, number: int) -> bytes:
        return numbered(self._pool[number % self._usable], number)

    def explain(self, payload: bytes) -> list[str]:
        """What is wrong with a message that does not come next."""
        number = int.from_bytes(payload[1:HEAD], "big")
        if payload != self._expected(number):
            return [f"{self._who}: message {number:,} was changed"]
        if number in self._lost:
            self._lost.remove(number)
            return [f"{self._who}: message {number:,} came late"]
        if number < self._next:
            return [f"{self._who}: message {number:,} came twice"]
        self._lost.update(range(self._next, number))
        self._next = number + 1
        return []

    def missing(self, total: int) -> list[str]:
        """What has not come at all."""
        lost = sorted(self._lost | set(range(self._next, total)))
        if not lost:
            return []
        return [f"{self._who}: {len(lost):,} lost, the first is message {lost[0]:,}"]
