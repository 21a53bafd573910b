"""The report: floors, the page and the plots, from results made for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from mbctl.bench.catalogue import SCENARIOS
from mbctl.bench.figures import Figure, Measured, Results, load_results
from mbctl.bench.report.floors import Judged, judge
from mbctl.bench.report.page import COMPARED, page
from mbctl.bench.report.writing import merged, write_report

ALL = {case.name: case for cases in SCENARIOS.values() for case in cases()}
RAW = {"raw.stream": 4000.0, "raw.ping-pong": 60.0, "raw.sync": 140.0, "raw.sync.stream": 700.0}


def figure(name: str, value: float, system: str = "mbctl", ratio: float | None = None) -> Figure:
    """A figure of this case."""
    case = ALL[name]
    made = Figure(
        name=name, title=case.title, system=system, unit=case.unit, better=case.better, x=case.x
    )
    made.began = "2026-01-01T00:00:00Z"
    made.version = f"{system} 1.0"
    made.settings = "batches of 2000"
    made.add(Measured(value=value, messages=2000, compared=1000))
    if case.unit == "µs":
        made.percentiles = {"p0": value / 2, "p50": value, "p99": value * 3, "p100": value * 9}
    made.ratios = [] if ratio is None else [ratio]
    return made


def results(*figures: Figure, began: str = "2026-01-01T00:00:00Z") -> Results:
    """A run that found these on the machine."""
    raw = [figure(name, value, "machine") for name, value in RAW.items()]
    for one in (*raw, *figures):
        one.began = began
    return Results(
        command="mbctl bench suite", began=began, machine={"cores": 2}, figures=[*raw, *figures]
    )


def judged(name: str, value: float) -> Judged:
    """How this figure stands to its floor."""
    found = judge(results(figure(name, value)))
    (one,) = [one for one in found if one.floor.name == name]
    return one


@pytest.mark.parametrize(
    ("name", "enough", "too_little"),
    [
        ("publish", 7e6, 6.99e6),
        ("sizes.1024", 600, 599),
        ("sizes.16384", 1200, 1199),
        ("sizes.16384.durable", 420, 419),
        ("durable.one", 4000, 3999),
        ("latency.ack", 78, 79),
        ("latency.delivery", 102, 103),
        ("memory.durable", 60, 61),
        ("start-up", 150, 151),
    ],
)
def test_floor_is_that_of_the_machine_of_the_run(
    name: str, enough: float, too_little: float
) -> None:
    assert judged(name, enough).verdict == "met"
    assert judged(name, enough).margin == pytest.approx(1)
    assert judged(name, too_little).verdict == "not met"
    assert judged(name, too_little).margin < 1


def test_curve_may_lose_a_third_to_its_end() -> None:
    ends = [figure("topics.1", 300_000), figure("topics.10000", 200_000)]
    (one,) = [one for one in judge(results(*ends)) if one.floor.name == "topics.10000"]
    assert one.verdict == "met"
    ends[1].values = [199_000]
    (one,) = [one for one in judge(results(*ends)) if one.floor.name == "topics.10000"]
    assert one.verdict == "not met"


def test_floors_and_rows_name_figures_that_there_are() -> None:
    assert {one.floor.name for one in judge(results())} <= set(ALL)
    assert set(COMPARED) <= set(ALL)


def test_floor_of_another_run_is_not_judged_by_this_machine() -> None:
    late = figure("latency.ack", 70)
    found = results()
    late.began = "2026-02-02T00:00:00Z"
    found.figures.append(late)
    (one,) = [one for one in judge(found) if one.floor.name == "latency.ack"]
    assert one.verdict == "not measured"


def test_page_says_plainly_what_is_met_and_who_is_ahead() -> None:
    shown = page(
        results(
            figure("publish", 8e6),
            figure("publish", 2e6, "redis", ratio=4.0),
            figure("latency.ack", 90),
            figure("latency.ack", 45, "redis", ratio=0.5),
        ),
        [("peers.svg", "Bars")],
    )
    assert "| publish, batches, msg/s | 2,000,000 | **8,000,000** | 4.00 x redis |" in shown
    assert "- 1 of 2 floors are met." in shown
    assert (
        "- Not met: publish to acknowledgement: 90 µs, 87% of 78 µs (1.3 raw ping-pongs)" in shown
    )
    assert "- Of 2 comparisons with peers mbctl is ahead in 1." in shown
    assert "- Behind in publish to acknowledgement: 0.50 of redis." in shown
    assert "2,000 messages of mbctl were read and compared" in shown
    assert "none was lost, doubled, changed or out of order" in shown
    assert "![Bars](peers.svg)" in shown
    assert "PARTIAL" not in shown


def test_page_says_what_was_lost_and_what_failed() -> None:
    harmed, failed = figure("publish", 8e6), figure("fan-in", 1)
    harmed.faults = ["publisher 0: 3 lost after number 17"]
    failed.status, failed.values, failed.note = "failed", [], "WorkerFailed: it took too long"
    found = results(harmed, failed)
    found.partial = True
    shown = page(found, [])
    assert "**PARTIAL: the run was interrupted.**" in shown
    assert "- publish, mbctl: publisher 0: 3 lost after number 17" in shown
    assert "none was lost" not in shown
    assert "- Failed: fan-in, 4 to 1, mbctl: WorkerFailed: it took too long" in shown


def test_later_run_takes_the_place_of_what_it_measured_again() -> None:
    before = results(figure("publish", 1), figure("fan-in", 2), began="2026-01-01T00:00:00Z")
    now = results(figure("publish", 3), began="2026-02-02T00:00:00Z")
    both = merged(before, now)
    values = {f.name: f.values for f in both.figures if f.system == "mbctl"}
    assert values == {"publish": [3.0], "fan-in": [2.0]}
    assert len([f for f in both.figures if f.system == "machine"]) == 2 * len(RAW)
    again = results(figure("fan-in", 4), began="2026-03-03T00:00:00Z")
    assert {f.began for f in merged(both, again).figures} == {
        "2026-02-02T00:00:00Z",
        "2026-03-03T00:00:00Z",
    }


def test_report_has_a_plot_for_all_that_has_several_points(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figures = [figure(f"sizes.{size}", size / 10) for size in (100, 1024, 16_384)]
    figures += [figure("backlog.0", 5e6), figure("backlog.1000000", 4e6)]
    figures += [figure("publish", 7e6), figure("publish", 2e6, "redis", ratio=3.5)]
    figures += [figure("latency.ack", 80), figure("latency.ack", 90, "redis", ratio=1.1)]
    write_report(results(*figures), tmp_path, is_part=True)
    made = {path.name for path in tmp_path.iterdir()}
    plots = {"peers.svg", "latency.svg", "sizes.svg", "backlog.svg"}
    assert made == {"benchmark.md", "benchmark.json", *plots}
    for plot in plots:
        assert f"({plot})" in (tmp_path / "benchmark.md").read_text()
        assert (tmp_path / plot).read_text().rstrip().endswith("</svg>")
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_report(results(*figures), tmp_path, is_part=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


def test_parts_of_the_suite_go_into_one_report(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for part in ("publish", "fan-in"):
        command = [sys.executable, "-m", "mbctl", "bench", "suite", "--only", part]
        options = ["--report", str(tmp_path), "--seconds", "0.02", "--repeat", "1", "-q"]
        subprocess.run([*command, *options], check=True, capture_output=True)
    names = [f.name for f in load_results(tmp_path / "benchmark.json").figures]
    assert {"publish", "publish.each", "fan-in", "raw.stream"} <= set(names)
    assert "fan-in, 4 to 1" in (tmp_path / "benchmark.md").read_text()
