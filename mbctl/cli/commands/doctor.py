"""``mbctl doctor``."""

from typing import Annotated

import typer

from mbctl.cli.command import ClientCommand, make_app
from mbctl.cli.options import client_of

app = make_app()


@app.command(
    cls=ClientCommand,
    epilog="""
    mbctl doctor
    mbctl doctor --trial -o json
    """,
)
def doctor(
    context: typer.Context,
    trial: Annotated[
        bool,
        typer.Option("--trial", help="Send a message through a topic of its own as well."),
    ] = False,
) -> int:
    """Check terminal and server, with a fix for each fault.

    Exits 8 if a check failed. What is only worth a look does not count.
    """
    from mbctl.actions import doctor as act
    from mbctl.actions import exit_codes

    client = client_of(context)
    findings = act.examine(client.admin, trial=trial)
    act.show(client.output, findings)
    failed = any(finding.state == "fail" for finding in findings)
    return exit_codes.CHECK_FAILED if failed else exit_codes.OK
