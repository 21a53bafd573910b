"""The live picture of a server: what it shows is a pure function of a sample and a view."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from itertools import repeat
from typing import Literal, NamedTuple, get_args

import msgspec

from mbctl.actions import text
from mbctl.actions.samples import Sample, SubscriptionLine, TopicLine

Sort = Literal["rate", "lag", "size", "name"]
SORTS: tuple[Sort, ...] = get_args(Sort)

_BOLD, _DIM, _REVERSE, _RED, _YELLOW, _RESET = (
    *("\x1b[1m", "\x1b[2m", "\x1b[7m", "\x1b[31m", "\x1b[33m", "\x1b[0m"),
)
_BARS, _ASCII_BARS = "▁▂▃▄▅▆▇█", ".:-=+*#@"
_SPARK_WIDTH = 12
# A narrower terminal needs the room for names, and leaves columns out until these have so much.
_SPARK_COLUMNS_MIN = 90
_NAME_COLUMNS_MIN = 16
_HEAD_LINES = 3
_GAPS_HEIGHT_MIN = 16
_SIZE_SHARE_WARNED = 0.8


class View(msgspec.Struct):
    """What somebody wants to see, which keys change."""

    server: str
    sort: Sort = "rate"
    only: str = ""
    """Show only topics and subscribers that have this in them, or match it with ``*``."""
    is_paused: bool = False
    typing: str | None = None
    """The filter as it is being typed."""
    trouble: str = ""
    """Why there is nothing newer to show."""
    color: bool = True
    utf8: bool = True

    def press(self, key: str) -> bool:
        """Take a key; False if it ends the view."""
        if self.typing is not None:
            self._type(key)
            return True
        match key:
            case "q" | "Q" | "\x04":
                return False
            case "p" | "P" | " ":
                self.is_paused = not self.is_paused
            case "s":
                self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
            case "/":
                self.typing = self.only
            case "\x1b":
                self.only = ""
            case _:
                pass
        return True

    def _type(self, key: str) -> None:
        assert self.typing is not None, "a filter is being typed"
        if key in ("\r", "\n"):
            self.only, self.typing = self.typing, None
        elif key == "\x1b":
            self.typing = None
        elif key in ("\x7f", "\x08"):
            self.typing = self.typing[:-1]
        elif key.isprintable():
            self.typing += key

    def shows(self, *names: str) -> bool:
        """Whether something with these names is to be seen."""
        only = (self.only if self.typing is None else self.typing).lower()
        pattern = only if set(only) & set("*?[") else f"*{only}*"
        return any(fnmatchcase(name.lower(), pattern) for name in names)


def frame(sample: Sample | None, view: View, *, width: int, height: int) -> list[str]:
    """The lines of a screen of this size, none wider; what does not fit is counted."""
    painter = _Painter(view, width)
    if sample is None:
        lines = [painter.title(f" mbctl top   {view.server}"), view.trouble or "looking ..."]
        return [*(painter.cut(line) for line in lines)]
    topics = [line for line in sample.topics if view.shows(line.topic, line.held_by or "")]
    subscriptions = [
        line for line in sample.subscriptions if view.shows(line.topic, line.subscriber)
    ]
    # Two titles, two blank lines if there is room for them, and the keys stand around them.
    gap = [""] if height >= _GAPS_HEIGHT_MIN else []
    room = max(2, height - _HEAD_LINES - 3 - 2 * len(gap))
    topics_room = max(1, min(len(topics), room - min(len(subscriptions), room // 2)))
    return [
        *painter.head(sample),
        *gap,
        *painter.topics(sorted(topics, key=_topic_order(view.sort)), topics_room),
        *gap,
        *painter.subscriptions(
            sorted(subscriptions, key=_subscription_order(view.sort)), room - topics_room, sample
        ),
        painter.keys(),
    ]


def _topic_order(sort: Sort) -> Callable[[TopicLine], tuple[float, str]]:
    def order(line: TopicLine) -> tuple[float, str]:
        value = {
            "rate": line.messages_in_per_s or 0,
            "lag": line.lag,
            "size": line.bytes,
            "name": 0,
        }
        return (-value[sort], line.topic)

    return order


def _subscription_order(sort: Sort) -> Callable[[SubscriptionLine], tuple[float, str, str]]:
    def order(line: SubscriptionLine) -> tuple[float, str, str]:
        value = {"rate": line.messages_out_per_s or 0, "name": 0}.get(sort, line.lag)
        return (-value, line.topic, line.subscriber)

    return order


class _Column(NamedTuple):
    """A column of a table; the smaller its rank, the narrower a terminal still has it."""

    title: str
    width: int
    rank: int
    cells: list[str]


class _Painter:
    """Lines of one width, in the colours of one view."""

    def __init__(self, view: View, width: int) -> None:
        self._view = view
        self._width = width

    def cut(self, line: str) -> str:
        """``line`` without what is too wide; for a line without colours."""
        return line if len(line) <= self._width else line[: max(0, self._width - 1)] + "…"

    def title(self, line: str) -> str:
        return self._paint(_REVERSE, self.cut(line).ljust(self._width))

    def head(self, sample: Sample) -> list[str]:
        status, view = sample.status, self._view
        # In front, where a narrow screen does not cut it off.
        state = "   paused" if view.is_paused else ""
        about = (
            f" mbctl top{state}   {view.server}"
            f"   {status.version} {status.engine} {status.durability}"
            f"   up {text.duration(status.uptime_s)}"
            f"   {text.counted(status.connections, 'connection')}"
        )
        share = status.bytes / status.max_bytes if status.max_bytes else 0.0
        size = text.size(status.bytes)
        bound = f" of {text.size(status.max_bytes)} ({share:.0%})" if status.max_bytes else ""
        rates = (
            f" in  {sample.recent_in[-1]:>9,.0f} msg/s {self.spark(sample.recent_in)}"
            f"   out {sample.recent_out[-1]:>9,.0f} msg/s {self.spark(sample.recent_out)}"
        )
        kept = (
            f" kept {text.amount(status.messages, status.batches)}, {size}{bound}"
            f"   {text.counted(status.topics, 'topic')}"
            f"   {text.counted(status.subscriptions, 'subscription')}"
        )
        style = _RED if share >= _SIZE_SHARE_WARNED else ""
        third = self._paint(_RED, self.cut(f" {view.trouble}")) if view.trouble else ""
        return [
            self.title(about),
            self.cut(rates),
            third or self._paint(style, self.cut(kept)),
        ]

    def topics(self, lines: list[TopicLine], room: int) -> list[str]:
        shown = lines[:room]
        columns = [
            _Column("IN/S", 9, 1, [_rate(line.messages_in_per_s) for line in shown]),
            _Column("MESSAGES", 11, 3, [f"{line.messages:,}" for line in shown]),
            _Column("SIZE", 10, 4, [text.size(line.bytes) for line in shown]),
            _Column("LAG", 11, 0, [f"{line.lag:,}" for line in shown]),
            _Column("HELD BY", 14, 2, [text.escape(line.held_by or "-") for line in shown]),
        ]
        if self._width >= _SPARK_COLUMNS_MIN:
            sparks = [self.spark(line.recent) for line in shown]
            columns.insert(1, _Column("", _SPARK_WIDTH, 5, sparks))
        written = self._table("TOPIC", [line.topic for line in shown], columns)
        return self._with_rest(written, len(lines) - room, "topic")

    def subscriptions(self, lines: list[SubscriptionLine], room: int, sample: Sample) -> list[str]:
        shown = lines[:room]
        pulled = [text.ago(line.last_pull, sample.time) for line in shown]
        columns = [
            _Column("READ/S", 9, 1, [_rate(line.messages_out_per_s) for line in shown]),
            _Column("LAG", 11, 0, [f"{line.lag:,}" for line in shown]),
            _Column("LEASED", 9, 3, [f"{line.leased:,}" for line in shown]),
            _Column("PARKED", 8, 4, [f"{line.parked:,}" for line in shown]),
            _Column("LAST PULL", 14, 2, pulled),
        ]
        names = [f"{line.topic} {line.subscriber}" for line in shown]
        head, *written = self._table("SUBSCRIPTION", names, columns)
        for at, line in enumerate(shown):
            is_stuck = line.lag > 0 and line.messages_out_per_s == 0 and line.durable
            written[at] = self._paint(_YELLOW if is_stuck else "", written[at])
        return self._with_rest([head, *written], len(lines) - room, "subscription")

    def _table(self, title: str, names: list[str], columns: list[_Column]) -> list[str]:
        """A head and a line for each name, with the columns that there is room for beside it.

        The last column is text, which begins where a number would end, and may go on.
        """
        longest = max([len(title), *map(len, names)])
        last, kept = columns[-1], list(columns)
        while kept and self._room_beside(kept) < min(longest, _NAME_COLUMNS_MIN):
            kept.remove(max(kept, key=lambda column: column.rank))
        name_width = max(len(title), min(longest, self._room_beside(kept)))

        def line(name: str, cells: Iterable[str]) -> str:
            written = [f" {_fit(name, name_width)}"]
            for column, cell in zip(kept, cells, strict=True):
                written.append(f"  {cell}" if column is last else f" {cell:>{column.width}}")
            return self.cut("".join(written))

        rows = zip(*(column.cells for column in kept), strict=True) if kept else repeat(())
        return [
            self._paint(_BOLD, line(title, [column.title for column in kept])),
            *(line(name, cells) for name, cells in zip(names, rows, strict=False)),
        ]

    def _room_beside(self, columns: list[_Column]) -> int:
        """The width that these columns leave for names."""
        return self._width - 1 - sum(column.width + 1 for column in columns)

    def keys(self) -> str:
        view = self._view
        if view.typing is not None:
            return self.cut(f" filter: {text.escape(view.typing)}_   Enter takes it, Esc drops it")
        only = text.escape(view.only) or "all"
        return self._paint(
            _DIM,
            self.cut(f" q quit   p pause   s sort: {view.sort}   / filter: {only}   Esc show all"),
        )

    def spark(self, rates: list[float]) -> str:
        """The last rates as bars, the largest of them as the highest."""
        bars = _BARS if self._view.utf8 else _ASCII_BARS
        shown = rates[-_SPARK_WIDTH:]
        most = max(shown, default=0.0)
        drawn = [bars[min(7, int(8 * rate / most))] if most and rate else " " for rate in shown]
        return "".join(drawn).rjust(_SPARK_WIDTH)

    def _with_rest(self, shown: list[str], left: int, noun: str) -> list[str]:
        if left > 0:
            shown[-1] = self._paint(_DIM, self.cut(f" … and {text.counted(left + 1, noun)} more"))
        return shown

    def _paint(self, style: str, line: str) -> str:
        return f"{style}{line}{_RESET}" if style and self._view.color else line


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.0f}"


def _fit(name: str, width: int) -> str:
    """``name``, which is escaped, in exactly ``width`` columns."""
    name = text.escape(name)
    return name.ljust(width) if len(name) <= width else name[: width - 1] + "…"
