"""``mbctl ping``."""

from typing import Annotated

import typer

from mbctl.cli.command import ClientCommand, make_app
from mbctl.cli.options import client_of, not_negative

app = make_app()


@app.command(cls=ClientCommand, epilog="mbctl ping --wait 10")
def ping(
    context: typer.Context,
    wait: Annotated[
        float,
        typer.Option(
            "--wait",
            metavar="SECONDS",
            callback=not_negative,
            help="Try until a server answers, at most this long.",
        ),
    ] = 0.0,
) -> None:
    """Measure how fast the server answers."""
    from mbctl import Admin
    from mbctl.actions import status as act

    client = client_of(context)
    options = client.options

    def connect(seconds: float | None) -> Admin:
        timeout = options.timeout if seconds is None else min(options.timeout, seconds)
        return Admin(options.server, timeout=timeout)

    act.ping(connect, client.output, wait=wait)
