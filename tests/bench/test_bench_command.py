"""``mbctl bench`` as people run it, with few messages."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mbctl.bench.figures import load_results

COMMAND = [sys.executable, "-m", "mbctl", "bench"]
SHORT = ["--seconds", "0.02", "--repeat", "1"]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


def test_figures_go_to_stdout_and_files_and_conditions_decide(tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "a.json"), "--csv", str(tmp_path / "a.csv")]
    conditions = ["--fail-if", "publish<1", "--fail-if", "publish.each>1"]
    ended = bench("publish", *SHORT, "-o", "json", *files, *conditions)

    assert ended.returncode == 8
    assert "publish.each>1: it is " in ended.stderr
    assert "publish<1" not in ended.stderr
    figures = json.loads(ended.stdout)
    assert [figure["name"] for figure in figures] == ["publish", "publish.each"]
    for figure in figures:
        assert figure["status"] == "ok"
        assert figure["faults"] == []
        assert figure["messages"] > 1000
        assert figure["durability"] == "memory"
        assert "--memory" in figure["settings"]
    results = load_results(tmp_path / "a.json")
    assert results.command.endswith(
        "bench publish --seconds 0.02 --repeat 1 -o json "
        + " ".join([*files, "--fail-if", "'publish<1'", "--fail-if", "'publish.each>1'"])
    )
    assert not results.partial
    with (tmp_path / "a.csv").open() as file:
        assert [row["value"] for row in csv.DictReader(file)] == [
            str(figure["value"]) for figure in figures
        ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["publsh"], "there is no scenario 'publsh'; there are raw, latency"),
        (["--peer", "carrier-pigeon"], "there is no peer 'carrier-pigeon'"),
        (["publish", "--fail-if", "latency.ack>5ms"], "latency.ack is not measured here"),
        (["--compare", "nowhere.json"], "nowhere.json cannot be read"),
        (["--durability", "eternal"], "not one of memory, written, synced"),
        (["--size", "8"], "--size is 9 bytes to 1 MiB here, not 8"),
        (["suite", "--only", "publsh"], "there is no scenario 'publsh'"),
        (["publish", "--only", "publish"], "--only names parts of the suite"),
        (["--repeat", "0"], "0 is not at least 1"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_measured(
    arguments: list[str], said: str
) -> None:
    ended = bench(*arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1


def test_file_that_cannot_be_written_is_refused_before_anything_is_measured() -> None:
    ended = bench("--json", "nowhere/results.json")
    assert ended.returncode == 1
    assert "nowhere/results.json: no such file or directory" in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_ends_it_shows_what_there_is_and_leaves_nothing(number: signal.Signals) -> None:
    arguments = ["publish", "--seconds", "0.02", "--repeat", "100000", "-o", "json"]
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        children = _children_of(process.pid)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    # Python's own watcher over shared memory ends a moment after who started it.
    while any(map(_is_alive, children)):
        pass
    assert process.returncode == 130
    assert "PARTIAL" in err
    assert "Traceback" not in err
    assert "partial" in [figure["status"] for figure in json.loads(out)]


def _children_of(pid: int) -> list[str]:
    """What it has started to measure: a server, a worker, and what watches over shared memory."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while len(found := children.read_text().split()) < 3:
        pass
    return found


def _is_alive(pid: str) -> bool:
    """Whether a process runs; what has ended and is not yet taken notice of does not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return False
    return fields[0] not in "ZX"
