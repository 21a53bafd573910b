"""``mbctl context``: add, use, list, show, remove."""

from typing import Annotated

import typer

from mbctl.actions import contexts as acts
from mbctl.actions.contexts import Confirm, Context, Paint
from mbctl.actions.output import Column, Output, Row
from mbctl.cli.arguments import complete_context
from mbctl.cli.command import DirectoryCommand, Group, make_app
from mbctl.cli.options import output_of
from mbctl.errors import InvalidArgument
from mbctl.model import check_name

app = make_app(cls=Group, help="Give servers names, and choose the one that commands ask.")

_COLUMNS = (
    Column("context", "CONTEXT"),
    Column("server", "SERVER"),
    Column("color", "COLOR"),
    Column("confirm", "CONFIRM"),
    Column("current", "IN USE"),
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The context.",
        show_default=False,
        autocompletion=complete_context,
    ),
]


def _row(name: str, context: Context, current: str | None) -> Row:
    return {
        "context": name,
        "server": context.server,
        "color": context.color,
        "confirm": context.confirm,
        "current": name == current,
    }


@app.command(
    cls=DirectoryCommand,
    epilog="""
    mbctl context add local --server 127.0.0.1:5555 --use
    mbctl context add prod -s 127.0.0.1:5556 --prompt-color red --confirm always
    """,
)
def add(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The new name.", show_default=False, callback=check_name
        ),
    ],
    server: Annotated[
        str,
        typer.Option("--server", "-s", metavar="HOST:PORT", help="The server that it names."),
    ],
    prompt_color: Annotated[
        Paint | None,
        typer.Option(
            "--prompt-color",
            metavar="|".join(acts.PAINTS),
            help="The colour of its name in the prompts of the shells.",
            show_default=False,
        ),
    ] = None,
    confirm: Annotated[
        Confirm,
        typer.Option(
            "--confirm",
            metavar="|".join(acts.CONFIRMS),
            help="Whether the name has to be typed of what is about to be destroyed.",
        ),
    ] = "ask",
    use: Annotated[bool, typer.Option("--use", help="Use it from now on.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace one of the same name.")
    ] = False,
) -> None:
    """Give a server a name."""
    known = acts.load()
    if name in known.contexts and not overwrite:
        raise InvalidArgument(reason=f"there is a context {name} already; replace it: --overwrite")
    known.contexts[name] = Context(server=_checked(server), color=prompt_color, confirm=confirm)
    if use:
        known.use(name)
    acts.save(known)
    sentence = f"{name} is {server}{', and in use' if use else ''}"
    output_of(context).done(_row(name, known.contexts[name], known.current), sentence)


@app.command(
    cls=DirectoryCommand,
    epilog="""
    mbctl context use local
    mbctl context use -
    mbctl context use --none
    """,
)
def use(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="The context; - for the one before.",
            show_default=False,
            autocompletion=complete_context,
        ),
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Use none from now on.")] = False,
) -> None:
    """Choose the server that commands ask if they are not told another."""
    if none == (name is not None):
        raise typer.BadParameter("say a NAME, or --none.")
    known = acts.load()
    known.use(name)
    acts.save(known)
    output = output_of(context)
    if known.current is None:
        output.done({"context": None, "server": None}, "no context is in use")
        return
    chosen = known.get(known.current)
    output.done(
        {"context": known.current, "server": chosen.server},
        f"{known.current} is in use: {chosen.server}",
    )


@app.command("list", cls=DirectoryCommand, epilog="mbctl context list")
def list_(context: typer.Context) -> None:
    """List the contexts."""
    known = acts.load()
    rows = [_row(name, each, known.current) for name, each in sorted(known.contexts.items())]
    empty = "no contexts; make one with: mbctl context add NAME --server HOST:PORT"
    output_of(context).rows(_COLUMNS, rows, empty=empty)


@app.command(cls=DirectoryCommand, epilog="mbctl context show local")
def show(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="The context; the one in use if not given.",
            show_default=False,
            autocompletion=complete_context,
        ),
    ] = None,
) -> None:
    """Show one context."""
    known = acts.load()
    name = name or known.current
    if name is None:
        raise InvalidArgument(
            reason="no context is in use; choose one with: mbctl context use NAME"
        )
    _show(output_of(context), _row(name, known.get(name), known.current))


@app.command(cls=DirectoryCommand, epilog="mbctl context remove local")
def remove(context: typer.Context, name: Name) -> None:
    """Forget a context. The server knows nothing of it."""
    known = acts.load()
    known.remove(name)
    acts.save(known)
    output_of(context).done({"context": name, "removed": True}, f"{name} is forgotten")


def _show(output: Output, row: Row) -> None:
    titled = [Column(c.name, c.title.capitalize(), c.kind) for c in _COLUMNS]
    output.record(titled, row)


def _checked(server: str) -> str:
    """An address that clients can take."""
    from mbctl.client import address

    address.parse(server)
    return server
