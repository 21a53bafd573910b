"""What a shell holds while it runs, and what each command does with it."""

import time
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Protocol

import msgspec

from mbctl.actions import status, text, topics
from mbctl.actions.messages import Look, full_lines
from mbctl.actions.output import Column, Output
from mbctl.errors import InvalidArgument, MbctlError, NotSubscribed, TopicNotFound
from mbctl.shell import ShellOptions
from mbctl.shell import commands as c
from mbctl.shell.commands import Command, Kind
from mbctl.shell.confirm import target_of
from mbctl.shell.follower import Beside
from mbctl.shell.grammar import nearest, parse
from mbctl.shell.help import OVERVIEW_COLUMNS, explain, overview
from mbctl.shell.interrupts import sleep
from mbctl.shell.publisher import PublisherSide
from mbctl.shell.subscriber import SubscriberSide
from mbctl.shell.verbs import find_verb

if TYPE_CHECKING:
    from mbctl import Admin
    from mbctl.actions.messages import Message

_HISTORY_SHOWN_MAX = 500
_HISTORY_COLUMNS = (Column("number", "NUMBER"), Column("line", "LINE"))

_CLEAR_SCREEN = "\x1b[H\x1b[2J"

# Messages that `last` can show again: they may be 1 MiB each.
_RECENT_MAX = 20
_LAST_LINES_MAX = 1_000

# What goes on by itself, ends the shell or has nothing to show cannot be watched.
_UNWATCHED = (c.Follow, c.Watch, c.Exit, c.Clear, c.Register, c.Use)


class Side(Protocol):
    """What publisher and subscriber have in common for a session."""

    @property
    def label(self) -> str:
        """Who is registered, in a word or two."""

    def register(self, name: str | None) -> None:
        """Register again under another name, or none."""

    def execute(self, command: Command) -> None:
        """Carry out a verb that only this side has."""

    def close(self, *, clean: bool) -> None:
        """Leave; ``clean`` says that all went well, so what was shown counts as read."""


