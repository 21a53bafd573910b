"""How fast commands start: CPU time above a bare interpreter, and the time to a first prompt.

    .venv/bin/python scripts/start_figures.py          about half a minute
    .venv/bin/python scripts/start_figures.py 21       as many runs of each

Each figure is the best and the median of several runs, taken in turns so that a busy moment
of the machine hits all alike. A broker of its own, in memory, answers.
"""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pexpect

PYTHON = sys.executable
MBCTL = [PYTHON, "-m", "mbctl"]
COMPLETION = {
    "_MBCTL_COMPLETE": "complete_bash",
    "COMP_WORDS": "mbctl send or",
    "COMP_CWORD": "2",
}


@contextmanager
def broker() -> Iterator[str]:
    """The address of a broker in memory."""
    command = [*MBCTL, "server", "--memory", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def cpu_ms(command: list[str], environment: dict[str, str]) -> float:
    """The CPU time of one run, its children and all."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return spent * 1000


def prompt_ms(kind: str, environment: dict[str, str]) -> float:
    """From the start of a shell to its prompt."""
    began = time.perf_counter()
    shell = pexpect.spawn(
        PYTHON,
        ["-m", "mbctl", kind],
        env={**os.environ, **environment, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"},
    )
    shell.expect_exact(f"{kind}>")
    took = (time.perf_counter() - began) * 1000
    shell.close(force=True)
    return took


def main() -> None:
    """Measure and print."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    with broker() as server:
        environment = {"MBCTL_SERVER": server}
        subprocess.run(
            [*MBCTL, "topic", "create", "orders"],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        measured: dict[str, Callable[[], float]] = {
            "bare interpreter": lambda: cpu_ms([PYTHON, "-c", "pass"], environment),
            "mbctl send": lambda: cpu_ms([*MBCTL, "send", "orders", "hi"], environment),
            "mbctl topic list": lambda: cpu_ms([*MBCTL, "topic", "list"], environment),
            "mbctl status": lambda: cpu_ms([*MBCTL, "status"], environment),
            "completion of a topic": lambda: cpu_ms(MBCTL, {**environment, **COMPLETION}),
            "first prompt, publisher": lambda: prompt_ms("publisher", environment),
            "first prompt, subscriber": lambda: prompt_ms("subscriber", environment),
        }
        found: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(runs):
            for name, measure in measured.items():
                found[name].append(measure())
    bare = min(found["bare interpreter"])
    print(f"{'':26} {'best':>8} {'median':>8} {'above bare':>11}   ms, {runs} runs")
    for name, times in found.items():
        kind = "wall" if "prompt" in name else "CPU"
        above = "" if kind == "wall" else f"{min(times) - bare:11.0f}"
        print(f"{name:26} {min(times):8.0f} {statistics.median(times):8.0f} {above:>11}   {kind}")


if __name__ == "__main__":
    main()
