"""What a shell holds while it runs, and what each command does with it."""

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Protocol

from mbctl.actions import status, topics
from mbctl.actions.output import Column, Output
from mbctl.errors import MbctlError, NotSubscribed, TopicNotFound
from mbctl.shell import ShellOptions
from mbctl.shell import commands as c
from mbctl.shell.commands import Command, Kind
from mbctl.shell.grammar import nearest
from mbctl.shell.help import OVERVIEW_COLUMNS, explain, overview
from mbctl.shell.publisher import PublisherSide
from mbctl.shell.subscriber import SubscriberSide
from mbctl.shell.verbs import find_verb

if TYPE_CHECKING:
    from mbctl import Admin

_HISTORY_SHOWN_MAX = 500
_HISTORY_COLUMNS = (Column("number", "NUMBER"), Column("line", "LINE"))

_CLEAR_SCREEN = "\x1b[H\x1b[2J"


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
        self, kind: Kind, options: ShellOptions, output: Output, lines: Sequence[str] = ()
    ) -> None:
        self._kind = kind
        self._options = options
        self._output = output
        self._lines = lines
        self._opened_admin: Admin | None = None
        self._side: Side
        if kind == "publisher":
            self._side = PublisherSide(options, output)
        else:
            self._side = SubscriberSide(options, output, self._admin)

    @property
    def label(self) -> str:
        """Who is registered, in a word or two."""
        return self._side.label

    @property
    def subscriber(self) -> SubscriberSide | None:
        """The registered subscriber, in its shell."""
        return self._side if isinstance(self._side, SubscriberSide) else None

    def execute(self, command: Command) -> bool:
        """Carry out ``command`` and show what it did; False if it ends the shell.

        Raises:
            MbctlError: it failed; the session goes on.
        """
        match command:
            case c.Exit():
                return False
            case c.Register(name):
                self._side.register(name)
            case c.PurgeTopic(topic):
                topics.purge_topic(self._admin(), self._output, topic)
            case c.Peek(topic, start, max_messages):
                count = max_messages or topics.READ_COUNT
                topics.read_topic(self._admin(), self._output, topic, start=start, count=count)
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