class Session:
    """A registered publisher or subscriber, and the verbs of its shell.

    ``lines`` is what has been typed; a script has none.
    """

    def __init__(
        self,
        kind: Kind,
        options: ShellOptions,
        output: Output,
        *,
        lines: Sequence[str] = (),
        beside: Beside | None = None,
    ) -> None:
        self._kind = kind
        self._options = options
        self._output = output
        self._lines = lines
        self._opened_admin: Admin | None = None
        self.in_use: str | None = None
        """The topic that a dot stands for."""
        self.refuses_to_destroy = False
        """Whether verbs that destroy something are refused: nobody can be asked."""
        self._recent: deque[Message] = deque(maxlen=_RECENT_MAX)
        for each in (output, beside.output if beside else output):
            each.recent = self._recent
        self._side: Side
        if kind == "publisher":
            self._side = PublisherSide(options, output)
        else:
            self._side = SubscriberSide(options, output, self._admin, beside)

    @property
    def label(self) -> str:
        """Who is registered, in a word or two."""
        return self._side.label

    @property
    def subscriber(self) -> SubscriberSide | None:
        """The registered subscriber, in its shell."""
        return self._side if isinstance(self._side, SubscriberSide) else None

    def parse(self, line: str) -> Command | None:
        """The command that ``line`` is, with the topic in use where none is given.

        Raises:
            InvalidCommand: it is none.
        """
        command = parse(self._kind, line, self.in_use)
        if isinstance(command, c.Pull) and command.topic is None:
            return msgspec.structs.replace(command, topic=self.in_use)
        if isinstance(command, c.Follow) and command.topics in ((), ("on",)) and self.in_use:
            return msgspec.structs.replace(command, topics=(*command.topics, self.in_use))
        return command

    def execute(self, command: Command) -> bool:
        """Carry out ``command`` and show what it did; False if it ends the shell.

        Raises:
            MbctlError: it failed; the session goes on.
        """
        if self.refuses_to_destroy and target_of(command) is not None:
            raise InvalidArgument(
                reason=f"context {self._options.context[0]} asks before anything is destroyed,"
                " and there is nobody to ask: say --yes"
            )
        match command:
            case c.Exit():
                return False
            case c.Register(name):
                self._side.register(name)
            case c.PurgeTopic(topic):
                topics.purge_topic(self._admin(), self._output, topic)
            case c.Peek(topic, start, max_messages, template, full):
                count, look = max_messages or topics.READ_COUNT, Look(template, full)
                topics.read_topic(
                    self._admin(), self._output, topic, start=start, count=count, look=look
                )
            case c.Use(topic):
                self._use(topic)
            case c.Last(count):
                self._show_last(count)
            case c.Watch(interval, line):
                self._watch(interval, line)
            case c.Topics():
                topics.list_topics(self._admin(), self._output)
            case c.Status():
                status.status(self._admin(), self._output)
            case c.Help(verb):
                self._help(verb)
            case c.History():
                self._history()
            case c.Clear():
                if self._output.terminal:
                    self._output.write_text(_CLEAR_SCREEN)
            case _:
                self._side.execute(command)
        return True

    def hint(self, error: MbctlError) -> str:
        """What to do about ``error`` in this shell."""
        if isinstance(error, NotSubscribed):
            return f"subscribe to it with: subscribe {error.topic}"
        if not isinstance(error, TopicNotFound):
            return error.hint
        meant = nearest(error.topic, self._topic_names())
        create = error.hint if self.subscriber else f"create it with: createTopic {error.topic}"
        return f"did you mean {meant}? or {create}" if meant else create

    def close(self, *, clean: bool) -> None:
        """Leave; ``clean`` says that all went well, so what was shown counts as read."""
        # What fails while something else has failed already is no news.
        with nullcontext() if clean else suppress(MbctlError):
            self._side.close(clean=clean)
        if self._opened_admin is not None:
            self._opened_admin.close()

    def _admin(self) -> "Admin":
        if self._opened_admin is None:
            from mbctl import Admin

            self._opened_admin = Admin(self._options.server, timeout=self._options.timeout)
        return self._opened_admin

    def _topic_names(self) -> list[str]:
        try:
            return [info.topic for info in self._admin().topics()]
        except MbctlError:
            # A better hint is a courtesy; that it cannot be had is no news.
            return []

    def _use(self, topic: str | None) -> None:
        if topic is not None:
            # A name that was mistyped would be found out only by the next verb.
            self._admin().topic(topic)
        self.in_use = topic
        sentence = f". is {topic} now" if topic else "no topic is in use"
        self._output.done({"topic": topic}, sentence)

    def _show_last(self, count: int) -> None:
        if not self._recent:
            raise InvalidArgument(reason="no message has been shown yet")
        messages = list(self._recent)[-count:]
        if self._output.for_people:
            shown = [
                full_lines(self._output, message, lines_max=_LAST_LINES_MAX) for message in messages
            ]
            self._output.page([line for lines in shown for line in lines])
            return
        with self._output.messages() as writer:
            for message in messages:
                writer.write_one(message)
            writer.flush()

    def _watch(self, interval: float, line: str) -> None:
        """Run a verb until an interrupt or an error ends it."""
        while True:
            command = self.parse(line)
            # What destroys something is asked about, and done once.
            if command is None or isinstance(command, _UNWATCHED) or target_of(command) is not None:
                raise InvalidArgument(
                    reason=f"{line!r} cannot be watched: it needs a verb that ends"
                )
            if self._output.terminal:
                now = text.local_time(time.time_ns(), time.time_ns())
                head = f"every {interval:g} s: {text.escape(line)}   {now}   Ctrl-C ends it"
                self._output.write_text(f"{_CLEAR_SCREEN}{self._output.dim(head)}\n\n")
            self.execute(command)
            sleep(interval)

    def _help(self, name: str | None) -> None:
        verb = find_verb(name) if name else None
        if verb is None:
            self._output.rows(OVERVIEW_COLUMNS, overview(self._kind))
            self._output.note("help VERB tells more about one")
        else:
            self._output.write_text(explain(verb))
            self._output.flush()

    def _history(self) -> None:
        numbered = enumerate(self._lines, start=1)
        rows = [{"number": number, "line": line} for number, line in numbered]
        self._output.rows(_HISTORY_COLUMNS, rows[-_HISTORY_SHOWN_MAX:], empty="nothing typed yet")
