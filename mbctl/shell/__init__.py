"""The two interactive shells, and the same verbs from a script.

At a terminal `repl` reads lines with prompt_toolkit; a script goes through `batch`, which
never imports it. Both hand each line to `grammar` and what it means to `session`.
"""

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from mbctl.actions.output import Colour, Form
    from mbctl.shell.commands import Kind


class ShellOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a shell was started. With ``commands``, ``file`` or a piped stdin it is a script."""

    server: str = "127.0.0.1:5555"
    timeout: float = 30.0
    name: str | None = None
    commands: list[str] = []
    file: str | None = None
    """A script; ``-`` is stdin."""
    keep_going: bool = False
    output: "Form" = "auto"
    color: "Colour" = "auto"
    quiet: bool = False
    verbose: bool = False
    context: tuple[str, str] = ("", "")
    """The name of the context and its colour, which the prompt shows."""
    must_confirm: bool = False
    """Whether what destroys something is done only when it is asked for twice."""
    yes: bool = False
    """The second time, for a script."""


def run(kind: "Kind", options: ShellOptions) -> int:
    """Run a shell, or a script in its place; return the exit code.

    Raises:
        MbctlError: there is no server, or it refused the registration.
        OSError: the script cannot be read.
        KeyboardInterrupt: Ctrl-C ended a script.
        BrokenPipeError: nobody reads the script's results any more.
    """
    import sys

    from mbctl.actions.output import Output

    output = Output(
        options.output, color=options.color, quiet=options.quiet, verbose=options.verbose
    )
    if options.commands or options.file is not None or not (sys.stdin and sys.stdin.isatty()):
        from mbctl.shell.batch import run_batch

        return run_batch(kind, options, output)
    from mbctl.shell.repl import run_repl

    return run_repl(kind, options, output)
