"""Figures: what a measurement says, what its repeats amount to, and the files they are kept in."""

import math
import statistics
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import msgspec

from mbctl.errors import InvalidArgument

PERCENTILES = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99, 100.0)

Status = Literal["ok", "failed", "unavailable", "partial"]
Better = Literal["more", "less"]


class Measured(msgspec.Struct):
    """What one run of a case on one system says."""

    value: float
    messages: int = 0
    compared: int = 0
    """How many of them were read and compared with what was sent."""
    faults: list[str] = []
    nanoseconds: list[int] = []
    """Every sample, where it is about the time that each message takes."""
    details: dict[str, float] = {}


class Figure(msgspec.Struct, kw_only=True):
    """One line of results: a case on one system, over all its repeats."""

    name: str
    """As in ``--fail-if``: ``latency.ack``."""
    title: str
    system: str = "mbctl"
    version: str = ""
    unit: str
    better: Better = "more"
    durability: str = "memory"
    began: str = ""
    """Of the run that it is from: results may have been put together from several."""
    settings: str = ""
    """How the system was run and used."""
    status: Status = "ok"
    note: str = ""
    """What failed, or is missing."""
    x: float | None = None
    """Where it stands on the axis of a curve: a size, a count of topics."""
    values: list[float] = []
    """One for each repeat, in their order."""
    ratios: list[float] = []
    """Ours to theirs, of the runs beside each other; above 1 is ahead of them."""
    messages: int = 0
    """How many there were in all repeats."""
    compared: int = 0
    """How many of them were read and compared with what was sent."""
    faults: list[str] = []
    percentiles: dict[str, float] = {}
    """Of all samples of all repeats, by their names such as ``p99``, in µs."""
    histogram: str | None = None
    """The same samples as an HDR histogram in its own text form, where hdrhistogram is there."""
    details: dict[str, float] = {}

    @property
    def value(self) -> float:
        """The median of the repeats; NaN where there is none."""
        return statistics.median(self.values) if self.values else math.nan

    @property
    def variation(self) -> float:
        """The coefficient of variation: deviation to mean; 0 for a single repeat."""
        return variation_of(self.values)

    @property
    def ratio(self) -> float:
        """The median of ours to theirs; NaN where there is none."""
        return statistics.median(self.ratios) if self.ratios else math.nan

    def add(self, measured: Measured) -> None:
        """Take in one more repeat."""
        self.values.append(measured.value)
        self.messages += measured.messages
        self.compared += measured.compared
        self.faults.extend(measured.faults)
        self.details = {**self.details, **measured.details}

    def describe(self, nanoseconds: Sequence[int]) -> None:
        """Take the samples of all repeats, for percentiles and histogram."""
        self.percentiles = percentiles_of([sample / 1e3 for sample in nanoseconds])
        self.histogram = histogram_of(nanoseconds)


class Results(msgspec.Struct, kw_only=True):
    """All figures of one run, and what to know to read them."""

    command: str
    began: str
    """RFC 3339, UTC."""
    seconds: float = 0.0
    partial: bool = False
    """Whether it was interrupted."""
    machine: dict[str, str | float] = {}
    figures: list[Figure] = []

    def of(self, name: str, system: str = "mbctl", began: str = "") -> Figure | None:
        """The figure of this name, if it was measured; in the run that ``began`` then."""
        for figure in self.figures:
            is_it = figure.name == name and figure.system == system
            if is_it and figure.values and began in ("", figure.began):
                return figure
        return None


def variation_of(values: Sequence[float]) -> float:
    """Standard deviation to mean; 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    mean = statistics.fmean(values)
    return statistics.stdev(values) / mean if mean else 0.0


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest of the ordered values that ``percent`` of them do not exceed."""
    assert ordered
    rank = math.ceil(percent / 100 * len(ordered))
    return ordered[max(rank, 1) - 1]


def timed(nanoseconds: list[int]) -> Measured:
    """What samples of a time amount to: their median, in µs."""
    median = percentile(sorted(nanoseconds), 50) / 1e3
    return Measured(value=median, messages=len(nanoseconds), nanoseconds=nanoseconds)


def percentiles_of(samples: Sequence[float]) -> dict[str, float]:
    """Exact percentiles of all samples, by their names."""
    ordered = sorted(samples)
    return {f"p{percent:g}": round(percentile(ordered, percent), 2) for percent in PERCENTILES}


def histogram_of(nanoseconds: Sequence[int]) -> str | None:
    """An HDR histogram of samples from 1 ns to a minute; None without hdrhistogram."""
    try:
        histogram: Any = import_module("hdrh.histogram").HdrHistogram(1, 60_000_000_000, 3)
    except ImportError:
        return None
    for sample in nanoseconds:
        histogram.record_value(sample)
    encoded: bytes = histogram.encode()
    return encoded.decode()


def load_results(path: Path) -> Results:
    """The results that ``--json`` wrote.

    Raises:
        InvalidArgument: there are none in this file.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Results)
    except OSError as error:
        raise InvalidArgument(reason=f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise InvalidArgument(
            reason=f"{path} has no results of mbctl bench --json: {error}"
        ) from error


def save_results(results: Results, path: Path) -> None:
    """Write all that is known, to be read by ``load_results``."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
