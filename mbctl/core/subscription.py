"""One subscriber's place in one topic: what it grants, settles and passes over.

What of it is acknowledged and leased is in ``place``.

What a topic gives up of its own accord, its subscriptions pass over when they are looked at
next (``skip_reclaimed``): there may be a thousand, and a message may be given up at every send.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mbctl.core.grant import Piece, Room
from mbctl.core.leases import EXHAUSTED, PARKED, READY, Agenda, Count, Lease
from mbctl.core.members import Member
from mbctl.core.place import Place, is_with, may_settle
from mbctl.model import NS_PER_S, Range, SubscribeOptions
from mbctl.ranges import RangeSet, merged

if TYPE_CHECKING:
    from mbctl.core.pulls import WaitingPull
    from mbctl.core.topic import Topic


class Subscription(Place):
    """A cursor and its leases. The broker owns it and passes the time in."""

    __slots__ = (
        "_untaken",
        "ack_wait_ns",
        "created",
        "dead_letter",
        "dropped",
        "durable",
        "expired",
        "last_pull",
        "lost",
        "max_deliveries",
        "moved_at",
        "owner_id",
        "pulls",
        "skipped",
        "subscriber",
        "topic",
    )

    def __init__(
        self,
        topic: "Topic",
        subscriber: str,
        offset: int,
        *,
        owner_id: bytes | None,
        ranges_max: int,
        agenda: Agenda,
    ) -> None:
        super().__init__(self, offset, ranges_max, agenda)
        self.topic = topic
        self.subscriber = subscriber
        self.durable = owner_id is None
        self.owner_id = owner_id
        """The process that an ephemeral subscription ends with."""
        self.pulls: dict[WaitingPull, None] = {}
        """The pulls that wait here, the oldest first."""
        self.ack_wait_ns = 30 * NS_PER_S
        self.max_deliveries: int | None = None
        self.dead_letter: str | None = None
        """The topic for what was delivered ``max_deliveries`` times; None to park it."""
        self.skipped = 0
        """Messages never granted that the topic no longer keeps, not reported yet."""
        self.lost = 0
        """Messages passed over because they cannot be read any more."""
        self.dropped = 0
        """Messages not acknowledged that the topic's bounds had no room for."""
        self.expired = 0
        """Messages not acknowledged that became too old."""
        self.created = 0
        self.moved_at = 0
        self.last_pull: int | None = None
        # What a durable one acknowledged since ``take_acknowledged``.
        self._untaken: list[Range] = []

    # --- what it is now -----------------------------------------------------------------

    @property
    def unread(self) -> int:
        """Messages not acknowledged, of those subscribers may see."""
        return self.topic.visible_next - self.cursor - self.acknowledged.total

    @property
    def redeliver_count(self) -> int:
        """Messages given back and waiting to be granted again."""
        granted = self.next - self.cursor - self.acknowledged.total
        return granted - self.leases.leased_count - self.leases.parked_count

    @property
    def parked_count(self) -> int:
        """Messages delivered as often as they may be, kept until somebody decides."""
        return self.leases.parked_count

    def parked_ranges(self) -> list[Range]:
        """The messages that are PARKED."""
        if not self.leases.parked_count:
            return []
        return merged((lease.first, lease.next) for lease in self.leases if lease.state is PARKED)

    def counts(self) -> list[Count]:
        """How often messages were delivered, where that outlives a restart."""
        return self.leases.counts()

    @property
    def has_messages(self) -> bool:
        """Whether a pull would get something now."""
        lease = self.leases.first_ready
        return self._may_grant_new if lease is None else self._grantable_next(lease) > lease.first

    # --- granting -----------------------------------------------------------------------

    def grant(self, member: Member, room: Room, now_ns: int) -> list[Piece]:
        """Lease to ``member`` what ``room`` holds: first what is READY, then what is new.

        Where deliveries have a maximum, a message that was delivered before is granted alone:
        if it ends its reader, that does not count against others.
        """
        index, leases = self.topic.index, self.leases
        until_ns = now_ns + self.ack_wait_ns
        while (lease := leases.first_ready) is not None and not room.is_full:
            next = self._grantable_next(lease)
            is_alone = self.max_deliveries is not None and lease.deliveries > 0
            if is_alone:
                if room.pieces:
                    return room.pieces
                next = min(next, lease.first + 1)
            end = room.fill(index, lease.first, next, lease.deliveries + 1)
            if end == lease.first:
                return room.pieces
            if end < lease.next:
                leases.cut(lease, end)
            leases.grant(lease, member, until_ns)
            if is_alone:
                return room.pieces
        if not room.is_full and self._may_grant_new:
            end = room.fill(index, self.next, self.topic.visible_next, 1)
            if end > self.next:
                leases.grant_new(self.next, end, member, until_ns)
                self.next = end
        return room.pieces

    @property
    def _may_grant_new(self) -> bool:
        return self.next < self.topic.visible_next and self.ranges < self._growth_max

    def _grantable_next(self, lease: Lease) -> int:
        """How far a READY lease may be granted; its first offset if not at all."""
        if lease.count == 1 or self.ranges < self._ranges_max - 1:
            return lease.next
        return lease.first + (lease.first == self.cursor)

    # --- acknowledging ------------------------------------------------------------------

    def acknowledge(self, member: Member, ranges: list[Range]) -> int:
        """Acknowledge ``ranges`` as far as ``member`` may; how many messages that was.

        Raises:
            LimitExceeded: it would leave more ranges than allowed; nothing changed.
        """
        cursor, limit = self.cursor, self.next if self.is_sought else None
        ranges = merged(_between(ranges, cursor, limit))
        if not ranges:
            return 0
        reached = max(self.next, ranges[-1][1])
        # Each range adds two at most, and what was never granted becomes one lease.
        if self.ranges + 2 * len(ranges) + 1 > self._growth_max:
            # What one range takes away is not for another to use: it may be the last place,
            # which is there for the message at the cursor.
            self._check_growth(sum(max(0, self._growth(member, reached, *r)) for r in ranges))
        self._reach(reached)
        count = 0
        for first, next in ranges:
            for lease in self._isolated(first, next, lambda lease: may_settle(lease, member)):
                count += lease.count
                self.leases.remove(lease)
                self._put_acknowledged(lease.first, lease.next)
        return count

    def take_acknowledged(self) -> list[Range]:
        """What was acknowledged since the last call, of one that is durable."""
        ranges, self._untaken = merged(self._untaken), []
        return ranges

    def restore(self, acknowledged: list[Range], counts: Iterable[Count] = ()) -> None:
        """Let these ranges, and nothing else at or above the cursor, be acknowledged.

        What lies between them counts as never granted, but for ``counts``.
        """
        assert self.next == self.cursor
        for first, next in merged(acknowledged):
            if next > self.cursor:
                self._reach(max(first, self.cursor))
                self.next = next
                self._put_acknowledged(max(first, self.cursor), next)
        self._untaken.clear()
        known = [
            (lease, is_parked)
            for first, next, deliveries, is_parked in counts
            for lease in self._counted(max(first, self.cursor), next, deliveries)
        ]
        for lease, is_parked in known:
            if is_parked:
                self.leases.park(lease)
        # So much was stored already; what is parked only now was not.
        self.leases.take_counts()
        for lease, is_parked in known:
            if not is_parked:
                self.end_lease(lease)

    def _counted(self, first: int, next: int, deliveries: int) -> list[Lease]:
        """Let what is not acknowledged have been delivered that often, as leases of its own."""
        if first >= next:
            return []
        if self.ranges < self._ranges_max:
            self._reach(max(first, self.next))
        if self.ranges < self._ranges_max:
            self._reach(max(next, self.next))
        leases = self._isolated(first, next, _is_new, cut_below=self._ranges_max)
        for lease in leases:
            lease.deliveries = deliveries
        return leases

    def _put_acknowledged(self, first: int, next: int) -> None:
        if self.durable:
            self._untaken.append((first, next))
        self._pass(first, next)

    # --- giving back --------------------------------------------------------------------

    def end_lease(self, lease: Lease) -> None:
        """Let ``lease`` be granted again, or not any more if it was as often as it may be."""
        state = self._state_at_end(lease)
        if state is READY:
            self.leases.make_ready(lease)
        elif state is EXHAUSTED:
            self.leases.exhaust(lease)
        else:
            self.leases.park(lease)

    def _state_at_end(self, lease: Lease) -> str:
        most = self.max_deliveries
        if most is None or lease.deliveries < most:
            return READY
        return PARKED if self.dead_letter is None else EXHAUSTED

    def apply(self, options: SubscribeOptions) -> bool:
        """Let these options hold from now on; whether that changes any.

        They hold for what waits to be granted again or to be moved away, too. What is PARKED
        stays so.
        """
        ack_wait_ns = round(options.ack_wait * NS_PER_S)
        new = ack_wait_ns, options.max_deliveries, options.dead_letter
        is_changed = new != (self.ack_wait_ns, self.max_deliveries, self.dead_letter)
        self.ack_wait_ns, self.max_deliveries, self.dead_letter = new
        for lease in list(self.leases) if is_changed else ():
            if lease.state in (READY, EXHAUSTED) and self._state_at_end(lease) is not lease.state:
                self.end_lease(lease)
        return is_changed

    def give_back(
        self, member: Member, ranges: list[Range], *, ready_ns: int | None, counted: bool
    ) -> int:
        """Let what ``member`` has leased of ``ranges`` be granted again; how many messages.

        At ``ready_ns``, or at once if that is None. Not ``counted``: as if never granted.

        Raises:
            LimitExceeded: it would leave more ranges than allowed; nothing changed.
        """
        count = 0
        most = self.max_deliveries
        for lease in self._chosen(ranges, lambda lease: is_with(lease, member)):
            count += lease.count
            if counted and most is not None and lease.deliveries >= most:
                self.end_lease(lease)
            elif ready_ns is None:
                self.leases.make_ready(lease)
            else:
                self.leases.delay(lease, ready_ns)
            if not counted:
                self.leases.uncount(lease)
        return count

    def take_back(self, member: Member, ranges: list[Range]) -> None:
        """Undo a grant as far as the reply had no room for it: as if never granted.

        Where that would need a cut and the bound on ranges leaves none, the messages stay
        leased until their deadline.
        """
        for first, next in merged(ranges):
            for lease in self._isolated(
                first, next, lambda lease: is_with(lease, member), cut_below=self._ranges_max - 1
            ):
                self.leases.make_ready(lease)
                self.leases.uncount(lease)

    def lose(self, first: int, next: int) -> list[Range]:
        """Pass over what of ``first <= offset < next`` is not acknowledged; what that was.

        Whoever has it. Where that would need a cut and the bound on ranges leaves none, it
        stays, to be granted again: at the bound that is done in pieces that need no cut.
        """
        first = max(first, self.cursor)
        if first >= next:
            return []
        cut_below = self._ranges_max - 1
        if next > self.next and self.ranges < cut_below:
            self._reach(next)
        lost = []
        for lease in self._isolated(first, next, lambda lease: True, cut_below=cut_below):
            lost.append((lease.first, lease.next))
            self.lost += lease.count
            self.leases.remove(lease)
            self._put_acknowledged(lease.first, lease.next)
        return merged(lost)

    def extend(self, member: Member, ranges: list[Range], now_ns: int) -> int:
        """Renew what ``member`` has leased of ``ranges``; how many messages.

        Raises:
            LimitExceeded: it would leave more ranges than allowed; nothing changed.
        """
        count = 0
        for lease in self._chosen(ranges, lambda lease: is_with(lease, member)):
            count += lease.count
            self.leases.renew(lease, now_ns + self.ack_wait_ns)
        return count

    # --- what was delivered as often as it may be -----------------------------------------

    def is_exhausted(self, first: int, next: int) -> bool:
        """Whether all of ``first <= offset < next`` waits to be moved away."""
        at = first
        for lease in self.leases.within(first, next):
            if lease.state is not EXHAUSTED or lease.first > at:
                return False
            at = lease.next
        return at >= next

    def exhausted_within(self, first: int, next: int) -> list[Lease]:
        """The leases that wait to be moved away and hold any of ``first <= offset < next``."""
        return [lease for lease in self.leases.within(first, next) if lease.state is EXHAUSTED]

    def check_moving(self, first: int, next: int) -> None:
        """Refuse to move a part of a lease where the bound on ranges leaves no room for that.

        Raises:
            LimitExceeded: there are too many ranges to cut it.
        """
        cuts = (self.leases.across(first) is not None) + (self.leases.across(next) is not None)
        if cuts and self.ranges + cuts >= self._ranges_max:
            raise self._too_many_ranges()

    def move_away(self, first: int, next: int) -> None:
        """Let what is moved away count as acknowledged; not as something still to be stored."""
        for lease in self._isolated(first, next, _is_exhausted):
            self.leases.remove(lease)
            self._pass(lease.first, lease.next)

    def park(self, first: int, next: int) -> None:
        """Park what waits to be moved away of ``first <= offset < next``.

        Where the bound on ranges leaves no room for a cut, also what is in one lease with it.
        """
        cut_below = self._ranges_max - 1
        for edge in (first, next):
            lease = self.leases.across(edge)
            if lease is not None and _is_exhausted(lease) and self.ranges < cut_below:
                self.leases.cut(lease, edge)
        for lease in self.exhausted_within(first, next):
            self.leases.park(lease)

    def release_parked(self, ranges: list[Range] | None) -> int:
        """Let PARKED messages be granted as if they had not been yet; how many.

        Raises:
            LimitExceeded: it would leave more ranges than allowed; nothing changed.
        """
        count = 0
        for lease in self._parked(ranges):
            count += lease.count
            self.leases.release(lease)
        return count

    def drop_parked(self, ranges: list[Range] | None) -> int:
        """Acknowledge PARKED messages; how many.

        Raises: as ``release_parked``.
        """
        count = 0
        for lease in self._parked(ranges):
            count += lease.count
            self.leases.remove(lease)
            self._put_acknowledged(lease.first, lease.next)
        return count

    def _parked(self, ranges: list[Range] | None) -> list[Lease]:
        if not self.leases.parked_count:
            return []
        if ranges is None:
            return [lease for lease in self.leases if _is_parked(lease)]
        return self._chosen(list(_between(ranges, self.cursor, None)), _is_parked)

    # --- what moves it without an ack -----------------------------------------------------

    def seek(self, offset: int) -> None:
        """Begin anew at ``offset``: nothing is leased, nothing above it is acknowledged."""
        self.leases.clear()
        self._untaken.clear()
        self.acknowledged = RangeSet()
        self.cursor = self.next = offset
        self.skipped = 0
        self.is_sought = True

    def skip_reclaimed(self) -> None:
        """Pass over what the topic no longer keeps, and count what that costs."""
        topic = self.topic
        if topic.first_offset <= self.cursor:
            return
        for first, next, reason in topic.given_up:
            if next <= self.cursor:
                continue
            self._pass_below(first)
            count = self._pass_below(next)
            if reason == "dropped":
                self.dropped += count
            elif reason == "expired":
                self.expired += count
        # What is left was read by every durable subscription.
        assert not self.durable or topic.first_offset <= self.cursor
        self._pass_below(topic.first_offset)
        if self.durable and self.cursor > topic.first_offset:
            self.leases.note_moved()

    def _pass_below(self, offset: int) -> int:
        """Have nothing below ``offset``; how many messages there were not acknowledged."""
        if offset <= self.cursor:
            return 0
        self._reach(offset)
        count = 0
        for lease in self._isolated(self.cursor, offset, lambda lease: True):
            count += lease.count
            if lease.deliveries == 0:
                self.skipped += lease.count
            self.leases.remove(lease)
        self.cursor = self.acknowledged.remove_below(offset)
        return count

    def check(self) -> None:
        """Assert what must hold between two verbs."""
        super().check()
        assert 0 <= self.next <= self.topic.visible_next


def _is_new(lease: Lease) -> bool:
    return lease.deliveries == 0


def _is_exhausted(lease: Lease) -> bool:
    return lease.state is EXHAUSTED


def _is_parked(lease: Lease) -> bool:
    return lease.state is PARKED


def _between(ranges: Iterable[Range], low: int, high: int | None) -> Iterator[Range]:
    """What of ``ranges`` is not below ``low`` and, unless that is None, below ``high``."""
    for first, next in ranges:
        first = max(first, low)
        next = next if high is None else min(next, high)
        if first < next:
            yield first, next
