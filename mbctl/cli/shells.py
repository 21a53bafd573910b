"""What the commands of the two shells share."""

from typing import TYPE_CHECKING, Annotated

import typer

from mbctl.cli.options import client_of

if TYPE_CHECKING:
    from mbctl.shell import ShellOptions

Commands = Annotated[
    list[str] | None,
    typer.Option("-c", "--command", metavar="COMMAND", help="Run this and leave; repeatable."),
]
File = Annotated[
    str | None,
    typer.Option("-f", "--file", metavar="FILE", help="Run the commands of a file and leave."),
]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going", help="Do not stop at the first command that fails.")
]


def shell_options(
    context: typer.Context,
    name: str | None,
    *,
    command: list[str] | None,
    file: str | None,
    keep_going: bool,
    yes: bool,
) -> "ShellOptions":
    """How a shell was asked for."""
    from mbctl.shell import ShellOptions

    if command and file:
        raise typer.BadParameter("-c and -f do not go together.")
    shared = client_of(context).options
    known = shared.context
    return ShellOptions(
        server=shared.server,
        timeout=shared.timeout,
        name=name,
        commands=command or [],
        file=file,
        keep_going=keep_going,
        output=shared.output,
        color=shared.color,
        quiet=shared.quiet,
        verbose=shared.verbose,
        context=(known.name, known.color or "") if known else ("", ""),
        must_confirm=bool(known and known.must_confirm),
        yes=yes,
    )
