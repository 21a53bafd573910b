"""``mbctl server``."""

from typing import Annotated, Literal

import typer

from mbctl.cli.arguments import parse_size
from mbctl.cli.command import Command, make_app
from mbctl.model import DEFAULT_HOST, DEFAULT_PORT

app = make_app()

_Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DIR",
        envvar="MBCTL_DATA",
        help="Where to keep messages.  [default: the user's data directory]",
        show_default=False,
    ),
]
_Sync = Annotated[
    Literal["always", "never"] | None,
    typer.Option(
        "--sync",
        metavar="always|never",
        envvar="MBCTL_SYNC",
        help="Whether a message is forced to disk before it is acknowledged.  [default: always]",
        show_default=False,
    ),
]
_MaxBytes = Annotated[
    int | None,
    typer.Option(
        "--max-bytes",
        metavar="SIZE",
        parser=parse_size,
        envvar="MBCTL_MAX_BYTES",
        help="Refuse sends when messages take up this much, such as 4G.  [default: when the disk"
        " has 5% or 1 GiB left; with --memory a quarter of the memory]",
        show_default=False,
    ),
]


_Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="local|nats://HOST:PORT[,...]",
        envvar="MBCTL_ENGINE",
        help="Where messages are kept: by this server, or by a NATS JetStream cluster.",
    ),
]
_Replicas = Annotated[
    int | None,
    typer.Option(
        "--replicas",
        metavar="N",
        envvar="MBCTL_REPLICAS",
        help="How many servers of the cluster keep each message: 1, 3 or 5.  [default: 3 if"
        " three are named, else 1]",
        show_default=False,
    ),
]


@app.command(
    cls=Command,
    epilog="""
    mbctl server
    mbctl server --data ./broker --max-bytes 4G
    mbctl server --memory --port 0
    mbctl server --engine nats://n1:4222,n2:4222,n3:4222 --replicas 3
    """,
)
def server(
    context: typer.Context,
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
    data: _Data = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Keep messages in memory; they end with the server.")
    ] = False,
    sync: _Sync = None,
    max_bytes: _MaxBytes = None,
    engine: _Engine = "local",
    replicas: _Replicas = None,
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

    Messages are kept in a directory and are there again after a restart. Prints one line to
    stdout when it is ready; the log goes to stderr.
    """
    if memory:
        # What is said here goes before what the environment says always.
        data = data if _is_said(context, "data") else None
        sync = sync if _is_said(context, "sync") else None
    if engine != "local":
        data = data if _is_said(context, "data") else None
        max_bytes = max_bytes if _is_said(context, "max_bytes") else None
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
            engine=engine,
            replicas=replicas,
            insecure=insecure,
            log_format=log_format,
        )
    )


def _is_said(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line itself."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
