"""Seen from outside, call by call: written, then synced, and only then acknowledged."""

import threading
from pathlib import Path

import pytest
from crashes.processes import wait_until
from durability_parts import StartServer
from strace_oracle import LAST_LINE, STRACE, Judge, read_trace

from mbctl import Publisher
from mbctl.model import KIB
from mbctl.wire.messages import Sent, encode, encode_send

# --- the oracle -----------------------------------------------------------------------------------

SEGMENT, SOCKET = "3</d/0000000001.segment>", "5<socket:[7]>"


def hexed(content: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in content)


def line(thread: int, name: str, target: str, content: bytes | None, result: int) -> str:
    """A line as strace writes it with the options that we use."""
    number, _, path = target.rstrip(">").partition("<")
    shown = "" if content is None else f', "{hexed(content)}", {len(content)}'
    return f"{thread} 17.0 {name}({number}<{hexed(path.encode())}>{shown}) = {result}\n"


BATCH = b"\x91\x91\xc4\x03<1>"
REQUEST = b"".join(encode_send(9, "t", 1, 0, BATCH))
READ = line(1, "read", SOCKET, REQUEST, len(REQUEST))
WRITE = line(2, "pwritev2", SEGMENT, b"head<1>tail", 11)
OTHER = line(4, "pwritev2", SEGMENT, b"head<1>tail", 11)
SYNC = line(2, "fdatasync", SEGMENT, None, 0)
ANSWER = encode(Sent(9, 0, 1))
ACKNOWLEDGE = line(1, "write", SOCKET, ANSWER, len(ANSWER))


def begin_of(text: str) -> str:
    return text.partition(") = ")[0] + " <unfinished ...>\n"


def end_of(text: str) -> str:
    head, _, result = text.partition(") = ")
    thread, _, rest = head.partition(" ")
    return f"{thread} 18.0 <... {rest.partition(' ')[2].partition('(')[0]} resumed>) = {result}"


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([READ, WRITE, SYNC, ACKNOWLEDGE], id="one-thread-at-a-time"),
        pytest.param(
            [READ, WRITE, begin_of(SYNC), end_of(SYNC), begin_of(ACKNOWLEDGE), end_of(ACKNOWLEDGE)],
            id="in-two-lines-each",
        ),
        pytest.param([READ, WRITE, SYNC.replace("= 0", "= -1 EIO"), SYNC, ACKNOWLEDGE], id="retry"),
    ],
)
def test_trace_of_an_honest_server_is_found_in_order(lines: list[str]) -> None:
    judge = Judge().look(read_trace(lines))
    assert (judge.acknowledged, judge.violations) == (1, [])


@pytest.mark.parametrize(
    ("lines", "violation"),
    [
        pytest.param([READ, WRITE, ACKNOWLEDGE, SYNC], "synced", id="acknowledged-early"),
        pytest.param([READ, ACKNOWLEDGE, WRITE, SYNC], "written", id="acknowledged-at-once"),
        pytest.param([READ, WRITE, ACKNOWLEDGE], "synced", id="not-synced"),
        pytest.param([READ, SYNC, WRITE, ACKNOWLEDGE], "synced", id="synced-before"),
        pytest.param(
            [READ, WRITE, SYNC.replace("= 0", "= -1 EIO"), ACKNOWLEDGE], "synced", id="sync-failed"
        ),
        pytest.param(
            [READ, WRITE, SYNC.replace(hexed(b"1.seg"), hexed(b"2.seg")), ACKNOWLEDGE],
            "synced",
            id="another-file-synced",
        ),
        pytest.param(
            [READ, begin_of(SYNC), begin_of(OTHER), end_of(OTHER), end_of(SYNC), ACKNOWLEDGE],
            "synced",
            id="written-during-the-sync",
        ),
        pytest.param(
            [READ, WRITE, begin_of(SYNC), begin_of(ACKNOWLEDGE), end_of(SYNC), end_of(ACKNOWLEDGE)],
            "synced",
            id="acknowledged-during-the-sync",
        ),
    ],
)
def test_trace_of_a_dishonest_server_is_found_out(lines: list[str], violation: str) -> None:
    judge = Judge().look(read_trace(lines))
    assert judge.acknowledged == 1
    (found,) = judge.violations
    assert found == f"<1> was acknowledged before it was {violation}"


# --- real servers ---------------------------------------------------------------------------------


def send_all(address: str, topic: str, first: int, counts: tuple[int, int]) -> None:
    """Send marked messages: some one at a time, the rest through a pipeline."""
    single, piped = counts
    with Publisher(address) as publisher:
        publisher.create_topic(topic)
        for number in range(first, first + single):
            publisher.send(topic, b"<%d>" % number)
        with publisher.pipeline() as pipe:
            for number in range(first + single, first + single + piped):
                pipe.send_many(topic, [b"<%d>" % number])


def judge_server(
    start_server: StartServer,
    directory: Path,
    counts: tuple[int, int],
    **settings: object,
) -> Judge:
    """Judge a server that two publishers send ``counts`` of messages to."""
    trace = directory / "trace"
    server = start_server("strace", *STRACE, "-o", str(trace), segment_bytes=256 * KIB, **settings)
    publishers = [
        threading.Thread(target=send_all, args=(server.address, f"t{n}", n * sum(counts), counts))
        for n in range(2)
    ]
    for publisher in publishers:
        publisher.start()
    for publisher in publishers:
        publisher.join()
    assert server.stop() == 0
    with trace.open() as file:
        wait_until(lambda: LAST_LINE in trace.read_text()[-200:])
        judge = Judge().look(read_trace(file))
    assert judge.acknowledged == 2 * sum(counts)
    return judge


@pytest.mark.usefixtures("strace")
def test_no_acknowledgement_leaves_before_its_sync(
    start_server: StartServer, tmp_path: Path
) -> None:
    assert judge_server(start_server, tmp_path, (50, 300)).violations == []


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
def test_a_server_that_acknowledges_early_is_seen_to_do_so(
    start_server: StartServer, tmp_path: Path
) -> None:
    judge = judge_server(start_server, tmp_path, (5, 10), acknowledges_early=True)
    assert len(judge.violations) >= 10


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
def test_a_server_that_does_not_sync_is_seen_not_to(
    start_server: StartServer, tmp_path: Path
) -> None:
    judge = judge_server(start_server, tmp_path, (5, 10), sync="never")
    assert len(judge.violations) == 30


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
def test_no_acknowledgement_of_many_leaves_before_its_sync(
    start_server: StartServer, tmp_path: Path
) -> None:
    assert judge_server(start_server, tmp_path, (1_000, 20_000)).violations == []
