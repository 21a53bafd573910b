"""``mbctl top``."""

import sys
from typing import Annotated

import typer

from mbctl.actions.top import SORTS, Sort
from mbctl.cli.command import ClientCommand, make_app
from mbctl.cli.options import above_zero, client_of

app = make_app()


@app.command(
    cls=ClientCommand,
    epilog="""
    mbctl top
    mbctl top --sort lag --filter 'orders*'
    mbctl top --once -o json
    """,
)
def top(
    context: typer.Context,
    interval: Annotated[
        float,
        typer.Option(
            "--interval",
            "-d",
            metavar="SECONDS",
            callback=above_zero,
            help="How long between two looks.",
        ),
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and leave.")] = False,
    sort: Annotated[
        Sort,
        typer.Option("--sort", metavar="|".join(SORTS), help="What comes first."),
    ] = "rate",
    only: Annotated[
        str,
        typer.Option(
            "--filter",
            metavar="TEXT",
            help="Only topics and subscribers with this in their names, or like it with *.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Watch rates and lag, and who holds the disk.

    Keys: q quits, p pauses, s sorts, / filters. Off a terminal it prints an object of JSON for
    each look.
    """
    from mbctl.actions import live
    from mbctl.actions.top import View

    client = client_of(context)
    output = client.output
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "")
    view = View(
        client.options.server,
        sort=sort,
        only=only,
        color=output.color,
        utf8=encoding == "utf8",
    )
    with client.admin() as admin:
        if once:
            live.show_once(admin, output, view, interval)
        elif output.form == "auto" and live.can_draw(output):
            live.show_live(admin, output, view, interval)
        else:
            live.show_lines(admin, output, view, interval)
