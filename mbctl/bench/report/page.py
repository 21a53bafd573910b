"""``benchmark.md``: what was measured, against the peers and the floors, said plainly."""

from collections.abc import Iterable, Sequence

from mbctl.bench.figures import Figure, Results
from mbctl.bench.report.floors import Judged, judge
from mbctl.bench.showing import amount, legend
from mbctl.bench.systems.registry import PEERS

COMPARED = (
    *("publish", "publish.each", "end-to-end", "end-to-end.mixed", "end-to-end.durable"),
    *("fan-out", "fan-out.durable", "fan-in", "sizes.1024", "sizes.16384"),
    *("durable", "durable.one", "durable.64", "latency.ack", "latency.ack.durable"),
    *("latency.delivery", "latency.open", "memory", "memory.durable", "start-up"),
)
"""The rows of the table against the peers."""


def page(results: Results, plots: Sequence[tuple[str, str]]) -> str:
    """The page as Markdown; ``plots`` are the files beside it, with what each shows."""
    judged = judge(results)
    parts = [
        _head(results),
        _verdict(results, judged),
        _against_peers(results, judged),
        _all_floors(judged),
        _curves(plots),
        _machine(results),
        _everything(results),
        _how(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(results: Results) -> str:
    lines = [
        "# Benchmark",
        "Publishers, subscribers and servers are processes of their own on one machine. Payloads"
        " are random bytes; 100 of them where nothing else is said. The systems were measured in"
        " turns, one beside the other, so ratios mean more than figures. Each figure is the median"
        " of its repeats, and before each throughput was taken, the same was done once for nothing,"
        " on every system. The raw results are in [benchmark.json](benchmark.json).",
        f"```text\n{results.command}\n```",
        _table(["", ""], [[name, str(value)] for name, value in _facts(results)]),
    ]
    if results.partial:
        lines.insert(1, "**PARTIAL: the run was interrupted.**")
    return "\n\n".join(lines)


def _facts(results: Results) -> Iterable[tuple[str, str | float]]:
    yield "began", f"{results.began}, took {results.seconds:.0f} s"
    yield from results.machine.items()
    versions = {f.system: f.version for f in results.figures if f.version}
    yield from versions.items()


def _verdict(results: Results, judged: Sequence[Judged]) -> str:
    """In a few lines, what came out."""
    faults = [f"{f.name}, {f.system}: {fault}" for f in results.figures for fault in f.faults]
    compared = sum(f.compared for f in results.figures if f.system == "mbctl")
    lines = ["## What came out"]
    if faults:
        lines.append("**Messages were lost, doubled, changed or out of order:**")
        lines += [f"- {fault}" for fault in faults]
    else:
        lines.append(
            f"- {compared:,} messages of mbctl were read and compared with what was sent:"
            " none was lost, doubled, changed or out of order, and none on any other system."
        )
    measured = [j for j in judged if j.verdict != "not measured"]
    met = [j for j in measured if j.verdict == "met"]
    lines.append(f"- {len(met)} of {len(measured)} floors are met.")
    for one in measured:
        if one.verdict == "not met":
            assert one.figure is not None
            value = amount(one.figure.value, one.figure.unit)
            lines.append(
                f"- Not met: {one.figure.title}: {value}, {one.margin:.0%} of {one.shown}."
            )
    lines += _standing(results)
    failed = [f for f in results.figures if f.status in ("failed", "unavailable")]
    lines += [f"- {f.status.capitalize()}: {f.title}, {f.system}: {f.note}" for f in failed]
    return "\n".join([lines[0], "", *lines[1:]])


def _standing(results: Results) -> list[str]:
    """How many comparisons mbctl wins, and each that it does not."""
    compared = [f for f in results.figures if f.ratios]
    if not compared:
        return []
    behind: dict[str, list[str]] = {}
    for f in compared:
        if f.ratio < 1:
            behind.setdefault(f.title, []).append(f"{f.ratio:.2f} of {f.system}")
    lost = sum(map(len, behind.values()))
    return [
        f"- Of {len(compared)} comparisons with peers mbctl is ahead in {len(compared) - lost}.",
        *[f"- Behind in {title}: {', '.join(ratios)}." for title, ratios in behind.items()],
    ]


def _against_peers(results: Results, judged: Sequence[Judged]) -> str:
    """The table of the systems beside each other."""
    peers = [name for name in PEERS if any(f.system == name and f.values for f in results.figures)]
    floors = {one.floor.name: one for one in judged}
    rows = []
    for name in COMPARED:
        figure = _any(results, name)
        if figure is None:
            continue
        rows.append(
            [
                f"{figure.title}, {figure.unit}",
                *[_cell(results, name, peer) for peer in peers],
                f"**{_cell(results, name, 'mbctl')}**",
                _best_ratio(results, name, peers),
                floors[name].shown if name in floors else "",
                floors[name].verdict if name in floors else "",
            ]
        )
    head = ["scenario", *peers, "mbctl", "ours to the best", "floor", ""]
    if not rows:
        return ""
    note = (
        "`ours to the best` is the median of ratios, run by run, to the peer that is closest or"
        " ahead; above 1 mbctl is ahead, also where less is better."
    )
    return "\n\n".join(["## Against the peers", _table(head, rows), note])


def _any(results: Results, name: str) -> Figure | None:
    return next((f for f in results.figures if f.name == name), None)


def _cell(results: Results, name: str, system: str) -> str:
    """A value without its unit, or why there is none."""
    for figure in results.figures:
        if figure.name == name and figure.system == system:
            return _number(figure.value) if figure.values else figure.status
    return "-"


def _number(value: float) -> str:
    if value >= 1000:
        digits = max(len(str(int(value))) - 3, 0)
        return f"{round(value, -digits):,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _best_ratio(results: Results, name: str, peers: Sequence[str]) -> str:
    figures = [results.of(name, peer) for peer in peers]
    ratios = [(f.ratio, f.system) for f in figures if f is not None and f.ratios]
    if not ratios:
        return ""
    ratio, peer = min(ratios)
    return f"{ratio:.2f} x {peer}"


def _all_floors(judged: Sequence[Judged]) -> str:
    rows = [
        [
            one.figure.title if one.figure else one.floor.name,
            amount(one.figure.value, one.figure.unit) if one.figure else "-",
            f"{'at most' if one.floor.at_most else 'at least'} {one.shown}",
            "" if one.verdict == "not measured" else f"{one.margin:.2f}",
            one.verdict,
        ]
        for one in judged
    ]
    head = ["what", "mbctl", "floor", "margin", ""]
    note = "A margin above 1 is on the good side, also where less is better."
    return "\n\n".join(["## The floors", _table(head, rows), note])


def _curves(plots: Sequence[tuple[str, str]]) -> str:
    if not plots:
        return ""
    return "\n\n".join(["## Plots", *[f"![{what}]({file})" for file, what in plots]])


def _machine(results: Results) -> str:
    rows = [
        [f.title, amount(f.value, f.unit), f"{f.variation:.0%}", _p99(f)]
        for f in results.figures
        if f.system == "machine" and f.values
    ]
    if not rows:
        return ""
    note = "What these processes, sockets and this disk do with no broker in between."
    return "\n\n".join(
        ["## The machine below", note, _table(["what", "result", "variation", "p99"], rows)]
    )


def _everything(results: Results) -> str:
    rows = [
        [
            f"`{f.name}`",
            f.system,
            f.durability,
            amount(f.value, f.unit) if f.values else f.status,
            f"{f.variation:.0%}" if len(f.values) > 1 else "",
            _p99(f),
            f"{f.ratio:.2f}" if f.ratios else "",
            "; ".join([f"{name} {_number(value)}" for name, value in f.details.items()]) or f.note,
        ]
        for f in results.figures
        if f.system != "machine"
    ]
    head = ["name", "system", "durability", "result", "variation", "p99", "ours", "details"]
    return "\n\n".join(["## Every figure", _table(head, rows)])


def _p99(figure: Figure) -> str:
    return amount(figure.percentiles["p99"], figure.unit) if figure.percentiles else ""


def _how(results: Results) -> str:
    lines = [f"- {line}" for line in legend(results.figures)]
    return "\n".join(["## How each system was run and used", "", *lines]) if lines else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
