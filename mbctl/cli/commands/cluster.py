"""``mbctl cluster``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mbctl.cli.command import DirectoryCommand, Group, make_app
from mbctl.cli.options import output_of

if TYPE_CHECKING:
    from mbctl.cluster.processes import Cluster

app = make_app(cls=Group, help="Run a local NATS JetStream cluster, to try one.")

_Directory = Annotated[
    str | None,
    typer.Option(
        "--dir",
        metavar="DIR",
        envvar="MBCTL_CLUSTER",
        help="Where its files are.  [default: the user's data directory]",
        show_default=False,
    ),
]


@app.command(
    cls=DirectoryCommand,
    epilog="""
    mbctl cluster start
    mbctl cluster start --nodes 1 --dir ./nats
    """,
)
def start(
    context: typer.Context,
    nodes: Annotated[
        int, typer.Option("--nodes", metavar="N", min=1, max=7, help="How many nats-servers.")
    ] = 3,
    directory: _Directory = None,
    sync: Annotated[
        Literal["always", "never"],
        typer.Option(
            "--sync",
            metavar="always|never",
            help="Whether nats-server forces each message to disk, or only every two minutes.",
        ),
    ] = "always",
) -> None:
    """Start nats-servers on free ports of this machine.

    Returns when they take messages, and prints the URL for mbctl server --engine.
    """
    url = _cluster(directory).start(nodes, sync="always" if sync == "always" else "2m")
    output_of(context).done({"url": url}, url)


@app.command(cls=DirectoryCommand, epilog="mbctl cluster stop")
def stop(context: typer.Context, directory: _Directory = None) -> None:
    """Stop the nats-servers; what they hold stays in their directory."""
    from mbctl.actions.text import counted

    count = _cluster(directory).stop()
    output_of(context).done({"stopped": count}, f"stopped {counted(count, 'nats-server')}")


@app.command(cls=DirectoryCommand, epilog="mbctl cluster status")
def status(context: typer.Context, directory: _Directory = None) -> int:
    """Show the nats-servers and how each is.

    Exits 0 if all are ready, 8 if not.
    """
    import msgspec

    from mbctl.actions import exit_codes
    from mbctl.actions.output import Column

    columns = (
        Column("name", "NODE"),
        Column("url", "URL"),
        Column("state", "STATE"),
        Column("pid", "PROCESS", "number"),
        Column("log", "LOG"),
    )
    found = _cluster(directory).status()
    rows = [msgspec.structs.asdict(one) for one in found]
    empty = "there is no cluster here; start one with: mbctl cluster start"
    output = output_of(context)
    output.rows(columns, rows, empty=empty)
    if not rows and not output.for_people:
        # A script that ends with 8 wants to know why, too.
        output.note(empty)
    is_ready = bool(found) and all(one.state == "ready" for one in found)
    return exit_codes.OK if is_ready else exit_codes.CHECK_FAILED


def _cluster(directory: str | None) -> "Cluster":
    from mbctl.cluster.processes import Cluster, default_directory

    return Cluster(default_directory() if directory is None else Path(directory))
