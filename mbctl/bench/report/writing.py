"""Writes a report into a directory, and takes in the parts that were measured before."""

from pathlib import Path

import msgspec

from mbctl.bench.figures import Results, load_results, save_results
from mbctl.bench.report.page import page
from mbctl.bench.report.plots import draw
from mbctl.errors import NotSupported

RESULTS = "benchmark.json"
PAGE = "benchmark.md"


def check_plotting() -> None:
    """Refuse before anything is measured.

    Raises:
        NotSupported: matplotlib is not installed.
    """
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise NotSupported(what="--report without matplotlib: pip install 'mbctl[bench]'; it")


def write_report(results: Results, directory: Path, *, is_part: bool) -> Results:
    """Write the page, its plots and the raw results; of a part, with the others there are."""
    directory.mkdir(parents=True, exist_ok=True)
    earlier = directory / RESULTS
    if is_part and earlier.exists():
        results = merged(load_results(earlier), results)
    save_results(results, earlier)
    write_page(results, directory)
    return results


def write_page(results: Results, directory: Path) -> None:
    """Write the page and its plots."""
    plots = draw(results, directory)
    (directory / PAGE).write_text(page(results, plots))


def merged(before: Results, now: Results) -> Results:
    """The figures of ``now``, and those of ``before`` that it did not measure again.

    What the machine can do is kept of each run: floors are computed from their own.
    """
    measured = {(f.name, f.system) for f in now.figures if f.system != "machine"}
    kept = [
        f
        for f in before.figures
        if f.began != now.began and f.system != "machine" and (f.name, f.system) not in measured
    ]
    runs = {f.began for f in kept}
    raw = [f for f in before.figures if f.system == "machine" and f.began in runs]
    return msgspec.structs.replace(now, figures=[*now.figures, *kept, *raw])
