"""Which messages of a subscription are acknowledged, which are leased, and its bound on both.

    all acknowledged   │ leases, and acknowledged ranges between them │ never granted
    ───────────────────┼──────────────────────────────────────────────┼──────────────▶
                     cursor                                          next

Between ``cursor`` and ``next`` every offset is in exactly one range: acknowledged, or a
lease. An ack counts in every state of a lease, unless the message was granted to another
member since. What was granted before a restart and is not known any more may be acknowledged
too; after a seek only what was granted since it.

Acknowledged ranges and leases together are at most ``ranges_max``. So that a subscription
at that bound always gets on, its last places are kept for what leads away from it:

    up to               may be used by
    ranges_max - R      granting new messages; acks, nacks and extends that cut leases
    ranges_max - 1      granting again what has to be cut for it
    ranges_max          granting again the one message at the cursor

The last line is the proof that it gets on: what stands at the cursor can always be
granted, if need be alone, and its ack takes a range away. Only where somebody has to decide
about what stands there, because it is parked, it may stand still.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mbctl.core.leases import LEASED, Agenda, Lease, Leases
from mbctl.core.members import Member
from mbctl.errors import LimitExceeded
from mbctl.model import Range
from mbctl.ranges import RangeSet, merged

if TYPE_CHECKING:
    from mbctl.core.subscription import Subscription

# R above; arbitrary, a quarter where the bound itself is small.
_RESERVE = 64
# Below this the reserve would have no room for both of its uses.
RANGES_MIN = 8


class Place:
    """A cursor, what is acknowledged above it, and the leases between."""

    __slots__ = (
        "_growth_max",
        "_ranges_max",
        "acknowledged",
        "cursor",
        "is_sought",
        "leases",
        "next",
    )

    def __init__(
        self, subscription: "Subscription", offset: int, ranges_max: int, agenda: Agenda
    ) -> None:
        assert ranges_max >= RANGES_MIN
        self.cursor = offset
        self.next = offset
        self.acknowledged = RangeSet()
        self.leases = Leases(subscription, agenda)
        self.is_sought = False
        """Whether it was moved since the broker began: then only grants since then count."""
        self._ranges_max = ranges_max
        self._growth_max = ranges_max - min(_RESERVE, ranges_max // 4)

    @property
    def ranges(self) -> int:
        """Acknowledged ranges plus leases: what bounds this subscription's memory."""
        return len(self.acknowledged.firsts) + len(self.leases.starts)

    @property
    def at_limit(self) -> bool:
        """Whether it has so many ranges that nothing new is granted."""
        return self.ranges >= self._growth_max

    # --- changing what is leased and acknowledged -----------------------------------------

    def _reach(self, next: int) -> None:
        """Let everything below ``next`` be a lease, as after a restart that forgot leases."""
        if next > self.next:
            self.leases.add(self.next, next)
            self.next = next

    def _pass(self, first: int, next: int) -> None:
        if first == self.cursor:
            self.cursor = self.acknowledged.remove_below(next)
        else:
            self.acknowledged.add(first, next)

    def _chosen(self, ranges: list[Range], wanted: Callable[[Lease], bool]) -> list[Lease]:
        """What of ``ranges`` is in a ``wanted`` lease, as leases of their own."""
        ranges = merged(ranges)
        if self.ranges + 2 * len(ranges) > self._growth_max:
            edges = [edge for range in ranges for edge in range]
            across = [lease for edge in edges if (lease := self.leases.across(edge)) is not None]
            self._check_growth(sum(map(wanted, across)))
        return [lease for first, next in ranges for lease in self._isolated(first, next, wanted)]

    def _isolated(
        self,
        first: int,
        next: int,
        wanted: Callable[[Lease], bool],
        *,
        cut_below: int | None = None,
    ) -> list[Lease]:
        """The wanted leases in ``first <= offset < next``, cut where they reach beyond.

        With ``cut_below``, none is cut while there are that many ranges.
        """
        lease = self.leases.just(first, next)
        if lease is not None:
            # The usual case: what one pull was granted is settled as a whole.
            return [lease] if wanted(lease) else []
        for edge in (first, next):
            lease = self.leases.across(edge)
            if lease is None or not wanted(lease):
                continue
            if cut_below is None or self.ranges < cut_below:
                self.leases.cut(lease, edge)
        leases = self.leases.beginning_in(first, next)
        return [lease for lease in leases if lease.next <= next and wanted(lease)]

    # --- the bound on ranges --------------------------------------------------------------

    def _check_growth(self, growth: int) -> None:
        if growth > 0 and self.ranges + growth > self._growth_max:
            raise self._too_many_ranges()

    def _too_many_ranges(self) -> LimitExceeded:
        return LimitExceeded(
            what="acknowledged ranges and leases of a subscription", limit=self._ranges_max
        )

    def _growth(self, member: Member, reached: int, first: int, next: int) -> int:
        """By how many ranges acknowledging this one changes their number, at most.

        A lease that becomes an acknowledged range changes nothing. Cutting one adds a
        range; meeting the cursor or an acknowledged range takes one away. What was never
        granted, up to ``reached``, becomes one lease first.
        """

        def may_settle_at(offset: int) -> bool:
            lease = self.leases.at(offset)
            return offset >= self.next if lease is None else may_settle(lease, member)

        def is_cut(edge: int) -> bool:
            return self.next < edge < reached or self.leases.across(edge) is not None

        growth = int(self.next < next == reached)
        if may_settle_at(first):
            if first == self.cursor:
                # It may be the last place that this takes away: only the rest of the same
                # lease may have it, which then is what stands at the cursor.
                growth -= self.leases.at(first) is self.leases.at(next - 1)
            else:
                growth += -1 if self.acknowledged.ends_at(first) else is_cut(first)
        if may_settle_at(next - 1):
            growth += -1 if self.acknowledged.begins_at(next) else is_cut(next)
        return growth

    def check(self) -> None:
        """Assert that cursor, leases and acknowledged ranges tile what was granted."""
        acknowledged = list(self.acknowledged)
        leased = [(lease.first, lease.next) for lease in self.leases]
        at = self.cursor
        for first, next in sorted(leased + acknowledged):
            assert first == at < next
            at = next
        assert at == self.next
        assert not acknowledged or acknowledged[0][0] > self.cursor
        assert self.ranges <= self._ranges_max
        if self.ranges == self._ranges_max:
            lowest = self.leases.at(self.cursor)
            assert lowest is not None
            assert lowest.count == 1
        self.acknowledged.check()
        self.leases.check()


def is_with(lease: Lease, member: Member) -> bool:
    """Whether ``member`` has ``lease`` now."""
    return lease.state is LEASED and may_settle(lease, member)


def may_settle(lease: Lease, member: Member) -> bool:
    """Whether ``member`` may acknowledge ``lease``: nobody else was granted it since.

    A process is the same before and after a reconnect.
    """
    if lease.member is None:
        return not lease.subscription.is_sought
    return lease.member.id == member.id
