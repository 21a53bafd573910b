"""A batch in hand: delivered by JetStream to this server, and not all of it acknowledged.

What is not acknowledged of it is cut into parts, each in one state:

    NEW        not granted since the batch came               granted → LEASED
    LEASED     with a member, until its deadline              acknowledged → gone
                                                              nack, deadline, member gone → READY
    DELAYED    given back with a delay                        its time → READY
    READY      to be granted again                            granted → LEASED
    EXHAUSTED  delivered as often as it may be                moved → gone; cannot be → PARKED
    PARKED     kept until somebody decides

It is pure: whoever owns it passes the time in and does what is to be done.
"""

from collections.abc import Callable, Iterator

from mbctl.batch import Buffer
from mbctl.engine.jetstream.entries import BatchEntry
from mbctl.model import Range
from mbctl.ranges import merged

NEW, LEASED, DELAYED, READY = "new", "leased", "delayed", "ready"
EXHAUSTED, PARKED = "exhausted", "parked"


class Part:
    """Messages ``first <= index < next`` of a batch, granted ``deliveries`` times."""

    __slots__ = ("deliveries", "first", "member", "next", "state", "until_ns")

    def __init__(self, first: int, next: int, deliveries: int, state: str) -> None:
        self.first = first
        self.next = next
        self.deliveries = deliveries
        self.state = state
        self.member: bytes | None = None
        """Who has it, or had it last."""
        self.until_ns = 0
        """When its lease or its delay ends."""

    @property
    def count(self) -> int:
        """How many messages."""
        return self.next - self.first

    def rest_from(self, edge: int) -> "Part":
        """Let this part end at ``edge``; the part of what is left."""
        assert self.first < edge < self.next
        rest = Part(edge, self.next, self.deliveries, self.state)
        rest.member, rest.until_ns = self.member, self.until_ns
        self.next = edge
        return rest


