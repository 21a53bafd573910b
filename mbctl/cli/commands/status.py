"""``mbctl status``."""

import typer

from mbctl.cli.command import ClientCommand, make_app
from mbctl.cli.options import client_of

app = make_app()


@app.command(cls=ClientCommand, epilog="mbctl status")
def status(context: typer.Context) -> None:
    """Show what the server is and how busy."""
    from mbctl.actions import status as act

    client = client_of(context)
    with client.admin() as admin:
        act.status(admin, client.output)
