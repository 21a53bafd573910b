"""The options that all client commands share, and what they amount to."""

from typing import TYPE_CHECKING, Any, cast

import msgspec
import typer
from typer.core import TyperOption

from mbctl.actions.output import COLOURS, FORMS, Colour, Form, Output
from mbctl.model import DEFAULT_HOST, DEFAULT_PORT

if TYPE_CHECKING:
    from mbctl import Admin, Publisher, Subscriber

DEFAULT_SERVER = f"{DEFAULT_HOST}:{DEFAULT_PORT}"
DEFAULT_TIMEOUT_S = 30.0


class OutputOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to show an answer."""

    output: Form
    color: Colour
    quiet: bool
    verbose: bool

    def make_output(self) -> Output:
        """The output that was asked for, on this process's streams."""
        return Output(self.output, color=self.color, quiet=self.quiet, verbose=self.verbose)


class ClientOptions(OutputOptions, frozen=True, kw_only=True):
    """The same, which server to ask, and how long to wait for it."""

    server: str
    timeout: float
    context: "NamedContext | None" = None


class NamedContext(msgspec.Struct, frozen=True):
    """The context that said which server is meant."""

    name: str
    color: str | None
    must_confirm: bool


class Client(msgspec.Struct, frozen=True):
    """What a client command works with: its options, its output, and clients on demand."""

    options: ClientOptions
    output: Output

    def publisher(self) -> "Publisher":
        """A publisher of the server that was asked for."""
        from mbctl import Publisher

        return Publisher(self.options.server, timeout=self.options.timeout)

    def subscriber(self, name: str | None) -> "Subscriber":
        """A subscriber of the server that was asked for; ephemeral without a name."""
        from mbctl import Subscriber

        return Subscriber(self.options.server, name, timeout=self.options.timeout)

    def admin(self) -> "Admin":
        """A client of the server that was asked for, to look and to tidy."""
        from mbctl import Admin

        return Admin(self.options.server, timeout=self.options.timeout)


def output_of(context: typer.Context) -> Output:
    """The output that ``DirectoryCommand`` has made for this call."""
    return cast(Output, context.obj)


def client_of(context: typer.Context) -> Client:
    """The client that ``ClientCommand`` has made for this call."""
    return cast(Client, context.obj)


def above_zero(value: float | None) -> float | None:
    """Check a number of seconds that must be above 0; for an option's callback."""
    # Written so that NaN is refused too.
    if value is not None and not value > 0:
        raise typer.BadParameter(f"{value:g} is not above 0.")
    return value


def not_negative(value: float | None) -> float | None:
    """Check a number of seconds that may be 0; for an option's callback."""
    if value is not None and not value >= 0:
        raise typer.BadParameter(f"{value:g} is below 0.")
    return value


class SharedOption(TyperOption):
    """An option that many commands have."""


def client_params() -> list[SharedOption]:
    """The options of a command that asks a server, new ones for each."""
    return [
        _option(
            ["--server", "-s"],
            metavar="HOST:PORT",
            default=DEFAULT_SERVER,
            help="The server, as HOST:PORT or mb://HOST:PORT.",
        ),
        _option(
            ["--context"],
            metavar="NAME",
            default=None,
            help="The server by the name it has with mbctl context; --server goes before it.",
            autocompletion=lambda _context, _args, word: _complete_context(word),
        ),
        _option(
            ["--timeout"],
            metavar="SECONDS",
            type=float,
            default=DEFAULT_TIMEOUT_S,
            callback=lambda _context, _param, value: above_zero(value),
            help="How long an answer may take.",
        ),
        *output_params(),
    ]


def _complete_context(incomplete: str) -> list[str]:
    from mbctl.cli.arguments import complete_context

    return complete_context(incomplete)


def output_params() -> list[SharedOption]:
    """The options of a command that shows something, new ones for each."""
    return [
        _option(
            ["--output", "-o"],
            metavar="|".join(FORMS),
            default="auto",
            callback=lambda _context, _param, value: _one_of(FORMS, value),
            help="The form of the answer; auto is a table on a terminal, else tab-separated.",
        ),
        _option(
            ["--color"],
            metavar="|".join(COLOURS),
            default="auto",
            callback=lambda _context, _param, value: _one_of(COLOURS, value),
            help="Whether to use colours.",
        ),
        _flag(["--quiet", "-q"], help="Show data and errors only."),
        _flag(["--verbose", "-v"], help="Show more, and long payloads whole."),
    ]


def take_client_options(values: dict[str, Any], context: typer.Context) -> ClientOptions:
    """Take the shared options out of the parsed ``values`` of a command.

    Raises:
        InvalidArgument: there is no context of the name that was given.
    """
    taken = {name: values.pop(name) for name in ClientOptions.__struct_fields__}
    taken["server"], taken["context"] = find_server(taken["server"], taken["context"], context)
    return ClientOptions(**taken)


def find_server(
    server: str, name: str | None, context: typer.Context
) -> tuple[str, NamedContext | None]:
    """The server that is meant: what the command line says, the environment, then the context."""
    said = {each: _source(context, each) for each in ("server", "context")}
    if said["server"] == "COMMANDLINE":
        return server, None
    if said["server"] == "ENVIRONMENT" and said["context"] != "COMMANDLINE":
        return server, None
    from mbctl.actions import contexts

    # One that nobody has ever made costs no more than to look for the file.
    if name is None and not contexts.path().exists():
        return server, None
    known = contexts.load()
    name = name or known.current
    if name is None:
        return server, None
    found = known.get(name)
    return found.server, NamedContext(name, found.color, found.confirm == "always")


def server_named(name: str) -> str:
    """The server of the context of that name, or the one at that address.

    Raises:
        InvalidArgument: it is neither.
    """
    from mbctl.actions import contexts
    from mbctl.client import address

    known = contexts.load().contexts.get(name) if contexts.path().exists() else None
    return str(address.parse(name)) if known is None else known.server


def _source(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return source.name if source is not None else "DEFAULT"


def take_output_options(values: dict[str, Any]) -> OutputOptions:
    """The same for a command that asks no server."""
    return OutputOptions(**{name: values.pop(name) for name in OutputOptions.__struct_fields__})


def _option(names: list[str], **settings: Any) -> SharedOption:
    envvar = f"MBCTL_{names[0].lstrip('-').upper()}"
    settings.setdefault("type", str)
    return SharedOption(
        param_decls=names, envvar=envvar, show_envvar=True, show_default=True, **settings
    )


def _flag(names: list[str], *, help: str) -> SharedOption:
    envvar = f"MBCTL_{names[0].lstrip('-').upper()}"
    return SharedOption(
        param_decls=names, is_flag=True, default=False, envvar=envvar, show_envvar=True, help=help
    )


def _one_of(allowed: tuple[str, ...], value: str) -> str:
    if value not in allowed:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(allowed)}.")
    return value
