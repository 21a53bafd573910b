"""What a server does, looked at again and again: rates come from two looks. No drawing."""

import time
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from mbctl.actions import text
from mbctl.model import NS_PER_S, ServerStatus, SubscriptionInfo, TopicInfo

if TYPE_CHECKING:
    from mbctl import Admin

KEPT = 60
"""Looks that sparklines reach back."""


class TopicLine(msgspec.Struct, frozen=True):
    """One topic: what it keeps, how much comes in, and who keeps it from being reclaimed.

    Where a server counts batches only, so do ``messages`` and ``lag``, and rates are None.
    """

    topic: str
    messages_in_per_s: float | None
    messages: int
    bytes: int
    subscriptions: int
    lag: int
    """The unread messages of the subscription that is furthest behind."""
    held_by: str | None
    """That subscription's subscriber, if it is durable and so keeps messages alive."""
    recent: list[float]
    """Its last rates, the newest at the end."""


class SubscriptionLine(msgspec.Struct, frozen=True):
    """One subscription: how far it is behind, and how fast it reads."""

    topic: str
    subscriber: str
    durable: bool
    lag: int
    messages_out_per_s: float | None
    leased: int
    parked: int
    last_pull: int | None


class Sample(msgspec.Struct, frozen=True):
    """One look at a server."""

    time: int
    status: ServerStatus
    topics: list[TopicLine]
    subscriptions: list[SubscriptionLine]
    recent_in: list[float]
    recent_out: list[float]

    def as_row(self) -> dict[str, object]:
        """The sample under the names that JSON shows."""
        status = msgspec.structs.asdict(self.status)
        status["started"] = text.rfc3339(self.status.started)
        topics = [msgspec.structs.asdict(line) for line in self.topics]
        for topic in topics:
            del topic["recent"]
        subscriptions = [msgspec.structs.asdict(line) for line in self.subscriptions]
        for line in subscriptions:
            line["last_pull"] = text.rfc3339(line["last_pull"]) if line["last_pull"] else None
        return {
            "time": text.rfc3339(self.time),
            "status": status,
            "topics": topics,
            "subscriptions": subscriptions,
        }


class Sampler:
    """Looks at a server, and remembers what it needs for rates."""

    def __init__(self, admin: "Admin") -> None:
        self._admin = admin
        self._counts: dict[tuple[str, ...], tuple[float, int]] = {}
        self._recent: dict[str, deque[float]] = {}
        self._in: deque[float] = deque(maxlen=KEPT)
        self._out: deque[float] = deque(maxlen=KEPT)

    def take(self) -> Sample:
        """Look now.

        Raises:
            MbctlError: the server did not answer.
        """
        status = self._admin.status()
        infos = self._admin.topics()
        subscriptions = self._admin.subscriptions()
        now = time.monotonic()
        self._in.append(self._rate(("in",), status.messages_in, now))
        self._out.append(self._rate(("out",), status.messages_out, now))
        ends = {info.topic: info.next_offset for info in infos}
        lines = [self._subscription(info, ends, now) for info in subscriptions]
        topics = [self._topic(info, lines, now) for info in infos]
        return Sample(time.time_ns(), status, topics, lines, list(self._in), list(self._out))

    def _topic(self, info: TopicInfo, lines: list[SubscriptionLine], now: float) -> TopicLine:
        rate = None
        recent = self._recent.setdefault(info.topic, deque(maxlen=KEPT))
        if info.messages is not None:
            rate = self._rate(("topic", str(info.topic_id)), info.next_offset, now)
            recent.append(rate)
        own = [line for line in lines if line.topic == info.topic]
        behind = max(own, key=lambda line: line.lag, default=None)
        holding = max((s for s in own if s.durable), key=lambda line: line.lag, default=None)
        return TopicLine(
            topic=info.topic,
            messages_in_per_s=None if rate is None else round(rate, 1),
            messages=(info.messages if info.messages is not None else info.batches) or 0,
            bytes=info.bytes,
            subscriptions=info.subscriptions,
            lag=behind.lag if behind else 0,
            held_by=holding.subscriber if holding and holding.lag else None,
            recent=list(recent),
        )

    def _subscription(
        self, info: SubscriptionInfo, ends: dict[str, int], now: float
    ) -> SubscriptionLine:
        rate = None
        if info.unread is not None:
            read = ends.get(info.topic, 0) - info.unread
            rate = self._rate(("subscription", info.topic, info.subscriber), read, now)
        return SubscriptionLine(
            topic=info.topic,
            subscriber=info.subscriber,
            durable=info.durable,
            lag=(info.unread if info.unread is not None else info.unread_batches) or 0,
            messages_out_per_s=None if rate is None else round(rate, 1),
            leased=info.leased,
            parked=info.parked,
            last_pull=info.last_pull,
        )

    def _rate(self, name: tuple[str, ...], count: int, now: float) -> float:
        """How fast a count has grown since the last look; 0 at the first."""
        then, before = self._counts.get(name, (now, count))
        self._counts[name] = (now, count)
        # A seek back, or a server that was started again, makes it smaller.
        return max(0.0, (count - before) / (now - then)) if now > then else 0.0


def skew_s(status: ServerStatus, now_ns: int) -> float:
    """How far the server's clock is ahead of ours, in seconds."""
    return (status.started - now_ns) / NS_PER_S + status.uptime_s
