"""Types the examples of a page into a terminal, and compares what appears there.

A console block is what a terminal shows. A line that begins with a prompt is typed; the
lines below it are what must appear. ``...`` stands for any lines, or for any text within
a line; ``^C`` is Ctrl-C, pressed when everything above it has appeared. Times and what
else is new in each run may be any of their kind.
"""

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pexpect
from docs_pages import Block

# The address that the pages use; the server of the test has another.
SHOWN_ADDRESS = "127.0.0.1:5555"

# Generous: only a failing example waits this long.
PATIENCE_S = 20.0

# A prompt that nothing prints by accident; shown as "$ ".
_SHELL_PROMPT = "\x1e$ "
_SHELLS = ("publisher> ", "subscriber> ", "publisher:parcels> ")
_PROMPTS = {"$ ": _SHELL_PROMPT, **{prompt: prompt for prompt in _SHELLS}}
# At the beginning of a line, or of a screen that was cleared.
_BEGINNING = r"(?:(?<![^\n])|(?<=\x1b\[2J))"
_ANY_PROMPT = [re.compile(rf"{_BEGINNING}{re.escape(p)}\Z") for p in _PROMPTS.values()]
# Before the further lines of a command, as of a text up to END.
_CONTINUED = "> "
_INTERRUPT = "^C"
# What prompt_toolkit sends to a terminal of which it knows nothing.
_CONTROL = re.compile(r"\x1b\[[?0-9;]*[a-zA-Z]")
_READY = re.compile(r"(mbctl server ready on )\S+")

# What differs from run to run: the pages show one value, and every other is as good.
_VARYING = [
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"), "<time>"),
    (re.compile(r"(?<!\S)\d\d:\d\d:\d\d\.\d{3}(?!\S)"), "<clock>"),
    (re.compile(r"\d+(\.\d+)? (ms|s|min) ago *"), "<ago> "),
    (re.compile(r"answered in \d+\.\d\d ms"), "answered in <ms>"),
    (re.compile(r"~[0-9a-f]{32}"), "<ephemeral>"),
    # A table is as wide as these.
    (re.compile("─+"), "─"),
]


class Step(msgspec.Struct, frozen=True):
    """One line that is typed at ``prompt``, and the lines expected after it."""

    number: int
    prompt: str
    line: str
    expected: list[str]


def steps_of(block: Block) -> Iterator[Step]:
    """The steps of a console block."""
    step: Step | None = None
    for number, line in enumerate(block.lines, start=block.number):
        prompt = next((p for p in _PROMPTS if f"{line} ".startswith(p)), None)
        if prompt is None:
            assert step is not None, f"{block.place}: the block begins without a prompt"
            if line.startswith(_CONTINUED) and not step.expected:
                step = msgspec.structs.replace(step, line=f"{step.line}\n{line[len(_CONTINUED) :]}")
            else:
                step.expected.append(line)
            continue
        if step is not None:
            yield step
        step = Step(number, prompt, line[len(prompt) :], [])
    assert step is not None, f"{block.place}: the block is empty"
    yield step


def looks_like(expected: list[str], actual: str) -> bool:
    """Whether ``actual`` is what ``expected`` shows, blanks at the ends of lines apart."""
    return re.fullmatch(_pattern(expected), _tidy(actual)) is not None


def _begins_like(expected: list[str], actual: str) -> bool:
    return re.match(_pattern(expected), _tidy(actual)) is not None


def _pattern(expected: list[str]) -> str:
    lines = _tidy("".join(f"{line}\n" for line in expected)).splitlines()
    return "".join(
        r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + "\n"
        for line in lines
    )


def _tidy(shown: str) -> str:
    for varying, name in _VARYING:
        shown = varying.sub(name, shown)
    return "".join(f"{line.rstrip()}\n" for line in shown.splitlines())


