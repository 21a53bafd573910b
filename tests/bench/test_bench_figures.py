"""Statistics, conditions and comparing, on figures made for it."""

import math
from pathlib import Path

import pytest

from mbctl.bench.comparing import compare
from mbctl.bench.conditions import parse_condition
from mbctl.bench.figures import (
    Figure,
    Measured,
    Results,
    histogram_of,
    load_results,
    percentile,
    percentiles_of,
    save_results,
    timed,
    variation_of,
)
from mbctl.errors import InvalidArgument


def figure(name: str, *values: float, system: str = "mbctl", unit: str = "msg/s") -> Figure:
    """A figure with these repeats."""
    better = "less" if unit == "µs" else "more"
    made = Figure(name=name, title=name, unit=unit, system=system, better=better)  # type: ignore[arg-type]
    for value in values:
        made.add(Measured(value=value))
    return made


def results(*figures: Figure) -> Results:
    """A run that found these."""
    return Results(command="mbctl bench", began="2026-01-01T00:00:00Z", figures=list(figures))


# --- statistics -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(0, 1), (1, 1), (50, 50), (50.5, 51), (99, 99), (99.9, 100), (100, 100)],
)
def test_percentile_is_the_nearest_rank(percent: float, expected: float) -> None:
    assert percentile(range(1, 101), percent) == expected


def test_percentiles_of_unordered_samples() -> None:
    found = percentiles_of([3.0, 1.0, 2.0, 4.0])
    assert (found["p0"], found["p50"], found["p75"], found["p99"], found["p100"]) == (1, 2, 3, 4, 4)


def test_variation_is_deviation_to_mean() -> None:
    assert variation_of([10.0]) == 0
    assert variation_of([9.0, 11.0]) == pytest.approx(math.sqrt(2) / 10)


def test_figure_is_the_median_of_its_repeats() -> None:
    made = figure("latency.ack", unit="µs")
    assert math.isnan(made.value)
    for value in (30.0, 10.0, 20.0):
        made.add(Measured(value=value, messages=5, details={"last": value}))
    assert made.value == 20
    assert made.messages == 15
    assert made.details == {"last": 20.0}


def test_samples_are_told_by_their_median_and_percentiles_in_microseconds() -> None:
    measured = timed([3_000, 1_000, 2_000])
    assert (measured.value, measured.messages) == (2.0, 3)
    made = figure("latency.ack", unit="µs")
    made.describe([*measured.nanoseconds, 9_000])
    assert (made.percentiles["p50"], made.percentiles["p99"]) == (2.0, 9.0)


def test_histogram_has_the_percentiles_of_its_samples() -> None:
    histograms = pytest.importorskip("hdrh.histogram")
    encoded = histogram_of([1_000] * 98 + [5_000, 2_000_000])
    histogram = histograms.HdrHistogram.decode(encoded)
    assert histogram.get_total_count() == 100
    assert histogram.get_value_at_percentile(50) == pytest.approx(1_000, rel=0.002)
    assert histogram.get_max_value() == pytest.approx(2_000_000, rel=0.002)


# --- conditions -----------------------------------------------------------------------------

NAMES = ["publish", "publish.each", "latency.ack"]
RUN = results(
    figure("publish", 4e6),
    figure("publish", 2e6, system="redis"),
    figure("latency.ack", 300, unit="µs"),
)
RUN.figures[-1].percentiles = {"p50": 300.0, "p99.9": 6_000.0}


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("publish<5000000", True),
        ("publish < 5M", True),
        ("publish<4M", False),
        ("publish<=4_000_000", True),
        ("publish>3.9M", True),
        ("publish>=4000k", True),
        ("redis:publish<4M", True),
        ("latency.ack>300", False),
        ("latency.ack.p99.9>5ms", True),
        ("latency.ack.p99.9>6000us", False),
        ("latency.ack>0.001s", False),
        ("publish.each<1", True),
        ("latency.ack.p42<1", True),
        ("nats:publish>1", True),
    ],
)
def test_condition_fails_the_run(text: str, fails: bool) -> None:
    reason = parse_condition(text, NAMES).fails(RUN)
    assert (reason is not None) == fails
    assert reason is None or reason.startswith(text)


@pytest.mark.parametrize(
    "text", ["", "publish", "publish<", "publish=5", "publish<5x", "<5", "publish<-5", "nothing<5"]
)
def test_condition_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_condition(text, NAMES)


# --- files and comparing --------------------------------------------------------------------


def test_results_are_the_same_after_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    save_results(RUN, path)
    assert load_results(path) == RUN


def test_file_without_results_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with pytest.raises(InvalidArgument, match="cannot be read"):
        load_results(path)
    path.write_text("[]")
    with pytest.raises(InvalidArgument, match="no results"):
        load_results(path)


@pytest.mark.parametrize(
    ("unit", "before", "now", "ratio", "verdict"),
    [
        ("msg/s", [100.0], [150.0], 1.5, "better"),
        ("msg/s", [100.0], [50.0], 0.5, "worse"),
        ("µs", [100.0], [50.0], 2.0, "better"),
        ("msg/s", [100.0], [102.0], 1.02, ""),
        ("msg/s", [80.0, 120.0], [120.0, 140.0], 1.3, ""),
    ],
)
def test_change_is_told_where_it_is_beyond_the_noise(
    unit: str, before: list[float], now: list[float], ratio: float, verdict: str
) -> None:
    (change,) = compare(
        results(figure("publish", *before, unit=unit)), results(figure("publish", *now, unit=unit))
    )
    assert change.ratio == pytest.approx(ratio)
    assert change.verdict == verdict


def test_figures_that_only_one_run_has_are_not_compared() -> None:
    assert compare(results(figure("publish", 1.0)), results(figure("fan-in", 1.0))) == []
