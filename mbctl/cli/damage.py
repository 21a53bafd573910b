"""How the report on a data directory looks, and what its commands share."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mbctl.actions import exit_codes
from mbctl.actions.output import Column, Output, Row

if TYPE_CHECKING:
    from mbctl.files import Directory
    from mbctl.offline.report import Report


def check_path(path: str) -> str:
    """Refuse the empty one, which a script that forgot a variable gives: it is no directory."""
    if not path:
        raise typer.BadParameter("it is empty.")
    return path


DataDirectory = Annotated[
    str,
    typer.Argument(
        metavar="DIR", help="The data directory.", show_default=False, callback=check_path
    ),
]
"""The directory that a command is about."""

_COLUMNS = (
    Column("directory", "Directory"),
    Column("journal", "Journal"),
    Column("whole", "Whole"),
    Column("topics", "Topics", "count"),
    Column("subscriptions", "Subscriptions", "count"),
    Column("segments", "Files with records", "count"),
    Column("records", "Records", "count"),
    Column("batches", "Batches", "count"),
    Column("messages", "Messages", "count"),
    Column("bytes", "Size", "size"),
)
_DETAILS = (Column("kind", "KIND"), Column("where", "WHERE"), Column("what", "WHAT"))


def directory_at(path: str) -> "Directory":
    """The data directory at ``path``."""
    from mbctl.files import Directory, Disk

    return Directory(Disk(), Path(path).absolute())


def nobody(done: int, total: int) -> None:
    """Take note of progress where nobody is looking."""


def exit_code_of(report: "Report") -> int:
    """What a script is told about a directory that was only looked at."""
    return exit_codes.OK if report.is_whole else exit_codes.CHECK_FAILED


def show(output: Output, report: "Report") -> None:
    """Show what was found, and what was or would be done about it."""
    output.record(_COLUMNS, report.as_row())
    if output.as_json:
        return
    details = list(_details(report))
    if details:
        output.rows(_DETAILS, details)
    if report.kept_in:
        output.note(f"repaired; what was replaced is kept in {report.kept_in}")
    elif report.is_whole:
        output.note("nothing is wrong")
    else:
        output.note(
            "restore the directory from a copy, or give up what is lost with: "
            f"mbctl repair --accept-loss {shlex.quote(report.directory)}"
        )


def show_restored(output: Output, report: "Report") -> None:
    """Show what was restored, and how to go on with it."""
    output.record(_COLUMNS, report.as_row())
    if not output.as_json:
        directory = shlex.quote(report.directory)
        output.note(f"restored; serve it with: mbctl server --data {directory}")


def _details(report: "Report") -> Iterator[Row]:
    for finding in report.findings:
        yield _row("damage", _place(finding.file, finding.position), finding.what)
    for lost in report.lost:
        count = lost.next - lost.first
        noun = "message" if count == 1 else "messages"
        what = f"{count} {noun}, from {lost.first} to before {lost.next}"
        yield _row("lost", lost.topic, what)
    for finding in report.lost_records:
        what = f"{finding.what}: changes, or the last messages of a topic"
        yield _row("lost", _place(finding.file, finding.position), what)
    for sentence in report.may_be_missing:
        yield _row("unknown", "", sentence)
    for sentence in report.notes:
        yield _row("note", "", sentence)
    if report.kept_in:
        for name in report.put_away:
            yield _row("replaced", name, f"kept in {report.kept_in}")


def _place(file: str, position: int) -> str:
    return f"{file} at byte {position}" if position else file


def _row(kind: str, where: str, what: str) -> Row:
    return {"kind": kind, "where": where, "what": what}
