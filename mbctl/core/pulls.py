"""Pulls: answered at once, or waiting until there is something to grant."""

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

from mbctl.core.grant import Grant, Piece, Room, Wake
from mbctl.core.heap import Heap
from mbctl.errors import MbctlError

if TYPE_CHECKING:
    from mbctl.core.members import Member
    from mbctl.core.subscription import Subscription


class WaitingPull:
    """A pull that waits, and its bounds. ``token`` is the caller's."""

    __slots__ = ("max_bytes", "max_messages", "member", "subscription", "token")

    def __init__(
        self,
        token: Hashable,
        member: "Member",
        subscription: "Subscription",
        *,
        max_messages: int,
        max_bytes: int,
    ) -> None:
        self.token = token
        self.member = member
        self.subscription = subscription
        self.max_messages = max_messages
        self.max_bytes = max_bytes

    def room(self) -> Room:
        """Its bounds, to be filled."""
        return Room(self.max_messages, self.max_bytes)


class Pulls:
    """Grants, and keeps the pulls that wait: by token, deadline, member and subscription."""

    def __init__(self) -> None:
        self._by_token: dict[Hashable, WaitingPull] = {}
        self.deadlines: Heap[WaitingPull] = Heap()
        """When ``expire`` is to answer each pull."""

    def pull(self, pull: WaitingPull, *, wait_ns: int, now_ns: int) -> Grant | None:
        """Grant what there is; or, if that is nothing, let ``pull`` wait and return None."""
        subscription = pull.subscription
        subscription.skip_reclaimed()
        grant = _grant(pull, now_ns)
        if grant.pieces or grant.skipped or wait_ns <= 0:
            return grant
        assert pull.token not in self._by_token
        self._by_token[pull.token] = pull
        self.deadlines.set(pull, now_ns + wait_ns)
        pull.member.pulls[pull] = None
        subscription.pulls[pull] = None
        subscription.topic.waiting[subscription] = None
        return None

    def serve(self, subscriptions: "Iterable[Subscription]", now_ns: int) -> list[Wake]:
        """Answer the waiting pulls of ``subscriptions`` while there is something to tell."""
        wakes: list[Wake] = []
        for subscription in subscriptions:
            if subscription.pulls:
                subscription.skip_reclaimed()
            while subscription.pulls and (subscription.has_messages or subscription.skipped):
                pull = next(iter(subscription.pulls))
                self._remove(pull)
                wakes.append(Wake(pull.token, _grant(pull, now_ns)))
        return wakes

    def cancel(self, token: Hashable) -> list[Wake]:
        """Answer the waiting pull of that token, with nothing, if it still waits."""
        pull = self._by_token.get(token)
        return [] if pull is None else self.end([pull])

    def end(self, pulls: Iterable[WaitingPull], refusal: MbctlError | None = None) -> list[Wake]:
        """Answer waiting pulls with ``refusal``, or with nothing if there is none."""
        wakes = []
        for pull in list(pulls):
            self._remove(pull)
            wakes.append(Wake(pull.token, refusal or _grant_of(pull.subscription, 0, [])))
        return wakes

    def expire(self, now_ns: int) -> list[Wake]:
        """Answer the pulls that have waited long enough, with nothing."""
        wakes: list[Wake] = []
        while (pull := self.deadlines.pop_through(now_ns)) is not None:
            wakes += self.end([pull])
        return wakes

    def _remove(self, pull: WaitingPull) -> None:
        subscription = pull.subscription
        del self._by_token[pull.token]
        self.deadlines.remove(pull)
        del pull.member.pulls[pull]
        del subscription.pulls[pull]
        if not subscription.pulls:
            del subscription.topic.waiting[subscription]

    def check(self, subscriptions: "list[Subscription]") -> None:
        """Assert that the pulls of all ``subscriptions`` are these, each in all its places."""
        waiting = [pull for subscription in subscriptions for pull in subscription.pulls]
        assert len(waiting) == len(self._by_token) == len(self.deadlines)
        for pull in waiting:
            assert self._by_token[pull.token] is pull
            assert pull in self.deadlines
            assert pull in pull.member.pulls
            assert pull.subscription in pull.subscription.topic.waiting
        self.deadlines.check()


def _grant(pull: WaitingPull, now_ns: int) -> Grant:
    """What ``pull`` gets now, with what its subscription has to report as skipped."""
    subscription = pull.subscription
    pieces = subscription.grant(pull.member, pull.room(), now_ns)
    skipped, subscription.skipped = subscription.skipped, 0
    return _grant_of(subscription, skipped, pieces)


def _grant_of(subscription: "Subscription", skipped: int, pieces: list[Piece]) -> Grant:
    topic = subscription.topic
    return Grant(topic.name, topic.topic_id, subscription.subscriber, skipped, pieces)
