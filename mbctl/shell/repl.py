"""The interactive shell: read a line, carry it out, and never die of an error or Ctrl-C.

Verbs run in the main thread and block it. While a line is typed, Ctrl-C clears it; while
a verb runs, Ctrl-C interrupts the verb.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prompt_toolkit.input import Input
from prompt_toolkit.output import Output as Screen

from mbctl.actions import exit_codes
from mbctl.actions.output import Output
from mbctl.actions.text import counted, escape, unread
from mbctl.errors import ConnectionFatal, MbctlError
from mbctl.shell import ShellOptions
from mbctl.shell import commands as c
from mbctl.shell.commands import Command, Kind
from mbctl.shell.completion import syntax_for
from mbctl.shell.grammar import parse
from mbctl.shell.history import LineHistory, path_for
from mbctl.shell.prompt import make_prompt
from mbctl.shell.session import Session
from mbctl.shell.toolbar import Toolbar
from mbctl.shell.watch import TIMEOUT_S, ServerWatch

if TYPE_CHECKING:
    from mbctl.model import SubscriptionInfo

PATIENCE_S = 1.0
"""How long a verb may take before the shell says what it waits for."""

# Verbs that only look: after Ctrl-C nobody needs to wonder whether they took effect.
_LOOKS = (c.Pull, c.Subscriptions, c.Topics, c.Status, c.Help, c.History, c.Clear)

# Subscriptions that the farewell names; the rest is counted.
_SHOWN_MAX = 8


def run_repl(
    kind: Kind,
    options: ShellOptions,
    output: Output,
    *,
    streams: tuple[Input, Screen] | None = None,
) -> int:
    """Run the shell until its user leaves; return the exit code.

    Raises:
        MbctlError: there is no server, or it refused the registration.
    """
    repl = Repl(kind, options, output, streams)
    repl.greet()
    try:
        repl.run()
    finally:
        repl.leave()
    return exit_codes.OK


class Repl:
    """One interactive shell: its session, its line editor and its eye on the server."""

    def __init__(
        self,
        kind: Kind,
        options: ShellOptions,
        output: Output,
        streams: tuple[Input, Screen] | None = None,
    ) -> None:
        self._kind = kind
        self._options = options
        self._output = output
        history = LineHistory(path_for(kind))
        self._session = Session(kind, options, output, history.lines)
        self._prompt = make_prompt(
            kind,
            history=history,
            names=lambda: self._watch.names,
            toolbar=self._toolbar,
            color=options.color,
            streams=streams,
        )
        self._watch = ServerWatch(options.server, changed=self._prompt.app.invalidate)

    def greet(self) -> None:
        """Say who is registered where."""
        session = self._session
        self._output.note(f"connected to {self._options.server} as {session.label}")
        if session.subscriber and not session.subscriber.is_durable:
            self._output.note(
                "without a name its subscriptions end with this shell;"
                " registerSubscriber NAME keeps them"
            )
        self._output.note("help lists the verbs, Ctrl-D leaves")

    def run(self) -> None:
        """Read and carry out lines until the user leaves."""
        self._watch.start()
        while True:
            # Ctrl-C may come at any moment, also between two lines: all of it is in here.
            try:
                self._look_after_subscriber()
                self._watch.refresh()
                if not self._run_block(self._prompt.prompt()):
                    return
            except KeyboardInterrupt:
                if not self._prompt.default_buffer.text:
                    self._output.note("Ctrl-D leaves the shell")
            except EOFError:
                return

    def leave(self) -> None:
        """Close the session and say what stays behind on the server."""
        self._watch.stop()
        try:
            for sentence in self._farewell():
                self._output.note(sentence)
        except KeyboardInterrupt:
            # Ctrl-C while leaving means to leave now.
            self._session.close(clean=False)
        except MbctlError as error:
            self._output.error(error, hint="what was pulled last may come again")

    def _run_block(self, typed: str) -> bool:
        """Run one line, or those of a pasted block until one fails; False to leave."""
        lines = typed.split("\n")
        for number, line in enumerate(lines, start=1):
            if len(lines) > 1 and line.strip():
                self._output.note(f"{self._kind}> {escape(line)}")
            goes_on, worked = self._run_line(line)
            if not goes_on:
                return False
            left = sum(1 for later in lines[number:] if later.strip())
            if not worked and left:
                self._output.note(f"the other {counted(left, 'line')} of the block did not run")
                break
        return True

    def _run_line(self, line: str) -> tuple[bool, bool]:
        """Run one line; return whether the shell goes on, and whether the line worked."""
        command: Command | None = None
        try:
            command = parse(self._kind, line)
            if command is None:
                return True, True
            with self._patience(command):
                return self._session.execute(command), True
        except KeyboardInterrupt:
            self._output.note(f"\n{_interrupted(command)}")
        except MbctlError as error:
            if isinstance(error, ConnectionFatal):
                self._watch.reachable = False
            self._output.error(error, hint=self._session.hint(error))
        return True, False

    @contextmanager
    def _patience(self, command: Command) -> Iterator[None]:
        """Say what a verb waits for if it takes long."""
        if isinstance(command, c.Follow):
            # It takes as long as its user likes.
            yield
            return
        wait = command.wait or 0.0 if isinstance(command, c.Pull) else 0.0
        sentence = f"waiting for {self._options.server}; Ctrl-C gives up"
        timer = threading.Timer(PATIENCE_S + wait, self._output.note, [sentence])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _look_after_subscriber(self) -> None:
        """Let the watch know whose subscriptions are ours: registering may have changed that."""
        subscriber = self._session.subscriber
        self._watch.subscriber = subscriber.subscriber if subscriber else None

    def _toolbar(self, typed: str) -> Toolbar:
        return Toolbar(
            self._options.server,
            self._watch.reachable,
            self._session.label,
            syntax_for(self._kind, typed),
        )

    def _farewell(self) -> Iterator[str]:
        """Close the session; then tell what stays."""
        subscriber = self._session.subscriber
        if self._watch.reachable is False:
            # Acknowledging would wait for a server that is not there.
            open_count = subscriber.unsettled + subscriber.left_open if subscriber else 0
            self._session.close(clean=False)
            if open_count:
                yield _comes_again(open_count)
            return
        left_open = subscriber.left_open if subscriber else 0
        self._session.close(clean=True)
        if left_open:
            yield _comes_again(left_open)
        if subscriber and subscriber.is_durable:
            yield _stays(subscriber.subscriber, self._subscriptions(subscriber.subscriber))

    def _subscriptions(self, name: str) -> "list[SubscriptionInfo]":
        from mbctl import Admin

        with Admin(self._options.server, timeout=TIMEOUT_S) as admin:
            return [info for info in admin.subscriptions() if info.subscriber == name]


def _comes_again(count: int) -> str:
    return f"{counted(count, 'message')} not acknowledged will come again"


def _stays(name: str, subscriptions: "list[SubscriptionInfo]") -> str:
    if not subscriptions:
        return f"{name} has no subscription"
    shown = [f"{info.topic} ({unread(info)})" for info in subscriptions[:_SHOWN_MAX]]
    more = len(subscriptions) - len(shown)
    return (
        f"subscriptions of {name} stay: {', '.join(shown)}{f' and {more:,} more' if more else ''}"
    )


def _interrupted(command: Command | None) -> str:
    if isinstance(command, c.Follow):
        return "stopped following"
    if command is None or isinstance(command, _LOOKS):
        return "interrupted"
    return "interrupted; whether it took effect is not known"
