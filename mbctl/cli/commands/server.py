"""``mbctl server``."""

from typing import Annotated, Literal

import typer

from mbctl.cli.arguments import parse_size
from mbctl.cli.command import Command, make_app
from mbctl.model import DEFAULT_HOST, DEFAULT_PORT

app = make_app()


@app.command(
    cls=Command,
    epilog="""
    mbctl server
    mbctl server --memory --port 0
    """,
)
def server(
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", envvar="MBCTL_HOST", help="Where to listen.")
    ] = DEFAULT_HOST,
    port: Annotated[
        int,
        typer.Option(
            "--port",
            metavar="PORT",
            min=0,
            max=65535,
            envvar="MBCTL_PORT",
            help="The port; 0 picks a free one.",
        ),
    ] = DEFAULT_PORT,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DIR",
            envvar="MBCTL_DATA",
            help="The data directory. For now messages are kept in memory, with or without it.",
            show_default=False,
        ),
    ] = None,
    memory: Annotated[bool, typer.Option("--memory", help="Keep messages in memory only.")] = False,
    sync: Annotated[
        Literal["always", "never"],
        typer.Option(
            "--sync",
            metavar="always|never",
            envvar="MBCTL_SYNC",
            help="Whether a message is on disk before it is acknowledged; here, always in memory.",
        ),
    ] = "always",
    max_bytes: Annotated[
        int | None,
        typer.Option(
            "--max-bytes",
            metavar="SIZE",
            parser=parse_size,
            envvar="MBCTL_MAX_BYTES",
            help="Refuse sends above this size of messages in all, such as 4G.",
        ),
    ] = None,
    log_format: Annotated[
        Literal["text", "json"],
        typer.Option(
            "--log-format",
            metavar="text|json",
            envvar="MBCTL_LOG_FORMAT",
            help="The form of the log on stderr.",
        ),
    ] = "text",
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Allow a --host that others can reach, without users."),
    ] = False,
) -> int:
    """Run the broker until Ctrl-C.

    Prints one line to stdout when it is ready; the log goes to stderr.
    """
    if memory and data is not None:
        raise typer.BadParameter("--memory goes without --data.")
    from mbctl.server import run
    from mbctl.server.options import ServerOptions

    return run(
        ServerOptions(
            host=host,
            port=port,
            data=data,
            memory=memory,
            sync=sync,
            max_bytes=max_bytes,
            insecure=insecure,
            log_format=log_format,
        )
    )
