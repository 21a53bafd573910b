"""The line editor of the shells: prompt_toolkit with our history, completion and toolbar.

Imported only at a terminal: prompt_toolkit is slow to import.
"""

import fcntl
import os
import select
import sys
import termios
from collections.abc import Callable, Iterable

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Always, completion_is_selected
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import History
from prompt_toolkit.input import Input
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.lexers import Lexer
from prompt_toolkit.output import ColorDepth, Output, create_output
from prompt_toolkit.styles import Style

from mbctl.actions.output import Colour
from mbctl.shell.commands import Kind
from mbctl.shell.completion import LiveNames, complete
from mbctl.shell.highlight import highlight
from mbctl.shell.history import LineHistory
from mbctl.shell.toolbar import Toolbar

MENU_ROWS = 6

_STYLE = Style.from_dict(
    {
        "verb": "bold",
        "option": "ansicyan",
        "switch": "ansicyan",
        "operand": "ansigreen",
        "value": "ansiyellow",
        "wrong": "ansired underline",
        "comment": "ansibrightblack",
        "json-key": "ansiblue",
        "json-string": "ansigreen",
        "json-number": "ansicyan",
        "json-word": "ansimagenta",
    }
)


def make_prompt(
    kind: Kind,
    *,
    history: LineHistory,
    names: Callable[[], LiveNames],
    toolbar: Callable[[str, int], Toolbar],
    color: Colour,
    in_use: Callable[[], str | None] = lambda: None,
    context: tuple[str, str] = ("", ""),
    streams: tuple[Input, Output] | None = None,
) -> PromptSession[str]:
    """A prompt for the shell ``kind``; ``prompt`` of it returns one line, or a pasted block.

    ``context`` is the name and the colour that stand before the prompt.
    """
    source, screen = streams or (None, None)
    session: PromptSession[str] = PromptSession(
        lambda: _message(kind, in_use(), context),
        history=_PromptHistory(history),
        auto_suggest=AutoSuggestFromHistory(),
        lexer=_VerbLexer(kind, in_use),
        style=_STYLE,
        completer=_VerbCompleter(kind, names),
        complete_while_typing=True,
        reserve_space_for_menu=MENU_ROWS,
        bottom_toolbar=lambda: _fragments(toolbar),
        key_bindings=_bindings(),
        color_depth=ColorDepth.DEPTH_1_BIT if color == "never" else None,
        include_default_pygments_style=False,
        enable_suspend=True,
        input=source,
        output=screen,
    )
    # Up looks for lines that begin as the one typed. Asked for as a setting of the session,
    # this would turn off the menu while typing.
    session.default_buffer.enable_history_search = Always()
    return session


def _message(kind: Kind, in_use: str | None, context: tuple[str, str]) -> StyleAndTextTuples:
    name, colour = context
    shown = f"{kind}:{in_use}> " if in_use else f"{kind}> "
    before = [(f"bold fg:ansi{colour}" if colour else "bold", f"{name} ")] if name else []
    return [*before, ("", shown)]


def screen() -> Output | None:
    """Where the prompt is drawn: stderr if stdout is a file; None leaves the choice open.

    prompt_toolkit finds out about a dumb terminal only if it chooses itself.
    """
    return None if sys.stdout.isatty() else create_output(always_prefer_tty=True)


def was_given_up(source: Input) -> bool:
    """Whether Ctrl-C was pressed behind Enter, before the line was taken.

    The terminal hands it over as a key then, which would wait for the next prompt. From now
    on, as the prompt has given the terminal back, it is a signal.
    """
    keys = get_typeahead(source)
    while select.select([source.fileno()], [], [], 0)[0] and (more := source.read_keys()):
        keys += more
    pressed = [number for number, key in enumerate(keys, start=1) if key.key == Keys.ControlC]
    store_typeahead(source, keys[pressed[-1] :] if pressed else keys)
    return bool(pressed)


def was_left(source: Input) -> bool:
    """Whether Ctrl-D was pressed when there was no prompt to take it, and nothing before it.

    The terminal ends a read with nothing for it. That has to be read before the next prompt
    takes the terminal over, or it is lost.
    """
    keys, descriptor = get_typeahead(source), source.fileno()
    store_typeahead(source, keys)
    if keys or not os.isatty(descriptor):
        return False
    if not select.select([descriptor], [], [], 0)[0]:
        return False
    waiting = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
    return not any(waiting) and not os.read(descriptor, 1)


class _PromptHistory(History):
    """What prompt_toolkit searches and suggests from: our history, line by line."""

    def __init__(self, history: LineHistory) -> None:
        super().__init__()
        self._history = history

    def load_history_strings(self) -> Iterable[str]:
        """The lines of earlier runs, the newest first."""
        return reversed(self._history.lines)

    def append_string(self, string: str) -> None:
        """Take what was typed, a pasted block line by line."""
        for line in self._history.append(string):
            super().append_string(line)

    def store_string(self, string: str) -> None:
        """Nothing is left to do: ``append_string`` has stored it."""


class _VerbCompleter(Completer):
    """Our completions in the form that prompt_toolkit takes."""

    def __init__(self, kind: Kind, names: Callable[[], LiveNames]) -> None:
        self._kind = kind
        self._names = names

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """What can be typed next on the line of the cursor."""
        before = document.current_line_before_cursor
        for candidate in complete(self._kind, before, self._names()):
            yield Completion(
                candidate.text,
                start_position=-candidate.replaces,
                display_meta=candidate.about,
            )


class _VerbLexer(Lexer):
    """Our colours in the form that prompt_toolkit takes."""

    def __init__(self, kind: Kind, in_use: Callable[[], str | None]) -> None:
        self._kind = kind
        self._in_use = in_use

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """The parts of each line."""
        lines = document.lines

        def line(number: int) -> StyleAndTextTuples:
            parts = highlight(self._kind, lines[number], self._in_use())
            return [(f"class:{style}" if style else "", text) for style, text in parts]

        return line


def _bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter", filter=completion_is_selected)
    def accept_completion(event: KeyPressEvent) -> None:
        # Enter on a chosen completion must not also run the line: a topic that was
        # completed by accident would be deleted by reflex.
        event.current_buffer.complete_state = None

    return bindings


def _fragments(toolbar_of: Callable[[str, int], Toolbar]) -> StyleAndTextTuples:
    buffer = get_app().current_buffer
    toolbar = toolbar_of(buffer.text, buffer.cursor_position)
    size = get_app().output.get_size()
    # The toolbar is drawn in reverse, so this is a red bar.
    style = "fg:ansired" if toolbar.reachable is False else ""
    return [(style, toolbar.line(size.columns))]
