"""The interactive shell: read a line, carry it out, and never die of an error or Ctrl-C.

Verbs run in the main thread and block it. While a line is typed, Ctrl-C clears it; while
a verb runs, Ctrl-C interrupts the verb.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, TextIO, cast

from prompt_toolkit.application import create_app_session, get_app_session
from prompt_toolkit.input import Input
from prompt_toolkit.output import DummyOutput
from prompt_toolkit.output import Output as Screen
from prompt_toolkit.patch_stdout import StdoutProxy

from mbctl.actions import exit_codes
from mbctl.actions.output import Output
from mbctl.actions.text import clip, counted, escape, unread
from mbctl.errors import ConnectionFatal, ConnectionLost, MbctlError, Timeout
from mbctl.shell import ShellOptions
from mbctl.shell import commands as c
from mbctl.shell.commands import Command, Kind
from mbctl.shell.completion import syntax_for
from mbctl.shell.confirm import confirmed
from mbctl.shell.follower import Beside
from mbctl.shell.grammar import InvalidCommand, flaw, verb_token
from mbctl.shell.highlight import LINE_LENGTH_MAX
from mbctl.shell.history import LineHistory, path_for
from mbctl.shell.interrupts import for_others, remembered, repeated
from mbctl.shell.prompt import make_prompt, screen, was_given_up, was_left
from mbctl.shell.session import Session
from mbctl.shell.toolbar import Toolbar
from mbctl.shell.verbs import find_verb
from mbctl.shell.watch import TIMEOUT_S, ServerWatch

if TYPE_CHECKING:
    from mbctl.model import SubscriptionInfo

PATIENCE_S = 1.0
"""How long a verb may take before the shell says what it waits for."""

# Verbs that only look: after Ctrl-C nobody needs to wonder whether they took effect.
_LOOKS = (
    *(c.Pull, c.Peek, c.Last, c.Subscriptions, c.Topics, c.Status),
    *(c.Use, c.Help, c.History, c.Clear),
)

# Verbs that need no server.
_LOCAL = (c.Help, c.History, c.Clear, c.Last, c.Exit)

# How often what is written above the prompt is drawn, so that a flood does not flicker.
_DRAW_S = 0.05

# Characters of a pasted line that are shown again where it runs: it stood there whole.
_ECHO_MAX = 500

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
    drawn_on = None if streams else screen()
    # What is written above the prompt must know where the prompt is.
    with create_app_session(output=drawn_on) if drawn_on else nullcontext():
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
        self._proxy, self._above = _above_prompt(options, output)
        beside = Beside(self._above, self._is_busy) if self._proxy else None
        self._session = Session(kind, options, output, lines=history.lines, beside=beside)
        self._prompt = make_prompt(
            kind,
            history=history,
            names=lambda: self._watch.names,
            toolbar=self._toolbar,
            in_use=lambda: self._session.in_use,
            color=options.color,
            context=options.context,
            streams=streams,
        )
        self._watch = ServerWatch(
            options.server, changed=self._prompt.app.invalidate, tell=self._above.note
        )

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
        goes_on = True
        while goes_on:
            # Ctrl-C may come at any moment, also between two lines or while one is answered.
            with suppress(KeyboardInterrupt), repeated():
                goes_on = self._take_line()

    def _take_line(self) -> bool:
        """Read a line and carry it out; False to leave."""
        try:
            self._look_after_subscriber()
            self._watch.refresh()
            if was_left(self._prompt.input):
                return False
            with remembered() as presses:
                typed = self._prompt.prompt(pre_run=presses.clear)
            if not presses and not was_given_up(self._prompt.input):
                return self._run_block(typed)
            self._output.note("given up before it began")
        except KeyboardInterrupt:
            if not self._prompt.default_buffer.text:
                self._output.note("Ctrl-D leaves the shell")
        except EOFError:
            return False
        return True

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
        finally:
            if self._proxy is not None:
                self._proxy.close()

    def _run_block(self, typed: str) -> bool:
        """Run one line, or those of a pasted block until one fails; False to leave."""
        lines = typed.split("\n")
        for number, line in enumerate(lines, start=1):
            if len(lines) > 1 and line.strip():
                self._output.note(f"{self._kind}> {clip(escape(line), _ECHO_MAX)}")
            self._look_after_subscriber()
            goes_on, worked = self._run_line(line)
            if not goes_on:
                return False
            left = sum(1 for later in lines[number:] if later.strip())
            if not worked and left:
                self._output.note(f"{counted(left, 'line')} of the block did not run")
                break
        return True

    def _run_line(self, line: str) -> tuple[bool, bool]:
        """Run one line; return whether the shell goes on, and whether the line worked."""
        command: Command | None = None
        begun = False
        try:
            command = self._session.parse(line)
            if command is None:
                return True, True
            if self._options.must_confirm and not confirmed(command, self._output):
                return True, False
            if not isinstance(command, _LOCAL):
                self._wait_for_server()
            begun = True
            with self._patience(command):
                return self._session.execute(command), True
        except KeyboardInterrupt:
            self._output.note(f"\n{_interrupted(command) if begun else 'given up before it began'}")
        except MbctlError as error:
            if isinstance(error, ConnectionFatal):
                self._watch.refresh()
            self._output.error(error, hint=self._hint(error, command, line))
        return True, False

    def _wait_for_server(self) -> None:
        """Let a line that was typed while the server is away wait until it is back."""
        if self._watch.reachable is False:
            self._output.note(f"waiting for {self._options.server}; Ctrl-C gives up")
            self._watch.wait_until_back()

    def _hint(self, error: MbctlError, command: Command | None, line: str) -> str:
        """What to do about an error, with what this shell knows."""
        word = verb_token(line)
        topic = word.text if word and find_verb(word.text) is None else ""
        if isinstance(error, InvalidCommand) and topic in self._watch.names.topics:
            verb = "send" if self._kind == "publisher" else "peek"
            return f"{topic} is a topic: {verb} {topic} ..."
        if isinstance(error, ConnectionLost | Timeout) and not isinstance(command, _LOOKS):
            return "whether it took effect is not known"
        return self._session.hint(error)

    def _is_busy(self) -> bool:
        """Whether this is no moment to write above the prompt."""
        buffer = self._prompt.default_buffer
        menu = buffer.complete_state
        is_choosing = menu is not None and menu.complete_index is not None
        is_open = is_choosing or "\n" in buffer.text
        return is_open or self._prompt.app.layout.is_searching or self._watch.reachable is False

    @contextmanager
    def _patience(self, command: Command) -> Iterator[None]:
        """Say what a verb waits for if it takes long."""
        if isinstance(command, c.Follow | c.Watch):
            # It takes as long as its user likes.
            yield
            return
        wait = command.wait or 0.0 if isinstance(command, c.Pull) else 0.0
        timer = threading.Timer(PATIENCE_S + wait, self._say_what_is_awaited)
        timer.daemon = True
        with for_others():
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _say_what_is_awaited(self) -> None:
        if not self._output.is_paging:
            self._output.note(f"waiting for {self._options.server}; Ctrl-C gives up")

    def _look_after_subscriber(self) -> None:
        """Let the watch know what the last verb may have changed of our subscriber."""
        subscriber = self._session.subscriber
        if subscriber is not None:
            self._watch.subscriber = subscriber.subscriber
            self._watch.unacknowledged = subscriber.unsettled + subscriber.left_open

    def _toolbar(self, typed: str, cursor: int) -> Toolbar:
        """The bottom line for a line as it is typed, with the cursor at a character of it."""
        advice, full = self._advice(typed, cursor)
        return Toolbar(
            self._options.server,
            self._watch.reachable,
            self._session.label,
            advice,
            full,
            self._facts(),
        )

    def _advice(self, typed: str, cursor: int) -> tuple[str, str]:
        """What is wrong with the line being typed, or else how its verb is written.

        The second is the same at more length, if there is more to say.
        """
        count = sum(1 for line in typed.split("\n") if line.strip())
        if count > 1 and cursor == len(typed):
            # So it is right behind the paste. Within it, each line is as if it were alone.
            lines = counted(count, "line")
            return f"{lines}: Enter runs them one by one, Ctrl-C drops them", ""
        begin = typed.rfind("\n", 0, cursor) + 1
        line = typed[begin:].partition("\n")[0]
        wrong = (
            flaw(self._kind, line, self._session.in_use) if len(line) < LINE_LENGTH_MAX else None
        )
        if wrong:
            return f"! {wrong}", ""
        at = cursor - begin
        full = syntax_for(self._kind, line, at, full=True)
        return syntax_for(self._kind, line, at), full

    def _facts(self) -> str:
        """Lag and rate, as they were last seen."""
        facts = []
        if self._watch.lag is not None:
            facts.append(f"lag {self._watch.lag:,}")
        if self._watch.rate is not None:
            facts.append(f"{self._watch.rate:,.0f} msg/s")
        following = self._session.subscriber and self._session.subscriber.following
        if following:
            facts.append(f"follow on, {following.held:,} held" if following.held else "follow on")
        return "  ".join(facts)

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


def _above_prompt(options: ShellOptions, output: Output) -> tuple[StdoutProxy | None, Output]:
    """Where to write what comes while a line is typed; without a terminal, as everything."""
    can_draw = sys.stdin.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    if not can_draw or isinstance(get_app_session().output, DummyOutput):
        return None, output
    with for_others():
        proxy = StdoutProxy(sleep_between_writes=_DRAW_S, raw=True)
    stdout = cast(TextIO, proxy) if output.terminal else output.stdout
    above = Output(
        options.output,
        color=options.color,
        quiet=options.quiet,
        verbose=options.verbose,
        stdout=stdout,
        stderr=cast(TextIO, proxy),
    )
    return proxy, above


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
    if isinstance(command, c.Watch):
        return "stopped watching"
    if command is None or isinstance(command, _LOOKS):
        return "interrupted"
    return "interrupted; whether it took effect is not known"
