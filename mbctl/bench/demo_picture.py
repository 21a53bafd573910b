"""What the watcher of the demo sees: one picture that moves, or a line a second."""

from collections import deque
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mbctl.model import MIB, SubscriptionInfo, TopicInfo

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

Show = Literal["picture", "lines", "json"]
"""One picture that moves, a line a second, or nothing but a summary in the end."""

FRAME_S = 0.25

_BARS = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 24
_LAG_WIDTH = 24
# A rate over so many frames is steady enough to read.
_RATE_FRAMES = 6


class Moment(msgspec.Struct, frozen=True):
    """What there is to show at one moment: counts by name, and what the broker says."""

    elapsed: float
    seconds: float
    """How long the publishers send."""
    is_sending: bool
    sent: dict[str, int]
    received: dict[str, int]
    topic: TopicInfo
    subscriptions: list[SubscriptionInfo]
    memory: int
    """Of the broker, in bytes."""


class Picture:
    """A context in which moments are shown."""

    def __init__(self, show: Show, *, color: bool) -> None:
        self._prints_lines = show == "lines"
        self._live: Any = None
        self._second = -1
        self._most_unread = 1
        self._counts: dict[str, deque[tuple[float, int]]] = {}
        self._kept: deque[float] = deque(maxlen=_SPARK_WIDTH)
        self._rates: dict[str, deque[float]] = {}
        if show == "picture":
            from rich.console import Console
            from rich.live import Live

            console = Console(no_color=not color)
            self._live = Live(console=console, refresh_per_second=1 / FRAME_S, transient=False)

    def __enter__(self) -> None:
        if self._live is not None:
            self._live.start()

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, moment: Moment) -> None:
        """Draw a moment."""
        self._most_unread = max(self._most_unread, *(s.unread or 0 for s in moment.subscriptions))
        if self._live is not None:
            self._live.update(self._panel(moment))
        elif self._prints_lines and int(moment.elapsed) > self._second:
            self._second = int(moment.elapsed)
            behind = "  ".join(f"{s.subscriber} {s.unread:,}" for s in moment.subscriptions)
            print(
                f"{moment.elapsed:4.0f} s  sent {sum(moment.sent.values()):9,}"
                f"  kept {moment.topic.messages:9,}  unread: {behind}",
                flush=True,
            )

    def _panel(self, moment: Moment) -> "RenderableType":
        from rich.console import Group
        from rich.panel import Panel

        left = max(0.0, moment.seconds - moment.elapsed)
        phase = f"{left:.0f} s to go" if moment.is_sending else "catching up"
        publishers, topic = self._publishers(moment), self._topic(moment)
        subscribers = self._subscribers(moment)
        return Panel(
            Group(publishers, "", topic, "", subscribers, "", _remark(moment)),
            title=f"[bold]mbctl demo[/bold]   one broker, {len(moment.sent)} publishers, "
            f"{len(moment.received)} subscribers   {phase}",
            title_align="left",
            border_style="blue" if moment.is_sending else "yellow",
            padding=(1, 2),
            width=84,
        )

    def _publishers(self, moment: Moment) -> "Table":
        table = _grid("PUBLISHERS", "sent", "a second", "", "")
        for name, count in moment.sent.items():
            rate = self._rate(name, moment.elapsed, count)
            recent = self._rates.setdefault(name, deque(maxlen=_SPARK_WIDTH))
            recent.append(rate)
            bars = _styled(_spark(recent), "green")
            table.add_row(_styled(f"▶ {name}", "green"), f"{count:,}", f"{rate:,.0f}", "", bars)
        return table

    def _topic(self, moment: Moment) -> "Table":
        topic = moment.topic
        self._kept.append(topic.messages or 0)
        table = _grid("TOPIC", "kept", "of sent", "size", "")
        table.add_row(
            _styled(f"● {topic.topic}", "blue"),
            f"{topic.messages:,}",
            f"{topic.next_offset:,}",
            f"{topic.bytes / MIB:.1f} MiB",
            _styled(_spark(self._kept), "blue"),
        )
        return table

    def _subscribers(self, moment: Moment) -> "Table":
        table = _grid("SUBSCRIBERS", "received", "a second", "unread", "")
        for subscription in moment.subscriptions:
            name = subscription.subscriber
            count = moment.received[name]
            width = round(_LAG_WIDTH * (subscription.unread or 0) / self._most_unread)
            bar = _styled("█" * width, "yellow") if width else _styled("keeps up", "dim")
            table.add_row(
                _styled(f"◀ {name}", "cyan"),
                f"{count:,}",
                f"{self._rate(name, moment.elapsed, count):,.0f}",
                f"{subscription.unread:,}",
                bar,
            )
        return table

    def _rate(self, name: str, elapsed: float, count: int) -> float:
        """Messages a second over the last frames."""
        counts = self._counts.setdefault(name, deque(maxlen=_RATE_FRAMES))
        counts.append((elapsed, count))
        (then, before), (now, last) = counts[0], counts[-1]
        return (last - before) / (now - then) if now > then else 0.0


def _remark(moment: Moment) -> "Text":
    """What is worth seeing at this moment."""
    slowest = max(moment.subscriptions, key=lambda s: s.unread or 0)
    if slowest.unread == 0:
        said = "All have read everything, and the broker has given the space back."
    elif moment.is_sending:
        said = (
            f"{slowest.subscriber} is slow on purpose. It slows nobody down: the broker keeps what"
            f" it has not read. The broker takes {moment.memory / MIB:.0f} MiB of memory."
        )
    else:
        said = "The publishers are done. What all have read is reclaimed at once."
    return _styled(said, "italic")


def _grid(title: str, *heads: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, show_header=True, header_style="dim", padding=(0, 1), pad_edge=False)
    table.add_column(title, width=13)
    for head in heads[:-1]:
        table.add_column(head, justify="right", width=11)
    table.add_column(heads[-1], width=_SPARK_WIDTH)
    return table


def _spark(values: "deque[float]") -> str:
    most = max(values, default=0.0)
    return "".join(_BARS[min(7, int(8 * v / most))] if most and v else " " for v in values)


def _styled(shown: str, style: str) -> "Text":
    from rich.text import Text

    return Text(shown, style)
