"""All commands in one app, and how a run of it ends."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from mbctl.actions import exit_codes
from mbctl.actions.output import Output
from mbctl.cli.command import Group, abandon, guard, in_words

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
    "top",
    "doctor",
    "backup",
    "restore",
    "verify",
    "repair",
    "cluster",
    "bench",
    "context",
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
    """Run the command that ``args`` say; return the exit code of the process."""
    _open_missing_streams()
    try:
        return guard(lambda: app(args, prog_name="mbctl", standalone_mode=False), _output_for(args))
    except typer.TyperException as error:
        _report_usage(error, args)
        return error.exit_code
    except SystemExit as end:
        # The parser ends so when its help cannot be written, and after a completion.
        if isinstance(end.__context__, BrokenPipeError):
            abandon(sys.stdout)
            return exit_codes.CLOSED_PIPE
        return end.code if isinstance(end.code, int) else exit_codes.UNEXPECTED


def _open_missing_streams() -> None:
    """Give a process that was started without stdout or stderr something in their place.

    Writing to the first fails, so that what could not be shown does not count as shown.
    """
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it is open as long as we are


def _report_usage(error: typer.TyperException, args: Sequence[str]) -> None:
    """One line: what is wrong with the arguments, and where to read about them."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "mbctl"
    message = in_words(error.format_message().rstrip(".")).replace(
        ". Did you mean", "; did you mean"
    )
    hint = f"see: {path} --help"
    _output_for(args).failure("Usage", message[:1].lower() + message[1:], hint)


def _output_for(args: Sequence[str]) -> Output:
    """An output that reports as JSON if that was asked for; the parser that knows has failed."""
    joined = " ".join(args)
    forms = ("-o json", "-ojson", "--output json", "--output=json")
    wants_json = any(form in joined for form in forms) or os.environ.get("MBCTL_OUTPUT") == "json"
    return Output("json" if wants_json else "auto")
