"""``mbctl demo``."""

import sys
from typing import Annotated

import typer

from mbctl.cli.command import Command, make_app
from mbctl.cli.options import above_zero

app = make_app()


@app.command(
    cls=Command,
    epilog="""
    mbctl demo
    mbctl demo --seconds 5
    """,
)
def demo(
    seconds: Annotated[
        float,
        typer.Option("--seconds", metavar="SECONDS", callback=above_zero, help="How long to run."),
    ] = 15.0,
) -> int:
    """Watch the whole system at work for 15 seconds.

    A broker, two publishers, and three subscribers of different speeds.

    Everything runs on this machine, on a port of its own, and is gone afterwards.
    """
    from mbctl.bench.demo import run

    return run(seconds, live=sys.stdout.isatty())
