"""Scripts: what they print, where they stop, and that messages arrive as they stand there."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from shell_harness import MBCTL, PATIENCE_S, Ended, ServerProcess, run_shell

from mbctl import Publisher, Subscriber
from mbctl.model import MIB
from mbctl.shell.commands import Kind
from mbctl.shell.verb import Verb
from mbctl.shell.verbs import VERBS

JSON_MESSAGE = """{"id": 1, "note": "it's"}"""

# What a line may hold, and what a careless reader would split, strip or refuse.
ODD_LINES = [
    *(b"", b" ", b"  two  spaces  ", b"\t", b"# no comment", b"'", b'"', b"--key k"),
    *(b"cr\r", b"\r", b"\x0b\x0c\x1c\x85", "\u2028\u2029\x85".encode(), b"\x00", b"\xff\xfe\x80"),
    *(JSON_MESSAGE.encode(), "caf\u00e9 \u20ac \U0001f600".encode(), b"x" * 100_000),
]


def _create(topic: str) -> None:
    with Publisher(os.environ["MBCTL_SERVER"]) as publisher:
        publisher.create_topic(topic)


def _payloads(topic: str) -> list[bytes]:
    with Subscriber(os.environ["MBCTL_SERVER"]) as subscriber:
        subscriber.subscribe(topic, start="earliest")
        return subscriber.pull(topic, max_messages=100_000, wait=0).payloads


@pytest.fixture(autouse=True)
def _server(server: str) -> None:
    """Every script here has the shared server to talk to."""


def test_commands_run_in_order_and_print_results_only(topic: str) -> None:
    ended = run_shell(
        "publisher", "-c", f"createTopic {topic}", "-c", f"send {topic} {JSON_MESSAGE}"
    )
    assert ended == Ended(0, f"{topic}\ttrue\n{topic}\t0\t1\n".encode(), "")
    assert _payloads(topic) == [JSON_MESSAGE.encode()]


def test_script_file_runs_with_comments_and_blank_lines(topic: str, tmp_path: Path) -> None:
    script = tmp_path / "setup.mb"
    script.write_text(f"# set up\n\n  create-topic {topic}\r\nsend {topic} a\n   # end\n")
    assert run_shell("publisher", "-f", str(script)).code == 0
    assert _payloads(topic) == [b"a"]


def test_lines_of_stdin_arrive_byte_for_byte(topic: str) -> None:
    _create(topic)
    script = b"".join(b"send " + topic.encode() + b" " + line + b"\n" for line in ODD_LINES)
    ended = run_shell("publisher", "-q", stdin=script)
    assert ended == Ended(0, b"", "")
    assert _payloads(topic) == ODD_LINES


def test_command_option_carries_any_bytes(topic: str) -> None:
    _create(topic)
    command = b"send " + topic.encode() + b" \xff\xe2\x82\xac "
    subprocess.run(
        [*MBCTL, "publisher", "-c", command],
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=PATIENCE_S,
    )
    assert _payloads(topic) == [b"\xff\xe2\x82\xac "]


def test_last_line_without_its_end_is_run(topic: str) -> None:
    _create(topic)
    assert run_shell("publisher", "-f", "-", stdin=f"send {topic} last".encode()).code == 0
    assert _payloads(topic) == [b"last"]


def test_long_script_of_sends_is_fast_and_complete(topic: str) -> None:
    _create(topic)
    lines = [b"line %d" % number for number in range(3_000)]
    script = b"".join(b"send " + topic.encode() + b" " + line + b"\n" for line in lines)
    ended = run_shell("publisher", stdin=script)
    assert ended.out.count(b"\n") == 3_000
    assert _payloads(topic) == lines


def test_send_takes_key_headers_file_and_hex(topic: str, tmp_path: Path) -> None:
    _create(topic)
    content = bytes(range(256)) * 10
    (tmp_path / "a file").write_bytes(content)
    script = (
        f"send --key k -H type=new -H 'a b=c d' {topic} hello\n"
        f"send --file '{tmp_path}/a file' {topic}\n"
        f"send --hex 00ff0a {topic}\n"
    )
    assert run_shell("publisher", stdin=script.encode()).code == 0
    with Subscriber(os.environ["MBCTL_SERVER"]) as subscriber:
        subscriber.subscribe(topic, start="earliest")
        first, second, third = subscriber.pull(topic, wait=0)
    assert (first.key, dict(first.headers)) == (b"k", {"type": "new", "a b": "c d"})
    assert (second.payload, third.payload) == (content, b"\x00\xff\n")


@pytest.mark.parametrize(
    ("options", "place"),
    [
        (["-c", "topics", "-c", "crateTopic x"], "-c:2"),
        (["-c", "topics\n\ncrateTopic x"], "-c:3"),
        (["-f", "-"], "<stdin>:2"),
        ([], "<stdin>:2"),
    ],
)
def test_error_names_its_line(options: list[str], place: str) -> None:
    ended = run_shell("publisher", *options, stdin=b"topics\ncrateTopic x\n")
    assert ended.code == 7
    assert ended.err == (f"{place}: error: unknown verb 'crateTopic'; did you mean createTopic?\n")


def test_error_in_a_file_names_the_file(tmp_path: Path) -> None:
    script = tmp_path / "bad.mb"
    script.write_text("topics\n\nsend nowhere x\n")
    ended = run_shell("publisher", "-f", str(script))
    assert ended.code == 7
    assert ended.err == (
        f"{script}:3: error: topic 'nowhere' does not exist; create it with: createTopic nowhere\n"
    )


def test_misspelt_topic_is_told_the_right_one(topic: str) -> None:
    _create(f"orders-{topic}")
    ended = run_shell("publisher", "-c", f"send ordres-{topic} x")
    assert f"did you mean orders-{topic}? or create it with: createTopic" in ended.err


def test_script_stops_at_the_first_error(topic: str) -> None:
    ended = run_shell("publisher", stdin=f"nonsense\ncreateTopic {topic}\n".encode())
    assert (ended.code, ended.out) == (7, b"")


def test_keep_going_runs_the_rest_and_still_fails(topic: str) -> None:
    script = f"nonsense\ncreateTopic {topic}\nsend {topic}\nsend {topic} x\n"
    ended = run_shell("publisher", "--keep-going", stdin=script.encode())
    assert (ended.code, ended.err.count("\n")) == (7, 2)
    assert _payloads(topic) == [b"x"]


def test_exit_ends_a_script_without_failure(topic: str) -> None:
    ended = run_shell("publisher", stdin=b"exit\nnonsense\n")
    assert ended == Ended(0, b"", "")


def test_empty_script_does_nothing() -> None:
    assert run_shell("subscriber", stdin=b"") == Ended(0, b"", "")


def test_script_that_is_not_there_is_an_error() -> None:
    ended = run_shell("publisher", "-f", "/nowhere/at/all")
    assert ended.code == 1
    assert "/nowhere/at/all: no such file or directory" in ended.err


def test_file_to_send_that_is_not_there_is_an_error_of_its_line(topic: str) -> None:
    _create(topic)
    ended = run_shell("publisher", "-c", f"send --file /nowhere/at/all {topic}")
    assert ended.code == 7
    assert "-c:1: error: /nowhere/at/all: no such file or directory" in ended.err


def test_no_server_at_all_is_exit_5() -> None:
    ended = run_shell("publisher", "--server", "127.0.0.1:1", "--timeout", "0.2", "-c", "topics")
    assert (ended.code, ended.out) == (5, b"")
    assert "start one with: mbctl server" in ended.err


def test_message_above_the_limit_is_refused_by_its_line(topic: str) -> None:
    _create(topic)
    line = b"send " + topic.encode() + b" " + b"x" * (1024 * 1024 + 1) + b"\n"
    ended = run_shell("publisher", "--keep-going", stdin=line + line.replace(b"xx", b""))
    assert ended.code == 7
    assert ended.err.startswith("<stdin>:1: error: the payload has 1048577 bytes")
    assert _payloads(topic) == [b"x"]


def test_what_a_script_pulled_is_acknowledged_at_its_end(topic: str) -> None:
    _create(topic)
    run_shell("publisher", stdin=f"send {topic} a\nsend {topic} b\n".encode())
    first = run_shell("subscriber", "--name", topic, "-c", f"subscribe {topic}", "-c", "pull -n 1")
    assert first.out.endswith(b"\ta\n")
    second = run_shell("subscriber", "--name", topic, "-o", "raw", "-c", "pull")
    assert second == Ended(0, b"b\n", "")


def test_next_pull_acknowledges_the_last_one(topic: str) -> None:
    _create(topic)
    run_shell("publisher", stdin=f"send {topic} a\nsend {topic} b\n".encode())
    pulls = [f"subscribe {topic}", f"pull {topic} -n 1", f"pull {topic} -n 1", "subscriptions"]
    ended = run_shell("subscriber", "--name", topic, "-o", "jsonl", stdin="\n".join(pulls).encode())
    _, first, second, listed = map(json.loads, ended.out.splitlines())
    assert (first["payload"], second["payload"]) == ("a", "b")
    assert (listed["cursor"], listed["unread"], listed["leased"]) == (1, 1, 1)


def test_failed_script_acknowledges_nothing_of_its_last_pull(topic: str) -> None:
    _create(topic)
    run_shell("publisher", "-c", f"send {topic} a")
    script = f"subscribe {topic}\npull\nnonsense\n"
    assert run_shell("subscriber", "--name", topic, stdin=script.encode()).code == 7
    again = run_shell("subscriber", "--name", topic, "-o", "raw", "-c", "pull")
    assert again.out == b"a\n"


def test_ack_and_nack_are_about_the_last_pull(topic: str) -> None:
    _create(topic)
    run_shell("publisher", "-c", f"send {topic} a")
    script = f"subscribe {topic}\npull\nnack\npull --no-ack\npull\nack\nsubscriptions\nack\n"
    ended = run_shell("subscriber", "--name", topic, "-o", "jsonl", stdin=script.encode())
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [row.get("deliveries") for row in rows[1:4]] == [1, None, 2]
    assert rows[2] == {"returned": 1, "delay": 0.0}
    assert rows[4] == {"acknowledged": 1}
    assert rows[5]["unread"] == 0
    assert "<stdin>:8: error: there is nothing to acknowledge: pull first" in ended.err


def test_nack_with_a_delay_gives_back_later(topic: str) -> None:
    _create(topic)
    run_shell("publisher", "-c", f"send {topic} a")
    script = f"subscribe {topic}\npull\nnack --delay 0.3\npull\npull --wait 10\n"
    ended = run_shell("subscriber", "--name", topic, "-o", "raw", stdin=script.encode())
    assert ended.out.endswith(b"\na\n1\t0.3\na\n")
    assert ended.err == f"no new messages in {topic}\n"


def test_pull_without_topic_needs_exactly_one_subscription(topic: str) -> None:
    none = run_shell("subscriber", "-c", "pull")
    assert "there is no subscription to pull from: subscribe first" in none.err
    topics = [f"{topic}-b", f"{topic}-a"]
    for each in topics:
        _create(each)
    both = run_shell(
        "subscriber", *[w for t in topics for w in ("-c", f"subscribe {t}")], "-c", "pull"
    )
    assert both.code == 7
    assert f"there are several subscriptions, pull one: {topic}-a, {topic}-b" in both.err


def test_pull_of_what_is_not_subscribed_says_how_to_subscribe(topic: str) -> None:
    _create(topic)
    ended = run_shell("subscriber", "--name", topic, "-c", f"pull {topic}")
    assert ended.code == 7
    assert ended.err.endswith(f"; subscribe to it with: subscribe {topic}\n")


def test_large_pull_brings_all_there_is(topic: str) -> None:
    _create(topic)
    with Publisher(os.environ["MBCTL_SERVER"]) as publisher, publisher.pipeline() as pipe:
        pipe.send_many(topic, [b"x" * 300] * 25_000)
    script = f"subscribe {topic}\npull -n 1000000\nsubscriptions\n"
    ended = run_shell("subscriber", "--name", topic, "-o", "raw", stdin=script.encode())
    assert ended.out.count(b"x" * 300 + b"\n") == 25_000


def test_registering_again_changes_the_subscriber(topic: str) -> None:
    _create(topic)
    run_shell("publisher", "-c", f"send {topic} a")
    begin = f"registerSubscriber {topic}-t\nsubscribe {topic}\npull\n"
    script = f"{begin}registerSubscriber\nsubscriptions\n"
    ended = run_shell("subscriber", "-o", "jsonl", stdin=script.encode())
    registered, subscribed, _, again = map(json.loads, ended.out.splitlines())
    assert registered == {"subscriber": f"{topic}-t"}
    assert subscribed["subscriber"] == f"{topic}-t"
    assert again["subscriber"].startswith("~")
    # Leaving the first registration acknowledged what it had pulled.
    left = run_shell("subscriber", "--name", f"{topic}-t", "-c", "pull")
    assert left.out == b""


def test_registering_again_as_publisher_is_told(topic: str) -> None:
    script = f"registerPublisher till-3\ncreateTopic {topic}\nregisterPublisher\n"
    ended = run_shell("publisher", "-o", "jsonl", stdin=script.encode())
    first, _, second = map(json.loads, ended.out.splitlines())
    assert (first, second) == ({"publisher": "till-3"}, {"publisher": None})


def test_topic_is_created_with_its_limits(topic: str) -> None:
    script = f"createTopic {topic} --max-messages 2\n" + f"send {topic} x\n" * 3
    ended = run_shell("publisher", "-q", stdin=script.encode())
    assert ended.code == 7
    assert ended.err.startswith(f"<stdin>:4: error: topic '{topic}' is full")


@pytest.mark.parametrize(
    ("name", "size"), [("huge", 10**12), ("~/huge", 10**12), ("/dev/zero", MIB + 1)]
)
def test_file_above_the_limit_is_not_read_whole(
    topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    _create(topic)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(10**12)
    ended = run_shell("publisher", "-c", f"send --file {name} {topic}")
    assert ended.code == 7
    assert f"the file has {size} bytes and the limit is {MIB};" in ended.err


def test_follow_without_a_subscription_says_to_subscribe() -> None:
    ended = run_shell("subscriber", "-c", "follow")
    assert ended.code == 7
    assert "there is no subscription to follow: subscribe first" in ended.err


def test_pull_after_unsubscribing_says_how_to_subscribe(topic: str) -> None:
    _create(topic)
    run_shell("publisher", "-c", f"send {topic} a")
    ended = run_shell(
        "subscriber",
        "--keep-going",
        "-c",
        f"subscribe {topic}",
        "-c",
        f"unsubscribe {topic}",
        "-c",
        f"pull {topic}",
    )
    assert ended.err.startswith("-c:3: error: subscriber '~")
    assert ended.err.endswith(
        f"is not subscribed to topic '{topic}'; subscribe to it with: subscribe {topic}\n"
    )


def test_history_and_clear_of_a_script_show_nothing() -> None:
    assert run_shell("publisher", "-q", stdin=b"history\nclear\n") == Ended(0, b"", "")


def test_unsubscribe_gives_up_the_place(topic: str) -> None:
    _create(topic)
    script = f"subscribe {topic}\nunsubscribe {topic}\nsubscriptions\n"
    ended = run_shell("subscriber", "--name", topic, "-o", "json", stdin=script.encode())
    assert ended.out.endswith(b"[]\n")


def test_deleted_topic_is_no_error_for_what_was_pulled_of_it(topic: str) -> None:
    _create(topic)
    run_shell("publisher", "-c", f"send {topic} a")
    process = subprocess.Popen(
        [*MBCTL, "subscriber", "-o", "raw"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"subscribe {topic}\npull -n 1\n".encode())
    process.stdin.flush()
    assert process.stdout.readline().startswith(topic.encode())
    assert process.stdout.readline() == b"a\n"
    run_shell("publisher", "-c", f"deleteTopic {topic}")
    assert process.communicate()[0] == b""
    assert process.returncode == 0


def test_script_is_run_as_it_comes_in(topic: str) -> None:
    process = subprocess.Popen([*MBCTL, "publisher"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"createTopic {topic}\n".encode())
    process.stdin.flush()
    assert process.stdout.readline() == f"{topic}\ttrue\n".encode()
    assert process.communicate()[0] == b""


def test_interrupted_script_exits_130(topic: str) -> None:
    _create(topic)
    script = f"subscribe {topic}\npull --wait 60\n".encode()
    process = subprocess.Popen(
        [*MBCTL, "subscriber"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(script)
    process.stdin.flush()
    assert process.stdout.readline().startswith(topic.encode())
    process.send_signal(signal.SIGINT)
    assert b"Traceback" not in process.communicate()[1]
    assert process.returncode == 130


def test_closed_pipe_exits_141_and_acknowledges_nothing(topic: str) -> None:
    _create(topic)
    with Publisher(os.environ["MBCTL_SERVER"]) as publisher:
        publisher.send_many(topic, [b"x" * 1000] * 500)
    process = subprocess.Popen(
        [*MBCTL, "subscriber", "--name", topic, "-o", "raw"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"subscribe {topic}\n".encode())
    process.stdin.flush()
    process.stdout.readline()
    process.stdout.close()
    process.stdin.write(b"pull -n 500\n")
    process.stdin.close()
    assert process.wait(timeout=20) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    again = run_shell("subscriber", "--name", topic, "-o", "raw", "-c", "pull -n 500")
    assert again.out.count(b"\n") == 500


def test_script_of_a_server_that_stops_fails_at_its_line() -> None:
    server = ServerProcess()
    process = subprocess.Popen(
        [*MBCTL, "publisher", "--server", server.address, "--timeout", "0.3", "--keep-going"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"createTopic a\n")
    process.stdin.flush()
    process.stdout.readline()
    server.stop()
    out, err = process.communicate(b"send a x\nsend a y\n")
    assert (out, process.returncode) == (b"", 7)
    assert err.startswith(b"<stdin>:2: error: ")


def test_json_errors_are_told_as_json_too() -> None:
    ended = run_shell("publisher", "-o", "json", "-c", "send")
    report = json.loads(ended.err.splitlines()[1])
    assert report["error"]["code"] == "InvalidArgument"
    assert report["error"]["message"] == "send needs TOPIC (column 5)"
    assert report["error"]["hint"].startswith("write: send ")


def test_script_imports_nothing_that_only_a_terminal_needs(topic: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, pathlib, sys\n"
        f"names = pathlib.Path({str(tmp_path)!r}, 'names')\n"
        "atexit.register(lambda: names.write_text(' '.join(sys.modules)))\n"
    )
    script = f"createTopic {topic}\nsend {topic} x\nhelp\ntopics\nstatus\n"
    subprocess.run(
        [*MBCTL, "publisher"],
        input=script.encode(),
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.getcwd()}"},
        check=True,
        timeout=PATIENCE_S,
    )
    names = (tmp_path / "names").read_text().split()
    assert "mbctl.shell.batch" in names
    assert not {"rich", "prompt_toolkit", "asyncio", "uvloop"} & set(names)


# What goes on until Ctrl-C; the tests at a terminal have these.
ENDLESS = ("follow", "watch")
ENDING = [(kind, verb) for verb in VERBS for kind in verb.kinds if verb.name not in ENDLESS]


@pytest.mark.parametrize(
    ("kind", "verb"), ENDING, ids=[f"{kind} {verb.name}" for kind, verb in ENDING]
)
def test_example_of_every_verb_works(kind: Kind, verb: Verb, topic: str) -> None:
    _create(topic)
    with Publisher(os.environ["MBCTL_SERVER"]) as publisher:
        publisher.send_many(topic, [b"one"] * 10)
    before = {
        "publisher": [] if verb.name == "createTopic" else [f"peek {topic}"],
        # One that gives a message up at once, so that there is something parked.
        "subscriber": [
            f"subscribe {topic} --from earliest --max-deliveries 1",
            *([] if verb.name == "pull" else [f"pull {topic} --no-ack"]),
            *(["nack", f"pull {topic}"] if verb.name in ("release", "drop") else []),
        ],
    }
    example = verb.example.replace("orders", f"{topic}-2" if verb.name == "createTopic" else topic)
    lines = [*before[kind], example]
    ended = run_shell(kind, stdin="\n".join(lines).encode())
    assert (ended.code, "error" in ended.err) == (0, False), ended.err
