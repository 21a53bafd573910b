"""``mbctl bench`` at a terminal."""

import os
import re
import sys

import pexpect  # type: ignore[import-untyped]


def test_people_see_a_bar_and_then_a_table() -> None:
    arguments = ["end-to-end", "--seconds", "0.02", "--repeat", "2"]
    child = pexpect.spawn(
        sys.executable,
        ["-m", "mbctl", "bench", *arguments],
        env={**os.environ, "TERM": "xterm-256color"},
        dimensions=(40, 140),
        encoding="utf-8",
        timeout=30,
    )
    shown = child.read()
    child.close()
    assert child.exitstatus == 0
    assert "end to end, 1 to 1: mbctl" in shown
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    bar, _, table = plain.partition("WHAT")
    assert re.search(r"0/\d+ ", bar)
    assert re.search(r"end to end, 1 to 1 +mbctl +[\d,]+ msg/s +± \d+% +memory", table)
    assert "--memory; batches of 2000" in table
    assert re.search(r"[\d,]+ messages read: none lost, doubled, changed or out of order", table)
