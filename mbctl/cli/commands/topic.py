"""``mbctl topic``: create, list, show, why, read, move, purge, delete."""

import sys
from typing import Annotated, Any, Literal

import typer

from mbctl.actions import places, text
from mbctl.actions.topics import READ_COUNT, SETTINGS
from mbctl.cli.arguments import (
    FormatOption,
    FullOption,
    Topic,
    Yes,
    make_look,
    parse_age,
    parse_place,
    parse_size,
)
from mbctl.cli.command import ClientCommand, Group, make_app
from mbctl.cli.options import Client, above_zero, client_of, server_named
from mbctl.errors import InvalidArgument
from mbctl.model import TopicSettings

app = make_app(cls=Group, help="Create, look at, read, move and delete topics.")


def _bound(option: str, help: str) -> Any:
    """An option that takes a size."""
    return typer.Option(option, metavar="SIZE", parser=parse_size, help=help, show_default=False)


def _age(option: str, help: str) -> Any:
    """An option that takes an age."""
    return typer.Option(option, metavar="AGE", parser=parse_age, help=help, show_default=False)


def _check_settings(names: list[str] | None) -> list[str] | None:
    """Check names of settings; for an option's callback."""
    for name in names or ():
        if name not in SETTINGS:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(SETTINGS)}.")
    return names


@app.command(
    cls=ClientCommand,
    epilog="""
    mbctl topic create orders
    mbctl topic create bounded --max-messages 100000 --max-bytes 64M
    mbctl topic create recent --max-bytes 1G --when-full drop-oldest --max-age 7d
    mbctl topic create replayed --retain-age 2h --retain-bytes 256M
    """,
)
def create(
    context: typer.Context,
    topic: Topic,
    max_messages: Annotated[
        int | None,
        typer.Option(
            "--max-messages",
            metavar="N",
            min=1,
            help="Keep at most this many messages.",
            show_default=False,
        ),
    ] = None,
    max_bytes: Annotated[
        int | None, _bound("--max-bytes", "Keep messages of at most this size, such as 64M.")
    ] = None,
    max_age: Annotated[
        float | None, _age("--max-age", "Drop messages older than this, read or not, such as 7d.")
    ] = None,
    retain_age: Annotated[
        float | None,
        _age("--retain-age", "Keep messages that all have read until they are this old."),
    ] = None,
    retain_bytes: Annotated[
        int | None,
        _bound("--retain-bytes", "Keep messages that all have read up to this size."),
    ] = None,
    when_full: Annotated[
        Literal["refuse", "drop-oldest"],
        typer.Option(
            "--when-full",
            metavar="refuse|drop-oldest",
            help="What a send does that the bounds leave no room for.",
        ),
    ] = "refuse",
) -> None:
    """Create a topic.

    It is no error if the topic is there with the same settings. Nothing that somebody has not
    read is dropped unless --max-age or --when-full says so.
    """
    from mbctl.actions import topics

    client = client_of(context)
    settings = TopicSettings(
        max_messages=max_messages,
        max_bytes=max_bytes,
        max_age=max_age,
        retain_age=retain_age,
        retain_bytes=retain_bytes,
        when_full="refuse" if when_full == "refuse" else "drop_oldest",
    )
    with client.publisher() as publisher:
        topics.create_topic(publisher, client.output, topic, settings)


@app.command("list", cls=ClientCommand, epilog="mbctl topic list")
def list_(context: typer.Context) -> None:
    """List all topics; with --verbose, their settings too."""
    from mbctl.actions import topics

    client = client_of(context)
    with client.admin() as admin:
        topics.list_topics(admin, client.output)


@app.command(cls=ClientCommand, epilog="mbctl topic show orders")
def show(context: typer.Context, topic: Topic) -> None:
    """Show one topic with its settings."""
    from mbctl.actions import topics

    client = client_of(context)
    with client.admin() as admin:
        topics.show_topic(admin, client.output, topic)


@app.command(cls=ClientCommand, epilog="mbctl topic why orders")
def why(context: typer.Context, topic: Topic) -> None:
    """Say which subscription keeps messages of a topic alive.

    A message is kept until every durable subscription has acknowledged it.
    """
    from mbctl.actions import topics

    client = client_of(context)
    with client.admin() as admin:
        topics.why_topic(admin, client.output, topic)


