"""``mbctl bench``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbctl.actions import exit_codes
from mbctl.actions.output import Column, Output
from mbctl.cli.arguments import parse_size
from mbctl.cli.command import DirectoryCommand, make_app
from mbctl.cli.options import above_zero, output_of

if TYPE_CHECKING:
    from mbctl.bench.comparing import Change
    from mbctl.bench.figures import Results
    from mbctl.bench.session import Session

app = make_app()

Scenarios = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SCENARIO...]",
        help="What to measure; the page of this command lists them. Default: a tour.",
        show_default=False,
    ),
]
Peers = Annotated[
    str,
    typer.Option("--peer", metavar="NAME,...", help="Measure these beside mbctl: redis, nats, ..."),
]
Repeat = Annotated[
    int, typer.Option("--repeat", metavar="N", min=1, help="How often to measure each.")
]
Seconds = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        metavar="SECONDS",
        callback=above_zero,
        help="How long publishers send. Default: 1, and 0.5 in the suite.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option("--size", metavar="SIZE", parser=parse_size, help="The payloads' size."),
]
BatchOption = Annotated[
    int | None, typer.Option("--batch", metavar="N", min=1, help="Messages sent together.")
]
DurabilityOption = Annotated[
    str | None,
    typer.Option(
        "--durability",
        metavar="memory|written|synced",
        help="What an acknowledgement means, for all scenarios.",
    ),
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Number every message, and look at each by itself.")
]
Directory = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help="Where servers keep their files meanwhile."),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write all results to a file.")
]
CsvFile = Annotated[
    Path | None, typer.Option("--csv", metavar="FILE", help="Write a line for each result.")
]
Compare = Annotated[
    Path | None,
    typer.Option("--compare", metavar="FILE", help="Compare with what --json wrote before."),
]
Only = Annotated[
    str, typer.Option("--only", metavar="SCENARIO,...", help="These parts of the suite only.")
]
Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="DIR", help="Write benchmark.md, its plots and raw results."),
]
FailIf = Annotated[
    list[str] | None,
    typer.Option("--fail-if", metavar="CONDITION", help="Exit 8 if this holds: 'publish<5M'."),
]


@app.command(
    cls=DirectoryCommand,
    epilog="""
    mbctl bench
    mbctl bench raw
    mbctl bench publish latency --repeat 5 --json today.json
    mbctl bench publish --compare yesterday.json --fail-if 'publish<5M'
    mbctl bench end-to-end fan-out --peer redis,nats
    mbctl bench suite --only publish,latency --report reports
    """,
)
def bench(
    context: typer.Context,
    scenario: Scenarios = None,
    peer: Peers = "",
    repeat: Repeat = 3,
    seconds: Seconds = None,
    size: Size = None,
    batch: BatchOption = None,
    durability: DurabilityOption = None,
    verify: Verify = False,
    directory: Directory = None,
    json: JsonFile = None,
    csv: CsvFile = None,
    compare: Compare = None,
    fail_if: FailIf = None,
    only: Only = "",
    report: Report = None,
) -> int:
    """Measure how fast messages move.

    Each must arrive once and in order, here and through other brokers. Servers, publishers
    and subscribers are processes of their own, on free ports of this machine, and are gone
    afterwards. Without a SCENARIO it is a tour of a minute.
    """
    from mbctl.bench.figures import load_results
    from mbctl.bench.report.writing import write_report
    from mbctl.bench.session import Session, Wish

    output = output_of(context)
    _check_files(json, csv, report)
    before = load_results(compare) if compare else None
    session = Session(
        Wish(
            scenarios=scenario or [],
            peers=_listed(peer),
            only=_listed(only),
            repeat=repeat,
            seconds=seconds,
            size=size,
            batch=batch,
            durability=_durability(durability),
            verify=verify,
            directory=directory,
            fail_if=fail_if or [],
        )
    )
    results = session.run(bar=output.stderr.isatty() and not output.quiet)
    _save(results, json, csv)
    if report is not None:
        write_report(results, report, is_part=session.is_part)
    _show(output, results)
    if before is not None:
        from mbctl.bench.comparing import compare as compared

        _show_changes(output, compared(before, results))
    return _end(output, session, results)


def _durability(value: str | None) -> Any:
    if value not in (None, "memory", "written", "synced"):
        raise typer.BadParameter(
            f"{value!r} is not one of memory, written, synced.", param_hint="'--durability'"
        )
    return value


def _check_files(json: Path | None, csv: Path | None, report: Path | None) -> None:
    """Refuse now what could not be written when all is measured."""
    for path in (json, csv):
        if path is not None:
            path.open("ab").close()
    if report is not None:
        from mbctl.bench.report.writing import check_plotting

        check_plotting()
        report.mkdir(parents=True, exist_ok=True)


def _listed(names: str) -> list[str]:
    return [name for name in names.split(",") if name]


def _save(results: "Results", json: Path | None, csv: Path | None) -> None:
    from mbctl.bench.figures import save_results
    from mbctl.bench.showing import save_csv

    if json is not None:
        save_results(results, json)
    if csv is not None:
        save_csv(results.figures, csv)


def _show(output: Output, results: "Results") -> None:
    from mbctl.bench import showing

    if not output.for_people:
        shape = showing.row if output.as_json else showing.flat
        columns = [Column(name, name) for name in showing.FIELDS]
        output.rows(columns, [shape(figure) for figure in results.figures])
        return
    cells = [showing.cells(figure) for figure in results.figures]
    columns = [
        Column(name, name.upper(), "text" if name in ("what", "system", "note") else "number")
        for name in showing.SHOWN
        if any(cell[name] for cell in cells)
    ]
    output.rows(columns, cells, empty="nothing was measured")
    for line in showing.legend(results.figures):
        output.note(line)


def _show_changes(output: Output, changes: "list[Change]") -> None:
    columns = [
        Column("name", "NAME"),
        Column("system", "SYSTEM"),
        Column("before", "BEFORE", "number"),
        Column("now", "NOW", "number"),
        Column("ratio", "RATIO", "number"),
        Column("noise", "NOISE", "number"),
        Column("verdict", ""),
    ]
    rows = [
        {
            "name": change.name,
            "system": change.system,
            "before": round(change.before, 1),
            "now": round(change.now, 1),
            "ratio": round(change.ratio, 3),
            "noise": round(change.noise, 3),
            "verdict": change.verdict,
        }
        for change in changes
    ]
    output.rows(columns, rows, empty="the earlier run has none of these figures")


def _end(output: Output, session: "Session", results: "Results") -> int:
    """Say what went wrong; the exit code."""
    from mbctl.bench.running import faults_in

    if results.partial:
        output.note("PARTIAL: it was interrupted, and this is what there was")
        return exit_codes.INTERRUPTED
    faults = faults_in(results.figures)
    failed = [reason for c in session.conditions if (reason := c.fails(results)) is not None]
    for line in (*faults, *failed):
        output.failure("BenchFailed", line)
    compared = sum(figure.compared for figure in results.figures)
    if compared and not faults:
        output.note(f"{compared:,} messages read: none lost, doubled, changed or out of order")
    return exit_codes.CHECK_FAILED if faults or failed else exit_codes.OK
