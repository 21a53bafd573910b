"""The line editor, driven by keys and without a server."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.input.typeahead import get_typeahead
from prompt_toolkit.output import DummyOutput

from mbctl.shell.completion import LiveNames
from mbctl.shell.history import LineHistory
from mbctl.shell.prompt import make_prompt, was_given_up
from mbctl.shell.toolbar import Toolbar

LEFT, RIGHT, UP, ENTER, TAB = "\x1b[D", "\x1b[C", "\x1b[A", "\r", "\t"
CTRL_A, CTRL_C, CTRL_D, CTRL_E, CTRL_R = "\x01", "\x03", "\x04", "\x05", "\x12"

Make = Callable[[], PromptSession[str]]


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys


@pytest.fixture
def make(keys: PipeInput, tmp_path: Path) -> Make:
    def make() -> PromptSession[str]:
        return make_prompt(
            "publisher",
            history=LineHistory(tmp_path / "history"),
            names=lambda: LiveNames(topics={"orders": "", "clicks": ""}),
            toolbar=lambda typed, _cursor: Toolbar("127.0.0.1:5555", True, "publisher", typed),
            color="auto",
            streams=(keys, DummyOutput()),
        )

    return make


def test_prompt_returns_the_line_as_typed(keys: PipeInput, make: Make) -> None:
    keys.send_text("""send orders {"id": 1, "note": "it's"}  """ + ENTER)
    assert make().prompt() == """send orders {"id": 1, "note": "it's"}  """


def _type(keys: PipeInput, prompt: PromptSession[str], *steps: tuple[str, str]) -> str:
    """Prompt, and send the keys of each step once the line reads as the step says.

    Completions and suggestions come in behind the keys, so keys that use them wait.
    """
    waiting = list(steps)

    def advance(_sender: object) -> None:
        if not waiting:
            return
        text, typed = waiting[0]
        buffer = prompt.default_buffer
        ready = {TAB: buffer.complete_state, RIGHT: buffer.suggestion}.get(typed, True)
        if buffer.text == text and ready:
            keys.send_text(waiting.pop(0)[1])

    prompt.app.after_render += advance
    return prompt.prompt()


def test_tab_completes_verb_and_topic(keys: PipeInput, make: Make) -> None:
    steps = [("", "se"), ("se", TAB), ("send", " cl"), ("send cl", TAB)]
    assert _type(keys, make(), *steps, ("send clicks", f" x{ENTER}")) == "send clicks x"


def test_enter_on_a_chosen_completion_does_not_run_the_line(keys: PipeInput, make: Make) -> None:
    steps = [
        *(("", "deleteTopic "), ("deleteTopic ", TAB), ("deleteTopic orders", f"{ENTER}-2")),
        ("deleteTopic orders-2", ENTER),
    ]
    assert _type(keys, make(), *steps) == "deleteTopic orders-2"


def test_suggestion_from_history_is_taken_with_the_right_arrow(keys: PipeInput, make: Make) -> None:
    prompt = make()
    keys.send_text(f"createTopic orders{ENTER}")
    prompt.prompt()
    steps = [("", "cre"), ("cre", RIGHT), ("createTopic orders", ENTER)]
    assert _type(keys, prompt, *steps) == "createTopic orders"


def test_enter_beside_an_open_menu_runs_the_line(keys: PipeInput, make: Make) -> None:
    keys.send_text(f"to{ENTER}")
    assert make().prompt() == "to"


def test_up_recalls_the_line_of_an_earlier_run(keys: PipeInput, make: Make) -> None:
    keys.send_text(f"createTopic orders{ENTER}")
    make().prompt()
    keys.send_text(f"{UP}{CTRL_A}{CTRL_E}-2{ENTER}")
    assert make().prompt() == "createTopic orders-2"


def test_control_r_searches_the_history(keys: PipeInput, make: Make) -> None:
    prompt = make()
    keys.send_text(f"createTopic orders{ENTER}")
    prompt.prompt()
    keys.send_text(f"topics{ENTER}")
    prompt.prompt()
    keys.send_text(f"{CTRL_R}create{ENTER}{ENTER}")
    assert prompt.prompt() == "createTopic orders"


def test_pasted_block_comes_whole_and_enters_history_by_line(keys: PipeInput, make: Make) -> None:
    prompt = make()
    keys.send_text(f"\x1b[200~topics\r\nsend orders a\tb\x1b[201~{ENTER}")
    assert prompt.prompt() == "topics\nsend orders a\tb"
    keys.send_text(f"{UP}{UP}{ENTER}")
    assert prompt.prompt() == "topics"


def test_control_c_interrupts_the_line(keys: PipeInput, make: Make) -> None:
    keys.send_text(f"half typed{CTRL_C}")
    with pytest.raises(KeyboardInterrupt):
        make().prompt()


def test_control_d_leaves_on_an_empty_line(keys: PipeInput, make: Make) -> None:
    keys.send_text(CTRL_D)
    with pytest.raises(EOFError):
        make().prompt()


def test_control_d_deletes_within_a_line(keys: PipeInput, make: Make) -> None:
    keys.send_text(f"topicsX{LEFT}{CTRL_D}{ENTER}")
    assert make().prompt() == "topics"


@pytest.mark.parametrize(
    ("typed", "given_up", "left"),
    [("\x03", True, []), ("to\x03pi", True, ["p", "i"]), ("to", False, ["t", "o"])],
)
def test_ctrl_c_behind_enter_gives_the_line_up(typed: str, given_up: bool, left: list[str]) -> None:
    with create_pipe_input() as source:
        source.send_text(typed)
        assert was_given_up(source) is given_up
        assert [key.key for key in get_typeahead(source)] == left
