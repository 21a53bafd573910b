"""The floors: what is to be reached at least, some of it as a share of what the machine can do.

A floor that depends on the machine is computed from the raw figures of the same run.
"""

import math
from collections.abc import Callable
from typing import Literal

import msgspec

from mbctl.bench.figures import Figure, Results
from mbctl.bench.scenarios.growth import BACKLOGS, CONNECTIONS, SUBSCRIPTIONS, TOPICS
from mbctl.bench.showing import amount

# At most so many times the cost of the first point of a curve.
GROWTH_MAX = 1.5

Look = Callable[[str], float]
"""The value of a figure of ours, or of the machine; NaN if it was not measured."""

Verdict = Literal["met", "not met", "not measured"]


class Floor(msgspec.Struct, frozen=True):
    """What one figure of ours has to reach."""

    name: str
    said: str
    """The floor as it is written."""
    need: Callable[[Look], float]
    at_most: bool = False


class Judged(msgspec.Struct, frozen=True):
    """A floor, and how the figure stands to it."""

    floor: Floor
    figure: Figure | None
    need: float

    @property
    def verdict(self) -> Verdict:
        """Whether it is reached."""
        if self.figure is None or math.isnan(self.need):
            return "not measured"
        value = self.figure.value
        is_met = value <= self.need if self.floor.at_most else value >= self.need
        return "met" if is_met else "not met"

    @property
    def margin(self) -> float:
        """The figure to the floor, above 1 where it is met; NaN where either is missing."""
        if self.figure is None:
            return math.nan
        ratio = self.figure.value / self.need
        return 1 / ratio if self.floor.at_most else ratio

    @property
    def shown(self) -> str:
        """The floor with its number in this run."""
        if self.figure is None or math.isnan(self.need):
            return self.floor.said
        need = amount(self.need, self.figure.unit)
        return need if need == self.floor.said else f"{need} ({self.floor.said})"


def judge(results: Results) -> list[Judged]:
    """All floors, in the order of the report."""
    return [_judged(floor, results) for floor in (*FLOORS, *_growth_floors())]


def _judged(floor: Floor, results: Results) -> Judged:
    figure = results.of(floor.name)
    began = figure.began if figure else ""

    def look(name: str) -> float:
        system = "machine" if name.startswith("raw.") else "mbctl"
        found = results.of(name, system, began)
        return found.value if found else math.nan

    return Judged(floor, figure, floor.need(look))


def _fixed(name: str, number: float, unit: str, *, at_most: bool = False) -> Floor:
    return Floor(name, amount(number, unit), lambda look: number, at_most)


def _share(name: str, share: float, of: str, said: str) -> Floor:
    return Floor(name, said, lambda look: share * look(of))


def _times(name: str, factor: float, of: str, said: str) -> Floor:
    return Floor(name, said, lambda look: factor * look(of), at_most=True)


def _alone(look: Look) -> float:
    """What waiting for the network and the disk in turn allows, with a fifth for our work."""
    return 0.8 * 1e6 / (look("raw.ping-pong") + look("raw.sync"))


def _large_durable(look: Look) -> float:
    return min(0.3 * look("raw.stream"), 0.6 * look("raw.sync.stream"))


FLOORS = (
    _fixed("publish", 7e6, "msg/s"),
    _fixed("publish.each", 2.5e6, "msg/s"),
    _fixed("end-to-end", 5.5e6, "msg/s"),
    _fixed("end-to-end.durable", 4e6, "msg/s"),
    _fixed("fan-out", 14e6, "msg/s"),
    _fixed("fan-out.durable", 11e6, "msg/s"),
    _share("sizes.1024", 0.15, "raw.stream", "0.15 of the raw 1 MiB stream"),
    _share("sizes.16384", 0.3, "raw.stream", "0.3 of the raw 1 MiB stream"),
    Floor(
        "sizes.16384.durable",
        "0.3 of the raw 1 MiB stream, or 0.6 of raw write + fdatasync if lower",
        _large_durable,
    ),
    _fixed("durable", 4e6, "msg/s"),
    Floor("durable.one", "0.8 / (raw ping-pong + raw write + fdatasync)", _alone),
    _fixed("durable.64", 25e3, "msg/s"),
    _times("latency.ack", 1.3, "raw.ping-pong", "1.3 raw ping-pongs"),
    _times("latency.delivery", 1.7, "raw.ping-pong", "1.7 raw ping-pongs"),
    _fixed("memory", 150, "MiB", at_most=True),
    _fixed("memory.durable", 60, "MiB", at_most=True),
    _fixed("start-up", 150, "ms", at_most=True),
    _fixed("follow", 2.5e6, "msg/s"),
    _share("keys.keys", 0.5, "keys.plain", "half of plain"),
    _share("keys.headers", 0.5, "keys.plain", "half of plain"),
    _share("keys.keys.each", 0.5, "keys.plain.each", "half of plain"),
    _share("keys.headers.each", 0.5, "keys.plain.each", "half of plain"),
)
"""One for each, in the order of the suite."""


def _growth_floors() -> list[Floor]:
    """The last point of each curve, against the first."""
    ends = [
        ("topics", TOPICS[0], TOPICS[-1]),
        ("subscriptions", SUBSCRIPTIONS[0], SUBSCRIPTIONS[-1]),
        ("backlog", BACKLOGS[0], BACKLOGS[-1]),
        ("connections.idle", CONNECTIONS[0], CONNECTIONS[-1]),
        ("connections.busy", CONNECTIONS[0], CONNECTIONS[-1]),
    ]
    return [
        _share(f"{curve}.{last}", 1 / GROWTH_MAX, f"{curve}.{first}", f"{first} to {last}: 1/1.5")
        for curve, first, last in ends
    ]