@app.command(
    cls=ClientCommand,
    epilog="""
    mbctl topic read orders
    mbctl topic read orders --full
    mbctl topic read orders --from 2h -n 100000 -o raw > orders.txt
    """,
)
def read(
    context: typer.Context,
    topic: Topic,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar=places.PLACES,
            help="Where to begin; TIME is 2026-01-02T03:04:05Z, or 2h for two hours ago.",
        ),
    ] = "earliest",
    count: Annotated[
        int,
        typer.Option("-n", "--count", metavar="MAX", min=1, help="Stop after this many messages."),
    ] = READ_COUNT,
    template: FormatOption = None,
    full: FullOption = False,
) -> None:
    """Print messages of a topic, read or not, without a subscription.

    Goes on until MAX messages or the end of the topic. Nothing is acknowledged or counted.
    """
    from mbctl.actions import topics

    begin = parse_place(start, "--from")
    look = make_look(template, full)
    client = client_of(context)
    with client.admin() as admin:
        topics.read_topic(admin, client.output, topic, start=begin, count=count, look=look)


@app.command(
    cls=ClientCommand,
    epilog="""
    mbctl topic move orders --to cluster
    mbctl topic move orders --to cluster --without max-messages --idle 1
    """,
)
def move(
    context: typer.Context,
    topic: Topic,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="SERVER",
            help="The server to move it to: HOST:PORT, or the name of a context.",
            show_default=False,
        ),
    ],
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without",
            metavar="|".join(SETTINGS),
            callback=_check_settings,
            help="Leave this setting of the topic out at the other server; may be repeated.",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes after that.")
    ] = False,
    idle: Annotated[
        float | None,
        typer.Option(
            "--idle",
            metavar="SECONDS",
            callback=above_zero,
            help="Follow until nothing has come for so long.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Move a topic to another server.

    Copies its settings and messages in their order, each once, even if it is killed: run again
    it goes on where it was. Messages that are moved and that nobody has to read here any more
    are reclaimed; the topic itself stays until you delete it.
    """
    from mbctl.actions import moving
    from mbctl.client.moving import PartAdmin

    client = client_of(context)
    timeout = client.options.timeout
    following = moving.Following(is_endless=follow, idle_s=idle)
    with (
        PartAdmin(client.options.server, timeout=timeout) as source,
        PartAdmin(server_named(to), timeout=timeout) as target,
    ):
        moving.move_topic(
            source, target, client.output, topic, without=without or (), following=following
        )


@app.command(cls=ClientCommand, epilog="mbctl topic purge orders --yes")
def purge(context: typer.Context, topic: Topic, yes: Yes = False) -> int:
    """Give up all messages of a topic, read or not.

    The topic stays, and so do its subscriptions. Asks first, on a terminal.
    """
    from mbctl.actions import topics

    client = client_of(context)
    with client.admin() as admin:
        if must_ask(client, yes):
            info = admin.topic(topic)
            kept = text.amount(info.messages, info.batches)
            if not confirm(client, f"give up {kept} of topic {topic}?", topic):
                return 1
        topics.purge_topic(admin, client.output, topic)
    return 0


@app.command(cls=ClientCommand, epilog="mbctl topic delete orders --yes")
def delete(context: typer.Context, topic: Topic, yes: Yes = False) -> int:
    """Delete a topic with its messages and subscriptions.

    Asks first, on a terminal.
    """
    from mbctl.actions import topics

    client = client_of(context)
    with client.admin() as admin:
        if must_ask(client, yes):
            info = admin.topic(topic)
            what = (
                f"delete topic {topic} with {text.amount(info.messages, info.batches)}"
                f" and {text.counted(info.subscriptions, 'subscription')}?"
            )
            if not confirm(client, what, topic):
                return 1
        topics.delete_topic(admin, client.output, topic)
    return 0


def must_ask(client: Client, yes: bool) -> bool:
    """Whether there is somebody to ask, who has not said yes already.

    A context may ask in any case.

    Raises:
        InvalidArgument: it does, but there is nobody to ask and no --yes.
    """
    context = client.options.context
    can_ask = bool(sys.stdin and sys.stdin.isatty() and client.output.terminal)
    if context is None or not context.must_confirm:
        return not yes and can_ask
    if not can_ask and not yes:
        raise InvalidArgument(
            reason=f"context {context.name} asks before anything is destroyed, and there is"
            " nobody to ask: say --yes"
        )
    return can_ask


def confirm(client: Client, question: str, target: str) -> bool:
    """Ask on the terminal; anything but yes leaves everything as it is and says so.

    Where the context asks in any case, the answer is the name of the ``target``.
    """
    context = client.options.context
    if context is not None and context.must_confirm:
        asked = f"{context.name}: {question} type {target} to go on"
        if typer.prompt(asked, err=True, default="", show_default=False) == target:
            return True
    elif typer.confirm(question, err=True):
        return True
    client.output.note("nothing was changed")
    return False