class Terminal:
    """A bash at a terminal that can only print, as wide as no example needs."""

    def __init__(self, env: Mapping[str, str], directory: Path) -> None:
        self._address = env["MBCTL_SERVER"]
        self._child = pexpect.spawn(
            "bash",
            ["--norc", "--noprofile", "--noediting"],
            env={**env, "TERM": "dumb", "PS1": _SHELL_PROMPT, "PS2": ""},
            cwd=str(directory),
            encoding="utf-8",
            echo=False,
            dimensions=(100, 200),
            timeout=PATIENCE_S,
        )
        # Nothing is typed before there is a prompt.
        self._child.delaybeforesend = None
        self.prompt = ""
        """The prompt at which it waits."""
        self._read_to_prompt()

    def run(self, step: Step) -> str:
        """Type the step's line; what appeared until the next prompt, as the page would show it."""
        assert step.prompt == self.prompt, f"the prompt is {self.prompt!r}, not {step.prompt!r}"
        typed = step.line.replace(SHOWN_ADDRESS, self._address)
        self._child.sendline(typed)
        if _INTERRUPT in step.expected:
            # At a shell's prompt the terminal shows what is typed.
            echo = [step.line] if step.prompt != "$ " else []
            awaited = [*echo, *step.expected[: step.expected.index(_INTERRUPT)]]
            shown = self._read_until_like(awaited)
            self._child.sendintr()
            # bash ends the line of a command that died of it.
            shown = self._clean(shown + self._read_to_prompt()).removesuffix("\n")
        else:
            shown = self._clean(self._read_to_prompt())
        return shown.removeprefix(f"{typed}\n") if step.prompt != "$ " else shown

    def close(self) -> None:
        """End whatever runs in it."""
        self._child.close(force=True)

    def _read_to_prompt(self) -> str:
        try:
            which = self._child.expect(_ANY_PROMPT)
        except (pexpect.TIMEOUT, pexpect.EOF) as error:
            shown = self._clean(self._child.before)
            raise AssertionError(f"no prompt came back after:\n{shown}") from error
        self.prompt = list(_PROMPTS)[which]
        return str(self._child.before)

    def _read_until_like(self, awaited: list[str]) -> str:
        shown = ""
        deadline = time.monotonic() + PATIENCE_S
        # Only whole lines count: Ctrl-C throws away what the terminal has not handed on yet.
        while not _begins_like(awaited, self._clean(shown[: shown.rfind("\n") + 1])):
            left = deadline - time.monotonic()
            try:
                assert left > 0
                shown += self._child.read_nonblocking(65536, timeout=left)
            except (pexpect.TIMEOUT, pexpect.EOF, AssertionError) as error:
                raise AssertionError(f"never appeared; instead:\n{self._clean(shown)}") from error
        return shown

    def _clean(self, shown: str) -> str:
        plain = _CONTROL.sub("", shown).replace("\r", "").replace(self._address, SHOWN_ADDRESS)
        return _READY.sub(rf"\g<1>{SHOWN_ADDRESS}", plain)


class Typist:
    """Goes through a page with as many terminals as it needs.

    A block goes on in the terminal that was left at its first prompt, the one used last,
    or opens a new one.
    """

    def __init__(self, address: str, directory: Path) -> None:
        self._env = _environment(address, directory)
        self._directory = directory
        self._terminals: list[Terminal] = []

    def run(self, block: Block) -> None:
        """Type a console block.

        Raises:
            AssertionError: something else appeared than the block shows.
        """
        terminal: Terminal | None = None
        for step in steps_of(block):
            terminal = terminal or self._terminal_at(step.prompt)
            where = f"{block.page}:{step.number}: {step.prompt}{step.line}"
            try:
                shown = terminal.run(step)
            except AssertionError as error:
                raise AssertionError(f"{where}\n{error}") from error
            expected = [line for line in step.expected if line != _INTERRUPT]
            assert looks_like(expected, shown), f"{where}\nreally shows:\n{shown}"

    def close(self) -> None:
        """Close all terminals."""
        for terminal in self._terminals:
            terminal.close()

    def _terminal_at(self, prompt: str) -> Terminal:
        at_prompt = [terminal for terminal in self._terminals if terminal.prompt == prompt]
        if at_prompt:
            terminal = at_prompt[-1]
            self._terminals.remove(terminal)
        else:
            terminal = Terminal(self._env, self._directory)
        self._terminals.append(terminal)
        return terminal


def _environment(address: str, directory: Path) -> dict[str, str]:
    """A stranger's environment, with mbctl and python on its path."""
    programs = directory / ".bin"
    programs.mkdir()
    # As people start it: with the script that was installed beside python.
    python = Path(sys.executable)
    for name, installed in (("mbctl", python.with_name("mbctl")), ("python", python)):
        assert installed.exists(), f"{installed} is not there: the project is not installed"
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{installed}" "$@"\n')
        program.chmod(0o755)
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("MBCTL_", "XDG_", "PYTEST"))}
    return {
        **kept,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(directory),
        "LC_ALL": "C.UTF-8",
        "MBCTL_SERVER": address,
        # A server that a page starts must not need the default port, which may be taken.
        "MBCTL_PORT": "0",
    }