class Held:
    """One batch in hand."""

    __slots__ = (
        "body",
        "count",
        "delivered",
        "is_leaving",
        "is_stored",
        "parts",
        "place",
        "reply",
        "revision",
        "sequence",
        "size",
        "stored",
        "timestamp",
        "touched_ns",
    )

    def __init__(
        self,
        sequence: int,
        *,
        count: int,
        body: Buffer,
        timestamp: int,
        delivered: int,
        reply: str,
        place: int,
        now_ns: int,
    ) -> None:
        self.sequence = sequence
        self.count = count
        self.size = memoryview(body).nbytes
        self.body: Buffer | None = body
        """Given up when all of it is granted, and fetched again if it is needed."""
        self.timestamp = timestamp
        self.delivered = delivered
        """How often JetStream has delivered it."""
        self.reply = reply
        """Where JetStream wants it acknowledged."""
        self.place = place
        self.revision = 0
        """That of its entry; 0 if it has none."""
        self.stored: BatchEntry | None = None
        self.touched_ns = now_ns
        """When JetStream heard of it last: its own lease runs from there."""
        self.is_leaving = False
        """Whether it is on its way back to JetStream, or all of it is acknowledged."""
        deliveries = delivered - 1
        self.parts = [Part(0, count, deliveries, READY if deliveries else NEW)]

    def restore(self, entry: BatchEntry, revision: int, deliveries_max: int | None) -> None:
        """Take over what is known of the batch from before it came here."""
        self.stored, self.revision = entry, revision
        # Deliveries to a server that died over them. It is not known what of them reached
        # anyone, so they cannot be the ones that make it too many.
        lost = max(0, self.delivered - 1 - entry.delivered)
        for part in self.parts:
            part.deliveries = 0
        for first, next, deliveries in entry.counts:
            for part in self.isolated(first, next):
                part.deliveries = deliveries
        for part in self.parts:
            room = lost
            if deliveries_max is not None:
                room = max(0, min(lost, deliveries_max - 1 - part.deliveries))
            part.deliveries += room
            part.state = READY if part.deliveries else NEW
        for first, next in entry.parked:
            for part in self.isolated(first, next):
                part.state = PARKED
        self.acknowledge(list(entry.acknowledged), lambda part: True)

    def limit(self, deliveries_max: int | None) -> None:
        """Let what is only known of the batch as a whole not make it too many deliveries."""
        if deliveries_max is not None:
            for part in self.parts:
                part.deliveries = min(part.deliveries, max(0, deliveries_max - 1))
                part.state = READY if part.deliveries else NEW

    def put_off(self, until_ns: int) -> None:
        """Grant none of it before a time."""
        for part in self.parts:
            if part.state in (NEW, READY):
                part.state, part.until_ns = DELAYED, until_ns

    # --- looking --------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """Whether all of it is acknowledged."""
        return not self.parts

    @property
    def acknowledged(self) -> list[Range]:
        """What of it is acknowledged."""
        gaps: list[Range] = []
        at = 0
        for part in self.parts:
            if at < part.first:
                gaps.append((at, part.first))
            at = part.next
        if at < self.count:
            gaps.append((at, self.count))
        return gaps

    @property
    def ranges(self) -> int:
        """How many ranges keep its state: acknowledged ones, and parts that were granted."""
        granted = sum(part.deliveries > 0 or part.state is not NEW for part in self.parts)
        # What is acknowledged at its beginning is below the place of the subscription.
        first = self.parts[0].first if self.parts else self.count
        return granted + sum(low >= first for low, _ in self.acknowledged if low)

    def has(self, *states: str) -> bool:
        """Whether any part is in one of these states."""
        return any(part.state in states for part in self.parts)

    def total(self, *states: str) -> int:
        """How many messages are in one of these states."""
        return sum(part.count for part in self.parts if part.state in states)

    def next_ns(self) -> int | None:
        """When the first lease or delay ends."""
        return min((p.until_ns for p in self.parts if p.state in (LEASED, DELAYED)), default=None)

    def go_back_ns(self) -> int | None:
        """When all of it may be delivered again: 0 for now, None if not all of it together."""
        delays = {part.until_ns for part in self.parts if part.state is DELAYED}
        if not delays:
            return 0
        if len(delays) > 1 or self.has(NEW, READY):
            return None
        return delays.pop()

    def isolated(self, first: int, next: int) -> Iterator[Part]:
        """The parts of ``first <= index < next``, cut so that they end there."""
        found = []
        at = 0
        while at < len(self.parts) and self.parts[at].first < next:
            part = self.parts[at]
            at += 1
            if part.next <= first:
                continue
            if part.first < first:
                part = part.rest_from(first)
                self.parts.insert(at, part)
                at += 1
            if part.next > next:
                self.parts.insert(at, part.rest_from(next))
            found.append(part)
        return iter(found)

    def chosen(self, ranges: list[Range], may: Callable[[Part], bool]) -> list[Part]:
        """The parts within ``ranges`` that ``may`` be taken."""
        return [
            part for low, high in merged(ranges) for part in self.isolated(low, high) if may(part)
        ]

    # --- changing -------------------------------------------------------------------------

    def acknowledge(self, ranges: list[Range], may: Callable[[Part], bool]) -> int:
        """Take out what ``may`` be acknowledged of ``ranges``; how many messages."""
        gone = self.chosen(ranges, may)
        if gone:
            taken = set(map(id, gone))
            self.parts = [part for part in self.parts if id(part) not in taken]
        return sum(part.count for part in gone)

    def joined(self) -> None:
        """Join neighbours that are in the same way to be granted again."""
        kept: list[Part] = []
        for part in self.parts:
            last = kept[-1] if kept else None
            if (
                last is not None
                and last.next == part.first
                and last.state == part.state
                and last.state in (NEW, READY, PARKED)
                and last.deliveries == part.deliveries
            ):
                last.next = part.next
            else:
                kept.append(part)
        self.parts = kept

    # --- what is stored -------------------------------------------------------------------

    def entry(self, put_off_ns: int = 0) -> BatchEntry | None:
        """What is to be stored of it; None if it was delivered once, and granted once."""
        is_plain = not (put_off_ns or self.acknowledged or self.has(PARKED, EXHAUSTED))
        is_first = self.delivered == 1 and all(part.deliveries == 1 for part in self.parts)
        if self.parts and is_plain and is_first:
            return None
        return BatchEntry(
            self.delivered,
            self.acknowledged,
            [(part.first, part.next, part.deliveries) for part in self.parts if part.deliveries],
            [(part.first, part.next) for part in self.parts if part.state in (PARKED, EXHAUSTED)],
            put_off_ns,
        )
