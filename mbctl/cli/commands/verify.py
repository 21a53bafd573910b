"""``mbctl verify``."""

import typer

from mbctl.cli.command import DirectoryCommand, make_app
from mbctl.cli.damage import DataDirectory, directory_at, exit_code_of, nobody, show
from mbctl.cli.options import output_of

app = make_app()


@app.command(
    cls=DirectoryCommand,
    epilog="""
    mbctl verify ./broker
    mbctl verify ./broker -o json
    """,
)
def verify(context: typer.Context, directory: DataDirectory) -> int:
    """Read all that is in a data directory, and say what is wrong.

    No server may use the directory. Nothing in it is changed.

    Exits 0 if all is whole, 8 if something is wrong.
    """
    from mbctl.actions.backups import progress_on
    from mbctl.offline.repair import verify as act

    output = output_of(context)
    with progress_on(output) as progress:
        report = act(directory_at(directory), progress or nobody)
    show(output, report)
    return exit_code_of(report)
