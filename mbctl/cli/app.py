"""All commands in one app, and how a run of it ends."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from mbctl.actions import exit_codes
from mbctl.actions.output import Output
from mbctl.cli.command import Group, abandon_stdout

COMMANDS = (
    "server",
    "publisher",
    "subscriber",
    "send",
    "subscribe",
    "pull",
    "follow",
    "topic",
    "subscription",
    "status",
    "ping",
    "demo",
)
"""In the order in which people meet them. Each is a module of ``mbctl.cli.commands``."""


class LazyCommands(Mapping[str, Any]):
    """The commands by name, each made when it is looked up.

    Importing and building all of them would take a fifth of the time of a one-shot.
    """

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        command = typer.main.get_command(import_module(f"mbctl.cli.commands.{name}").app)
        command.name = name
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Root(Group):
    """The top level."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = LazyCommands()  # type: ignore[assignment]


app = typer.Typer(
    name="mbctl",
    cls=Root,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="A durable publish/subscribe message broker with shells.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from mbctl import __version__

        typer.echo(f"mbctl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


def run(args: Sequence[str]) -> int:
    """Run the command that ``args`` say; return the exit code of the process.

    What goes wrong inside a command is reported by ``command.guard``; here end the
    arguments that are wrong, and what happens while they are read.
    """
    try:
        code = app(args, prog_name="mbctl", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        _report_usage(error, args)
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        abandon_stdout()
        return exit_codes.CLOSED_PIPE
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else exit_codes.UNEXPECTED
    return code or exit_codes.OK


def _report_usage(error: typer.TyperException, args: Sequence[str]) -> None:
    """One line: what is wrong with the arguments, and where to read about them."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "mbctl"
    message = error.format_message().rstrip(".")
    output = Output("json" if _wants_json(args) else "auto")
    output.failure("Usage", message[:1].lower() + message[1:], f"see: {path} --help")


def _wants_json(args: Sequence[str]) -> bool:
    """Whether JSON was asked for; the parser that would know has just failed."""
    joined = " ".join(args)
    forms = ("-o json", "-ojson", "--output json", "--output=json")
    return any(form in joined for form in forms) or os.environ.get("MBCTL_OUTPUT") == "json"
