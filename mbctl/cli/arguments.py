"""Arguments and options that several commands take, and how their text is read."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from mbctl.actions import text
from mbctl.errors import InvalidArgument, MbctlError
from mbctl.model import check_name

if TYPE_CHECKING:
    from mbctl.actions.receiving import Start


def complete_topic(incomplete: str) -> list[str]:
    """Names of topics that begin with ``incomplete``, for the shell's completion."""
    from mbctl import Admin
    from mbctl.cli.options import DEFAULT_SERVER

    try:
        with Admin(os.environ.get("MBCTL_SERVER") or DEFAULT_SERVER, timeout=0.5) as admin:
            return [i.topic for i in admin.topics() if i.topic.startswith(incomplete)]
    except MbctlError:
        return []


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
        metavar="new|earliest|OFFSET",
        help="Where a new subscription begins. Default: the first subscription of a topic"
        " at the earliest kept message, later ones at new messages.",
        show_default=False,
    ),
]
"""Where a subscription begins; see ``parse_start``."""


MaxMessages = Annotated[
    int | None,
    typer.Option(
        "--max-messages", metavar="N", min=1, help="Refuse sends above this many unread messages."
    ),
]
"""A topic's bound of messages."""


def parse_start(start: str | None) -> "Start":
    """Read ``--from``."""
    if start is None:
        return None
    if start == "new":
        return "new"
    if start == "earliest":
        return "earliest"
    if not (start.isascii() and start.isdigit()):
        raise typer.BadParameter(
            f"{start!r} is not new, earliest or an offset.", param_hint="'--from'"
        )
    return int(start)


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
