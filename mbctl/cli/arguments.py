"""Arguments and options that several commands take, and how their text is read."""

from typing import TYPE_CHECKING, Annotated

import typer

from mbctl.actions import places, text
from mbctl.errors import InvalidArgument, MbctlError
from mbctl.model import Start, check_name

if TYPE_CHECKING:
    from mbctl import Admin
    from mbctl.actions.messages import Look


# A completion that takes longer is a terminal that hangs.
_COMPLETE_TIMEOUT_S = 0.3


def complete_topic(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Topics that begin with ``incomplete``, for the completion of the user's shell."""
    try:
        with _admin_of(context) as admin:
            return [
                (info.topic, text.amount(info.messages, info.batches))
                for info in admin.topics()
                if info.topic.startswith(incomplete) and text.is_name(info.topic)
            ]
    except (MbctlError, OSError):
        return []


def complete_subscriber(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Subscribers that begin with ``incomplete``: of the topic given, or of all."""
    topic = context.params.get("topic")
    unread: dict[str, int] = {}
    unit = ""
    try:
        with _admin_of(context) as admin:
            for info in admin.subscriptions(topic if isinstance(topic, str) else None):
                if info.subscriber.startswith(incomplete) and text.is_name(info.subscriber):
                    behind = info.unread if info.unread is not None else info.unread_batches
                    unread[info.subscriber] = unread.get(info.subscriber, 0) + (behind or 0)
                    unit = " batches" if info.unread is None else ""
    except (MbctlError, OSError):
        return []
    return [(name, f"{count:,}{unit} unread") for name, count in unread.items()]


def complete_context(incomplete: str) -> list[str]:
    """Contexts that begin with ``incomplete``."""
    from mbctl.actions import contexts

    try:
        return [name for name in contexts.load().contexts if name.startswith(incomplete)]
    except (MbctlError, OSError):
        return []


def _admin_of(context: typer.Context) -> "Admin":
    """A client of the server that the half-typed command line means."""
    from mbctl import Admin
    from mbctl.cli.options import DEFAULT_SERVER, find_server

    said = context.params.get("server") or DEFAULT_SERVER
    server, _ = find_server(said, context.params.get("context"), context)
    return Admin(server, timeout=_COMPLETE_TIMEOUT_S)


def check_names(names: list[str]) -> list[str]:
    """Check several names; for an argument's callback."""
    return [check_name(name) for name in names]


def check_maybe_name(name: str | None) -> str | None:
    """Check a name that may be left out; for an argument's callback."""
    return name if name is None else check_name(name)


Topic = Annotated[
    str,
    typer.Argument(
        metavar="TOPIC",
        help="The topic.",
        show_default=False,
        callback=check_name,
        autocompletion=complete_topic,
    ),
]
"""The topic that a command is about."""

FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar=places.PLACES,
        help="Where a new subscription begins; TIME is 2026-01-02T03:04:05Z, or 2h for two hours"
        " ago. Default: the first subscription of a topic at the earliest kept message, later"
        " ones at new messages.",
        show_default=False,
    ),
]
"""Where a subscription begins; see ``parse_start``."""

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
"""Whether to go on without a question."""


FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-F",
        metavar="FORMAT",
        help="Write this of each message, such as '%T %k %p\\n': %t topic, %o offset, %k key,"
        " %p payload, %h headers, %h{NAME} one, %l bytes, %T time, %n number, %d deliveries.",
        show_default=False,
    ),
]
"""What is written of a message; see ``make_look``."""

FullOption = Annotated[
    bool,
    typer.Option("--full", help="Show messages whole: headers, JSON folded, binary as hex."),
]
"""Whether a message is shown on lines of its own; see ``make_look``."""


def make_look(template: str | None, full: bool) -> "Look":
    """Read ``--format`` and ``--full``."""
    from mbctl.actions.formats import parse_format
    from mbctl.actions.messages import Look

    if template is not None and full:
        raise typer.BadParameter("--format and --full do not go together.")
    try:
        return Look(None if template is None else parse_format(template), full)
    except InvalidArgument as error:
        raise typer.BadParameter(f"{error}.", param_hint="'--format'") from None


def parse_start(start: str | None) -> Start | None:
    """Read ``--from``."""
    return None if start is None else parse_place(start, "--from")


def parse_place(place: str, option: str) -> Start:
    """Read a place in a topic, given with ``option``."""
    try:
        return places.parse_place(place)
    except InvalidArgument as error:
        raise typer.BadParameter(f"{error}.", param_hint=f"'{option}'") from None


def parse_age(value: str) -> float:
    """Read an age such as 7d; for an option's parser."""
    try:
        return places.parse_age(value)
    except InvalidArgument as error:
        raise typer.BadParameter(f"{error}.") from None


def parse_size(value: str) -> int:
    """Read a size such as 64M; for an option's parser."""
    try:
        return text.parse_size(value)
    except InvalidArgument as error:
        raise typer.BadParameter(f"{error}.") from None


def parse_headers(pairs: list[str]) -> dict[str, str] | None:
    """Read ``-H name=value`` options."""
    headers: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{pair!r} is not name=value.", param_hint="'-H'")
        if name in headers:
            raise typer.BadParameter(f"header {name!r} is given twice.", param_hint="'-H'")
        headers[name] = value
    try:
        "".join(pairs).encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("headers must be UTF-8 text.", param_hint="'-H'") from None
    return headers or None
