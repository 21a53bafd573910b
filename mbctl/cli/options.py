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
            ["--timeout"],
            metavar="SECONDS",
            type=float,
            default=DEFAULT_TIMEOUT_S,
            callback=lambda _context, _param, value: above_zero(value),
            help="How long an answer may take.",
        ),
        *output_params(),
    ]


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


def take_client_options(values: dict[str, Any]) -> ClientOptions:
    """Take the shared options out of the parsed ``values`` of a command."""
    return ClientOptions(**{name: values.pop(name) for name in ClientOptions.__struct_fields__})


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
