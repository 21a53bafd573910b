"""The demo, as a newcomer runs it."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_demo_as_json_is_its_summary() -> None:
    command = [sys.executable, "-m", "mbctl", "demo", "--seconds", "0.5", "-o", "json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    total = sum(summary["sent"].values())
    assert summary["received"] == dict.fromkeys(("billing", "audit", "reports"), total)
    assert set(summary["faults"].values()) == {0}
    assert (summary["messages"], summary["reclaimed"], summary["kept"]) == (total, total, 0)


def test_demo_ends_with_everything_received_and_reclaimed() -> None:
    command = [sys.executable, "-m", "mbctl", "demo", "--seconds", "1.5"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 0, result.stderr
    received = re.findall(r"received +([\d,]+) messages: all, once, in order", result.stdout)
    assert len(received) == 3
    assert len(set(received)) == 1
    assert int(received[0].replace(",", "")) > 1000
    assert re.search(r"reclaimed ([\d,]+) of \1 messages; 0 are kept", result.stdout)
    assert "\x1b" not in result.stdout
    assert result.stderr == ""


@pytest.mark.slow
def test_demo_ends_at_ctrl_c_with_130_and_takes_its_processes_along() -> None:
    command = [sys.executable, "-m", "mbctl", "demo", "--seconds", "60"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("A broker, two publishers")
        # So does a terminal: everybody in front of it gets the signal.
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, ""), out
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
