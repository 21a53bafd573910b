"""The leases of one subscription: a table sorted by offset.

A lease is in one of five states:

    LEASED     with a member, until its deadline        ack → gone
                                                        nack, deadline, member gone → READY
    DELAYED    given back with a delay                  deadline → READY
    READY      to be granted again, before anything new
    EXHAUSTED  would be READY, but was delivered as     moved → gone
               often as it may be: to be moved          cannot be moved → PARKED
    PARKED     kept until somebody decides              released → READY, dropped → gone

A lease has a deadline exactly while it is LEASED or DELAYED, and is in its member's
``leases`` exactly while it is LEASED. What is delivered more than once, or parked, is noted:
that is stored, so that it is known after a restart.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from mbctl.core.heap import Heap
from mbctl.model import Range
from mbctl.ranges import merged

if TYPE_CHECKING:
    from mbctl.core.members import Member
    from mbctl.core.subscription import Subscription

LEASED, DELAYED, READY = "leased", "delayed", "ready"
EXHAUSTED, PARKED = "exhausted", "parked"

# How often messages were delivered: first, next, deliveries, whether they are parked.
Count = tuple[int, int, int, bool]
# Fewer deliveries are not stored: they happen to every message.
_DELIVERIES_STORED = 2


class Lease:
    """The messages ``first <= offset < next``, granted ``deliveries`` times."""

    __slots__ = ("deliveries", "first", "member", "next", "state", "subscription")

    def __init__(self, subscription: "Subscription", first: int, next: int) -> None:
        self.subscription = subscription
        self.first = first
        self.next = next
        self.deliveries = 0
        self.state = READY
        self.member: Member | None = None
        """Who has it, or had it last."""

    @property
    def count(self) -> int:
        """How many messages."""
        return self.next - self.first


class Agenda:
    """What the leases of all subscriptions ask for, for the broker to see to."""

    def __init__(self) -> None:
        self.deadlines: Heap[Lease] = Heap()
        self.exhausted: dict[Lease, int] = {}
        """What is to be moved away and nobody has in hand yet: from which offset on."""
        self.recounted: dict[Subscription, None] = {}
        """The durable subscriptions that have counts of deliveries to be stored."""
        self.moved: dict[Subscription, None] = {}
        """Those whose cursor moved on over what they had acknowledged, past what was given up."""


class Leases:
    """Leases that do not overlap; finding one costs O(log n)."""

    __slots__ = (
        "_agenda",
        "_by_first",
        "_ready",
        "_recounted",
        "_subscription",
        "leased_count",
        "parked_count",
        "starts",
    )

    def __init__(self, subscription: "Subscription", agenda: Agenda) -> None:
        self.leased_count = 0
        """How many messages are LEASED."""
        self.parked_count = 0
        """How many messages are PARKED."""
        self._subscription = subscription
        self._agenda = agenda
        self._by_first: dict[int, Lease] = {}
        self.starts: list[int] = []
        """Their first offsets, in order."""
        self._ready: list[int] = []
        # The messages whose count changed since ``take_counts``, of one that is durable.
        self._recounted: list[Range] = []

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Lease]:
        return (self._by_first[first] for first in self.starts)

    # --- finding --------------------------------------------------------------------------

    @property
    def first_ready(self) -> Lease | None:
        """The READY lease of the lowest offsets."""
        return self._by_first[self._ready[0]] if self._ready else None

    def at(self, offset: int) -> Lease | None:
        """The lease that holds ``offset``, if one does."""
        at = bisect_right(self.starts, offset) - 1
        if at < 0:
            return None
        lease = self._by_first[self.starts[at]]
        return lease if offset < lease.next else None

    def just(self, first: int, next: int) -> Lease | None:
        """The lease of just these messages, if there is one."""
        lease = self._by_first.get(first)
        return lease if lease is not None and lease.next == next else None

    def across(self, edge: int) -> Lease | None:
        """The lease that would have to be cut for one to begin or end at ``edge``."""
        lease = self.at(edge)
        return None if lease is None or lease.first == edge else lease

    def beginning_in(self, first: int, next: int) -> list[Lease]:
        """The leases whose first message is at ``first <= offset < next``."""
        low = bisect_left(self.starts, first)
        high = bisect_left(self.starts, next)
        return [self._by_first[start] for start in self.starts[low:high]]

    def within(self, first: int, next: int) -> list[Lease]:
        """The leases that hold any of ``first <= offset < next``."""
        low = bisect_right(self.starts, first) - 1
        if low < 0 or self._by_first[self.starts[low]].next <= first:
            low += 1
        high = bisect_left(self.starts, next)
        return [self._by_first[start] for start in self.starts[low:high]]

    # --- changing the table ---------------------------------------------------------------

    def add(self, first: int, next: int) -> Lease:
        """A new lease, READY and never granted."""
        lease = self._put(first, next)
        insort(self._ready, first)
        return lease

    def _put(self, first: int, next: int) -> Lease:
        assert first < next
        assert first not in self._by_first
        lease = Lease(self._subscription, first, next)
        self._by_first[first] = lease
        insort(self.starts, first)
        return lease

    def cut(self, lease: Lease, edge: int) -> None:
        """Let ``lease`` end at ``edge``, and another of the same state hold the rest."""
        assert lease.first < edge < lease.next
        rest = self.add(edge, lease.next)
        lease.next = edge
        rest.deliveries = lease.deliveries
        rest.member = lease.member
        if lease.state is READY:
            return
        del self._ready[bisect_left(self._ready, edge)]
        rest.state = lease.state
        deadline_ns = self._agenda.deadlines.get(lease)
        if deadline_ns is not None:
            self._agenda.deadlines.set(rest, deadline_ns)
        if rest.state is LEASED:
            assert rest.member is not None
            rest.member.leases[rest] = None
        in_hand_to = self._agenda.exhausted.pop(lease, None)
        if in_hand_to is not None:
            self._agenda.exhausted[rest] = max(in_hand_to, edge)
            if in_hand_to < edge:
                self._agenda.exhausted[lease] = in_hand_to

    def remove(self, lease: Lease) -> None:
        """Take ``lease`` out of everything."""
        self._leave_state(lease)
        del self._by_first[lease.first]
        del self.starts[bisect_left(self.starts, lease.first)]

    def clear(self) -> None:
        """Take all leases out of everything."""
        for lease in self._by_first.values():
            self._agenda.deadlines.remove(lease)
            self._agenda.exhausted.pop(lease, None)
            if lease.state is LEASED:
                assert lease.member is not None
                del lease.member.leases[lease]
        self._by_first.clear()
        self.starts.clear()
        self._ready.clear()
        self.leased_count = self.parked_count = 0
        self.take_counts()
        self._agenda.moved.pop(self._subscription, None)

    # --- changing the state of a lease ----------------------------------------------------

    def grant_new(self, first: int, next: int, member: "Member", until_ns: int) -> None:
        """Let ``member`` have what nobody was granted yet, until the deadline."""
        # It is never READY, so it need not be put among those and taken out again.
        self._lease(self._put(first, next), member, until_ns)

    def grant(self, lease: Lease, member: "Member", until_ns: int) -> None:
        """Let ``member`` have it, one delivery more, until the deadline."""
        self._leave_state(lease)
        self._lease(lease, member, until_ns)
        if lease.deliveries >= _DELIVERIES_STORED:
            self._note_count(lease)

    def _lease(self, lease: Lease, member: "Member", until_ns: int) -> None:
        lease.state = LEASED
        lease.member = member
        lease.deliveries += 1
        member.leases[lease] = None
        self.leased_count += lease.next - lease.first
        self._agenda.deadlines.set(lease, until_ns)

    def uncount(self, lease: Lease) -> None:
        """Count one delivery less: it did not happen."""
        assert lease.deliveries > 0
        if lease.deliveries >= _DELIVERIES_STORED:
            self._note_count(lease)
        lease.deliveries -= 1

    def renew(self, lease: Lease, until_ns: int) -> None:
        """Move the deadline of a LEASED lease."""
        assert lease.state is LEASED
        self._agenda.deadlines.set(lease, until_ns)

    def delay(self, lease: Lease, until_ns: int) -> None:
        """Keep it from everyone until the deadline."""
        self._leave_state(lease)
        lease.state = DELAYED
        self._agenda.deadlines.set(lease, until_ns)

    def make_ready(self, lease: Lease) -> None:
        """Let it be granted again."""
        self._leave_state(lease)
        lease.state = READY
        insort(self._ready, lease.first)

    def exhaust(self, lease: Lease) -> None:
        """Let it be moved away."""
        self._leave_state(lease)
        lease.state = EXHAUSTED
        self._agenda.exhausted[lease] = lease.first

    def park(self, lease: Lease) -> None:
        """Keep it from everyone until somebody decides."""
        self._leave_state(lease)
        lease.state = PARKED
        self.parked_count += lease.count
        self._note_count(lease)

    def release(self, lease: Lease) -> None:
        """Let a PARKED lease be granted as if it had not been yet."""
        assert lease.state is PARKED
        self.make_ready(lease)
        lease.deliveries = 0
        self._note_count(lease)

    def _leave_state(self, lease: Lease) -> None:
        if lease.state is READY:
            del self._ready[bisect_left(self._ready, lease.first)]
        elif lease.state is EXHAUSTED:
            self._agenda.exhausted.pop(lease, None)
        elif lease.state is PARKED:
            self.parked_count -= lease.count
        else:
            self._agenda.deadlines.remove(lease)
            if lease.state is LEASED:
                assert lease.member is not None
                del lease.member.leases[lease]
                self.leased_count -= lease.next - lease.first

    # --- counts of deliveries -------------------------------------------------------------

    def _note_count(self, lease: Lease) -> None:
        if self._subscription.durable:
            self._recounted.append((lease.first, lease.next))
            self._agenda.recounted[self._subscription] = None

    def note_moved(self) -> None:
        """Have the cursor of the subscription, which is durable, looked at."""
        self._agenda.moved[self._subscription] = None

    def counts(self) -> list[Count]:
        """All counts of deliveries that outlive a restart."""
        return _joined(
            count_of(lease)
            for lease in self
            if lease.deliveries >= _DELIVERIES_STORED or lease.state is PARKED
        )

    def take_counts(self) -> list[Count]:
        """The present counts of what was counted anew since the last call and is still here."""
        kept_from = self._subscription.topic.first_offset
        ranges = merged(
            (max(first, kept_from), next) for first, next in self._recounted if next > kept_from
        )
        self._recounted = []
        self._agenda.recounted.pop(self._subscription, None)
        return _joined(
            (max(lease.first, first), min(lease.next, next), *count_of(lease)[2:])
            for first, next in ranges
            for lease in self.within(first, next)
        )

    def check(self) -> None:
        """Assert that the table is sorted and that every lease is what its state says."""
        leases = list(self)
        assert self.starts == sorted(self._by_first) == [lease.first for lease in leases]
        assert all(a.next <= b.first for a, b in pairwise(leases))
        assert self._ready == [lease.first for lease in leases if lease.state is READY]
        leased = [lease for lease in leases if lease.state is LEASED]
        assert self.leased_count == sum(lease.count for lease in leased)
        parked = [lease for lease in leases if lease.state is PARKED]
        assert self.parked_count == sum(lease.count for lease in parked)
        assert not self._recounted or self._subscription in self._agenda.recounted
        for lease in leases:
            assert lease.subscription is self._subscription
            assert lease.first < lease.next
            assert lease.deliveries >= (lease.state in (LEASED, EXHAUSTED))
            has_deadline = self._agenda.deadlines.get(lease) is not None
            assert has_deadline == (lease.state in (LEASED, DELAYED))
            held = lease.member is not None and lease in lease.member.leases
            assert held == (lease.state is LEASED)
            in_hand_to = self._agenda.exhausted.get(lease)
            if in_hand_to is not None:
                assert lease.state is EXHAUSTED
                assert lease.first <= in_hand_to < lease.next


def count_of(lease: Lease) -> Count:
    """How often the messages of ``lease`` were delivered."""
    return lease.first, lease.next, lease.deliveries, lease.state is PARKED


def _joined(counts: Iterable[Count]) -> list[Count]:
    """Counts in order, where those that are equal and touch are one."""
    result: list[Count] = []
    for count in counts:
        if result and result[-1][1:] == (count[0], *count[2:]):
            result[-1] = (result[-1][0], *count[1:])
        else:
            result.append(count)
    return result
