"""The kinds of commands: how each shows its examples, its errors and its end."""

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TextIO, cast

import typer
from typer.core import TyperCommand, TyperGroup

from mbctl.actions import exit_codes
from mbctl.actions.output import Output
from mbctl.cli.options import (
    Client,
    SharedOption,
    client_params,
    output_params,
    take_client_options,
    take_output_options,
)
from mbctl.errors import MbctlError, NotSubscribed, SubscriptionNotFound, TopicNotFound

# The parser has formulas for what it knows of a number: [default: 1.0; 0<=x<=65535].
_WORDS = (
    (re.compile(r"(?<=default: )(\d+)\.0(?=[\];])"), r"\1"),
    (re.compile(r"\b(\d+)<=x<=(\d+)(?:\.0)?(?=[\];]|$)"), r"\1 to \2"),
    (re.compile(r"\bx>=(\d+)(?:\.0)?(?=[\];]|$)"), r"at least \1"),
    (re.compile(r"\bx<=(\d+)(?:\.0)?(?=[\];]|$)"), r"at most \1"),
    (re.compile(r"is not in the range at"), r"is not at"),
)


def make_app(**settings: Any) -> typer.Typer:
    """An empty app in the way of this command line.

    Plain help costs a third of the time that rich takes to draw it, and is the same
    everywhere. Errors are reported by ``guard``, never as a drawn traceback.
    """
    return typer.Typer(
        add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, **settings
    )


class Group(TyperGroup):
    """Commands under one name, in the order in which they are written."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, in order."""
        return list(self.commands)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; without any, show the help and count it as wrong usage."""
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            ctx.exit(exit_codes.USAGE)
        return list(super().parse_args(ctx, args))


class Command(TyperCommand):
    """A command whose epilog is examples, one a line, shown as they are."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The operands as manuals write them: TOPIC, not {TOPIC}."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write what is this command's own before what it shares."""
        sections: dict[str, list[tuple[str, str]]] = {
            "Arguments": [],
            "Options": [],
            "Common options": [],
        }
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                name, about = record
                sections[_section(param)].append((name, in_words(about)))
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, unwrapped so that they can be copied."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.strip().splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line.strip()}\n")

    def invoke(self, ctx: Any) -> int:
        """Run the command; return its exit code, having reported what went wrong."""
        return guard(lambda: super(Command, self).invoke(ctx), Output())


class ClientCommand(Command):
    """A command that asks a server; it takes the options that all of them share."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params.extend(client_params())

    def invoke(self, ctx: Any) -> int:
        """Run the command with a ``Client``; return its exit code."""
        shown = Output(ctx.params["output"], color=ctx.params["color"])
        made: list[Client] = []

        def act() -> int | None:
            options = take_client_options(ctx.params, ctx)
            client = Client(options, options.make_output())
            made.append(client)
            ctx.obj = client
            return cast("int | None", super(Command, self).invoke(ctx))

        return guard(act, shown, names=lambda error: _names_for(error, made[0]))


class DirectoryCommand(Command):
    """A command that looks after the files of a server that does not run."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params.extend(output_params())

    def invoke(self, ctx: Any) -> int:
        """Run the command with an ``Output``; return its exit code."""
        output = take_output_options(ctx.params).make_output()
        ctx.obj = output
        return guard(lambda: super(Command, self).invoke(ctx), output)


def _section(param: Any) -> str:
    if isinstance(param, SharedOption):
        return "Common options"
    return "Arguments" if param.param_type_name == "argument" else "Options"


def in_words(about: str) -> str:
    """What the parser says of an option, with ranges and defaults as people write them."""
    for formula, words in _WORDS:
        about = formula.sub(words, about)
    return about


def guard(
    act: Callable[[], int | None],
    output: Output,
    *,
    names: Callable[[MbctlError], Iterable[str]] = lambda _error: (),
) -> int:
    """Run ``act``; return its exit code, or report its error and return that one's.

    This is the command line's one place where every error ends. ``names`` gives the
    names that a wrong one is compared with.
    """
    try:
        code = act()
        output.flush()
        return code or exit_codes.OK
    except (KeyboardInterrupt, typer.Abort):
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        abandon(output.stdout)
        return exit_codes.CLOSED_PIPE
    except MbctlError as error:
        _maybe_trace()
        output.error(error, hint=_hint(error, names))
        return exit_codes.of(error)
    except typer.Exit as end:
        return end.exit_code
    except typer.TyperException:
        # A usage error that the parser could not see; it is reported like the others.
        raise
    except OSError as error:
        _maybe_trace()
        output.failure("OSError", _describe(error))
        # If it was stdout that failed, leaving must not try and fail again.
        abandon(output.stdout)
        return exit_codes.of(error)
    except Exception as error:
        _maybe_trace()
        output.failure(
            "Unexpected",
            f"unexpected {type(error).__name__}: {error}",
            "this is a bug in mbctl; MBCTL_DEBUG=1 shows where",
        )
        return exit_codes.UNEXPECTED


def abandon(stream: TextIO) -> None:
    """Let what is still buffered for a ``stream`` go nowhere if it cannot be written."""
    with suppress(OSError, ValueError):
        stream.flush()
        return
    # A stream that is no file has nothing that could complain.
    with suppress(OSError, ValueError):
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


def _hint(error: MbctlError, names: Callable[[MbctlError], Iterable[str]]) -> str:
    if not isinstance(error, TopicNotFound | SubscriptionNotFound | NotSubscribed):
        return error.hint
    from mbctl.actions.suggest import hint_for

    try:
        return hint_for(error, names(error))
    except MbctlError:
        # The advice is a courtesy; failing to find a better one is no news.
        return error.hint


def _names_for(error: MbctlError, client: Client) -> list[str]:
    """The topics there are, or the subscribers of the topic that the error is about."""
    with client.admin() as admin:
        if isinstance(error, SubscriptionNotFound | NotSubscribed):
            return [info.subscriber for info in admin.subscriptions(error.topic)]
        return [info.topic for info in admin.topics()]


def _describe(error: OSError) -> str:
    what = (error.strerror or str(error)).lower()
    return f"{error.filename}: {what}" if error.filename else what


def _maybe_trace() -> None:
    if os.environ.get("MBCTL_DEBUG"):
        import traceback

        traceback.print_exc()
