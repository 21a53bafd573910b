"""Every example of every --help does what it shows."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from broker_process import READY, BrokerProcess
from cli_harness import Run

from mbctl import Admin, Publisher, Server, Subscriber
from mbctl.cli import app as cli_app
from mbctl.files import Directory, Disk
from mbctl.journal.directory import read_or_begin, take


def examples() -> list[str]:
    """All examples, in the order of the help."""
    found: list[str] = []
    for name in cli_app.COMMANDS:
        command = cli_app.LazyCommands()[name]
        for each in getattr(command, "commands", {name: command}).values():
            lines = [line.strip() for line in each.epilog.strip().splitlines()]
            assert lines, f"{name} has no examples"
            found += lines
    return found


EXAMPLES = examples()
# These go on until they are stopped, and this is the beginning of what they print first.
ENDLESS = {
    "mbctl server": READY,
    "mbctl server --data ./broker --max-bytes 4G": READY,
    "mbctl server --memory --port 0": READY,
    "mbctl follow orders": "orders\t",
    "mbctl follow orders --rate": "20",
    "mbctl top": '{"time":',
    "mbctl top --sort lag --filter 'orders*'": '{"time":',
    "mbctl follow orders packages --name billing -o jsonl": '{"topic":"',
}
SLOW = ("mbctl demo", "mbctl bench")
# Theirs are real servers, which each of them begins or ends.
CLUSTER = ("mbctl cluster", "mbctl server --engine")
QUICK = [e for e in EXAMPLES if e not in ENDLESS and not e.startswith((*SLOW, *CLUSTER))]


def needs_shell(example: str) -> bool:
    """Whether an example is more than a command and its arguments."""
    return bool(set(example) & set("<>|"))


@pytest.fixture(scope="module")
def examples_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A server whose topics the examples may take for theirs, and that can be backed up."""
    broker = BrokerProcess("--sync", "never", data=tmp_path_factory.mktemp("broker"))
    yield broker
    broker.check()


@pytest.fixture
def server(examples_broker: BrokerProcess, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a server without any topics."""
    with Admin(examples_broker.address) as admin:
        for info in admin.topics():
            admin.delete_topic(info.topic)
    monkeypatch.setenv("MBCTL_SERVER", examples_broker.address)
    return examples_broker.address


@pytest.fixture
def environment(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A shell's environment with mbctl on its path, the topics and the files of the examples."""
    command = tmp_path / "bin" / "mbctl"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mbctl "$@"\n')
    command.chmod(0o755)
    (tmp_path / "lines.txt").write_text("one\ntwo\n")
    broker = Directory(Disk(), tmp_path / "broker")
    take(broker).close()
    read_or_begin(broker, window=128, capacity=4096, created=0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with Publisher(server) as publisher, Subscriber(server, "billing") as subscriber:
        for topic in ("orders", "packages"):
            publisher.create_topic(topic)
            subscriber.subscribe(topic)
        with Subscriber(server, "audit") as audit:
            audit.subscribe("orders", "earliest")
        publisher.send("orders", "hello")
    return {
        **os.environ,
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        # The default port may be taken on this machine.
        "MBCTL_PORT": "0",
    }


def test_every_endless_example_is_one() -> None:
    assert set(ENDLESS) <= set(EXAMPLES)


@pytest.mark.parametrize("example", [e for e in QUICK if not needs_shell(e)])
def test_example_works(example: str, run: Run, server: str, environment: dict[str, str]) -> None:
    if example.startswith(("mbctl context use", "mbctl context show", "mbctl context remove")):
        for name in ("other", "local"):
            run("context", "add", name, "--server", server, "--use")
    if example.startswith("mbctl restore"):
        with Admin(server) as admin:
            admin.backup("broker.backup")
    with ExitStack() as stack:
        if example.startswith("mbctl topic move"):
            other = stack.enter_context(Server(port=0, memory=True))
            run("context", "add", "cluster", "--server", other.address)
        ended = run(*shlex.split(example)[1:])
    assert (ended.code, "error" in ended.err) == (0, False), ended.err


@pytest.mark.parametrize("example", [e for e in QUICK if needs_shell(e)])
def test_example_works_in_a_shell(example: str, environment: dict[str, str]) -> None:
    ended = subprocess.run(
        ["bash", "-c", example], env=environment, capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode, "error" in ended.stderr) == (0, False), ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.startswith("mbctl bench")])
def test_example_of_the_benchmark_works_with_little_to_do(
    example: str, environment: dict[str, str]
) -> None:
    if "--report" in example:
        pytest.importorskip("matplotlib")
    short = f"{example} --repeat 1 --seconds 0.02"
    before = "mbctl bench publish --repeat 1 --seconds 0.02 --json yesterday.json"
    ended = subprocess.run(
        ["bash", "-c", f"{before} && {short}" if "yesterday" in example else short],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    # The floor that one of them names is for runs that are longer.
    assert ended.returncode in ((0, 8) if "--fail-if" in example else (0,)), ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.startswith("mbctl demo")])
def test_slow_example_works(example: str, environment: dict[str, str]) -> None:
    ended = subprocess.run(
        ["bash", "-c", example], env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_examples_of_a_cluster_work(environment: dict[str, str]) -> None:
    of_clusters = [example for example in EXAMPLES if example.startswith("mbctl cluster start")]
    assert of_clusters
    for start in of_clusters:
        where = start[start.find("--dir") :] if "--dir" in start else ""
        script = f"""
            set -e
            # What an earlier server said must not be taken for this one's word.
            rm -f ready
            url=$({start})
            mbctl cluster status {where}
            mbctl server --engine $url > ready 2> log & server=$!
            until grep -q ready ready || ! kill -0 $server; do read -rt 0.05 <> <(:) || :; done
            kill $server
            wait $server || {{ code=$?; cat ready log >&2; exit $code; }}
            mbctl cluster stop {where}
        """
        ended = subprocess.run(
            ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("example", ENDLESS)
def test_endless_example_works_until_ctrl_c(
    example: str, server: str, environment: dict[str, str]
) -> None:
    with subprocess.Popen(
        ["bash", "-c", f"exec {example}"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if "follow" in example and "--name" not in example:
            # A late subscriber gets what is sent from then on.
            assert "is subscribed to orders" in process.stderr.readline()
            with Publisher(server) as publisher:
                publisher.send("orders", "new")
        assert process.stdout.readline().startswith(ENDLESS[example])
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == (0 if "server" in example else 130)
