"""``mbctl demo``."""

import shutil
from typing import Annotated

import typer

from mbctl.cli.command import DirectoryCommand, make_app
from mbctl.cli.options import above_zero, output_of

app = make_app()

# What the picture needs; a smaller terminal is told in lines.
_COLUMNS_MIN = 76
_LINES_MIN = 22


@app.command(
    cls=DirectoryCommand,
    epilog="""
    mbctl demo
    mbctl demo --seconds 5
    """,
)
def demo(
    context: typer.Context,
    seconds: Annotated[
        float,
        typer.Option("--seconds", metavar="SECONDS", callback=above_zero, help="How long to run."),
    ] = 15.0,
) -> int:
    """Watch the whole system at work for 15 seconds.

    A broker, two publishers, and three subscribers of different speeds.

    Everything runs on this machine, on a port of its own, and is gone afterwards.
    """
    from mbctl.actions.live import can_draw
    from mbctl.bench.demo import run

    output = output_of(context)
    if output.as_json:
        return run(seconds, "json")
    size = shutil.get_terminal_size()
    has_room = size.columns >= _COLUMNS_MIN and size.lines >= _LINES_MIN
    draws = output.form == "auto" and can_draw(output) and has_room
    return run(seconds, "picture" if draws else "lines", color=output.color)
