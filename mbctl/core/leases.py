"""The leases of one subscription: a table sorted by offset.

A lease is in one of three states:

    LEASED    with a member, until its deadline        ack → gone
                                                       nack, deadline, member gone → READY
    DELAYED   given back with a delay                  deadline → READY
    READY     to be granted again, before anything new

A lease has a deadline exactly while it is LEASED or DELAYED, and is in its member's
``leases`` exactly while it is LEASED.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from mbctl.core.heap import Heap

if TYPE_CHECKING:
    from mbctl.core.members import Member
    from mbctl.core.subscription import Subscription

LEASED, DELAYED, READY = "leased", "delayed", "ready"


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


class Leases:
    """Leases that do not overlap; finding one costs O(log n)."""

    __slots__ = ("_by_first", "_deadlines", "_ready", "_starts", "_subscription", "leased_count")

    def __init__(self, subscription: "Subscription", deadlines: Heap[Lease]) -> None:
        self.leased_count = 0
        """How many messages are LEASED."""
        self._subscription = subscription
        self._deadlines = deadlines
        self._by_first: dict[int, Lease] = {}
        self._starts: list[int] = []
        self._ready: list[int] = []

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Lease]:
        return (self._by_first[first] for first in self._starts)

    # --- finding --------------------------------------------------------------------------

    @property
    def first_ready(self) -> Lease | None:
        """The READY lease of the lowest offsets."""
        return self._by_first[self._ready[0]] if self._ready else None

    def at(self, offset: int) -> Lease | None:
        """The lease that holds ``offset``, if one does."""
        at = bisect_right(self._starts, offset) - 1
        if at < 0:
            return None
        lease = self._by_first[self._starts[at]]
        return lease if offset < lease.next else None

    def across(self, edge: int) -> Lease | None:
        """The lease that would have to be cut for one to begin or end at ``edge``."""
        lease = self.at(edge)
        return None if lease is None or lease.first == edge else lease

    def beginning_in(self, first: int, next: int) -> list[Lease]:
        """The leases whose first message is at ``first <= offset < next``."""
        low = bisect_left(self._starts, first)
        high = bisect_left(self._starts, next)
        return [self._by_first[start] for start in self._starts[low:high]]

    # --- changing the table ---------------------------------------------------------------

    def add(self, first: int, next: int) -> Lease:
        """A new lease, READY and never granted."""
        assert first < next
        assert first not in self._by_first
        lease = Lease(self._subscription, first, next)
        self._by_first[first] = lease
        insort(self._starts, first)
        insort(self._ready, first)
        return lease

    def cut(self, lease: Lease, edge: int) -> None:
        """Let ``lease`` end at ``edge``, and another of the same state hold the rest."""
        assert lease.first < edge < lease.next
        rest = self.add(edge, lease.next)
        lease.next = edge
        rest.deliveries = lease.deliveries
        rest.member = lease.member
        deadline_ns = self._deadlines.get(lease)
        if deadline_ns is None:
            return
        del self._ready[bisect_left(self._ready, edge)]
        rest.state = lease.state
        self._deadlines.set(rest, deadline_ns)
        if rest.state is LEASED:
            assert rest.member is not None
            rest.member.leases[rest] = None

    def remove(self, lease: Lease) -> None:
        """Take ``lease`` out of everything."""
        self._leave_state(lease)
        del self._by_first[lease.first]
        del self._starts[bisect_left(self._starts, lease.first)]

    def clear(self) -> None:
        """Take all leases out of everything."""
        for lease in self._by_first.values():
            self._deadlines.remove(lease)
            if lease.state is LEASED:
                assert lease.member is not None
                del lease.member.leases[lease]
        self._by_first.clear()
        self._starts.clear()
        self._ready.clear()
        self.leased_count = 0

    # --- changing the state of a lease ----------------------------------------------------

    def grant(self, lease: Lease, member: "Member", until_ns: int) -> None:
        """Let ``member`` have it, one delivery more, until the deadline."""
        self._leave_state(lease)
        lease.state = LEASED
        lease.member = member
        lease.deliveries += 1
        member.leases[lease] = None
        self.leased_count += lease.count
        self._deadlines.set(lease, until_ns)

    def renew(self, lease: Lease, until_ns: int) -> None:
        """Move the deadline of a LEASED lease."""
        assert lease.state is LEASED
        self._deadlines.set(lease, until_ns)

    def delay(self, lease: Lease, until_ns: int) -> None:
        """Keep it from everyone until the deadline."""
        self._leave_state(lease)
        lease.state = DELAYED
        self._deadlines.set(lease, until_ns)

    def make_ready(self, lease: Lease) -> None:
        """Let it be granted again."""
        self._leave_state(lease)
        lease.state = READY
        insort(self._ready, lease.first)

    def _leave_state(self, lease: Lease) -> None:
        if lease.state is READY:
            del self._ready[bisect_left(self._ready, lease.first)]
            return
        self._deadlines.remove(lease)
        if lease.state is LEASED:
            assert lease.member is not None
            del lease.member.leases[lease]
            self.leased_count -= lease.count

    def check(self) -> None:
        """Assert that the table is sorted and that every lease is what its state says."""
        leases = list(self)
        assert self._starts == sorted(self._by_first) == [lease.first for lease in leases]
        assert all(a.next <= b.first for a, b in pairwise(leases))
        assert self._ready == [lease.first for lease in leases if lease.state is READY]
        leased = [lease for lease in leases if lease.state is LEASED]
        assert self.leased_count == sum(lease.count for lease in leased)
        for lease in leases:
            assert lease.subscription is self._subscription
            assert lease.first < lease.next
            assert lease.deliveries >= (lease.state is LEASED)
            assert (self._deadlines.get(lease) is None) == (lease.state is READY)
            held = lease.member is not None and lease in lease.member.leases
            assert held == (lease.state is LEASED)
