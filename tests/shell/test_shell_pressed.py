"""Ctrl-C at any moment: while typing, right behind Enter, and while a verb is at work.

The moments are drawn by chance, so that each run tries others; a failure names its seed.
"""

import random
import time
from collections.abc import Callable

import pytest
from shell_harness import Terminal

from mbctl import Publisher
from mbctl.shell.commands import KINDS, Kind

pytestmark = pytest.mark.slow

CTRL_C, CTRL_U = "\x03", "\x15"
ROUNDS = 25
LINES: dict[Kind, list[str]] = {
    "publisher": [
        "topics",
        "send TOPIC hi",
        "watch 0.02 topics",
        "peek TOPIC",
        "use TOPIC",
        "oops",
    ],
    "subscriber": [
        *("pull --wait 5", "pull -n 1 --no-ack", "follow", "follow on", "follow off"),
        *("watch 0.02 subscriptions", "ack", "nack", "last", "help pull"),
    ],
}


class Fingers:
    """Somebody who types lines and presses Ctrl-C, never when it is expected."""

    def __init__(self, shell: Terminal, lines: list[str], seed: int) -> None:
        self._shell = shell
        self._lines = lines
        self._random = random.Random(seed)

    def play(self) -> None:
        """Do one thing that Ctrl-C interrupts."""
        chance, line = self._random, self._random.choice(self._lines)
        match chance.randrange(5):
            case 0:
                self._shell.type(line[: chance.randrange(len(line) + 1)])
                self._press(0.05)
            case 1:
                self._shell.type(f"{line}\r{CTRL_C}")
            case 2:
                self._shell.enter(line)
                self._press(0.03)
            case 3:
                self._shell.enter(line)
                self._press(0.3, times=chance.randrange(1, 4))
            case _:
                self._shell.paste("\n".join(chance.choices(self._lines, k=3)))
                self._shell.type("\r")
                self._press(0.2)

    def _press(self, within_s: float, times: int = 1) -> None:
        self._shell.watch(self._random.random() * within_s)
        self._shell.type(CTRL_C * times)


def _answers(shell: Terminal, word: str) -> None:
    """Press Ctrl-C until the shell, which may have a verb at work, takes a line again."""
    seen = f"unknown verb '{word}'"
    for _ in range(20):
        shell.type(CTRL_C)
        shell.watch(0.05)
        shell.enter(f"{CTRL_U}{word}")
        until = time.monotonic() + 1
        while time.monotonic() < until and not any(seen in line for line in shell.lines):
            shell.watch(0.02)
        if any(seen in line for line in shell.lines):
            return
    raise AssertionError("does not answer any more:\n" + "\n".join(shell.lines))


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_at_any_moment_neither_ends_nor_blocks_the_shell(
    kind: Kind, terminal: Callable[..., Terminal], server: str, topic: str
) -> None:
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
        publisher.send_many(topic, [b"x"] * 50)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    shell = terminal(kind, "--name", topic, columns=100)
    shell.wait(lambda lines: lines[-1].startswith(" connected "))
    if kind == "subscriber":
        shell.enter(f"subscribe {topic} --from earliest")
    fingers = Fingers(shell, [line.replace("TOPIC", topic) for line in LINES[kind]], seed)
    for number in range(1, ROUNDS + 1):
        fingers.play()
        if number % 5 == 0:
            _answers(shell, f"oops{number}")
    # A Ctrl-D would be lost if the prompt were not back yet.
    shell.enter("exit")
    assert shell.wait_for_end() == 0
