"""Every example of the README and of docs/ does what the page shows.

Each page has a directory of its own, and finds a server without any topics. Its blocks run
in order: ``console`` in a terminal, ``python`` in one namespace, with an ``output`` block
below it if it prints. A block is left out only where a comment above it says why.
"""

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import msgspec
import pytest
from broker_process import BrokerProcess
from docs_pages import Block, blocks_of, name_of, pages, take_apart
from docs_terminal import SHOWN_ADDRESS, Typist, looks_like, steps_of

from mbctl import Admin

# ``text`` is drawings and forms; there is nothing in it to run.
KINDS = ("console", "python", "output", "json", "text")

# Their blocks are bytes and drawings, and have tests of their own.
NORMATIVE = ("docs/protocol.md", "docs/storage-format.md")

PAGES = [page for page in pages() if name_of(page) not in NORMATIVE]
WITH_EXAMPLES = [
    page for page in PAGES if any(b.kind in ("console", "python", "json") for b in blocks_of(page))
]


@pytest.fixture(scope="module")
def pages_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A server that keeps its messages on disk, as one does that is started without options."""
    broker = BrokerProcess(data=tmp_path_factory.mktemp("broker"))
    yield broker
    broker.check()


@pytest.fixture
def broker(pages_broker: BrokerProcess) -> BrokerProcess:
    """The server, without any topics and so without subscriptions."""
    with Admin(pages_broker.address) as admin:
        for info in admin.topics():
            admin.delete_topic(info.topic)
    return pages_broker


@pytest.fixture
def typist(
    broker: BrokerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Typist]:
    """Terminals whose default server is the one without topics."""
    monkeypatch.chdir(tmp_path)
    typist = Typist(broker.address, tmp_path)
    yield typist
    typist.close()


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name_of)
def test_examples_of_page_do_what_it_shows(
    page: Path, broker: BrokerProcess, typist: Typist
) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    blocks = blocks_of(page)
    for block, after in zip_longest(blocks, blocks[1:]):
        if block.not_run is not None:
            continue
        if block.kind == "console":
            typist.run(block)
        elif block.kind == "python":
            expected = after.lines if after is not None and after.kind == "output" else []
            _run_python(block, expected, broker.address, namespace)
        elif block.kind == "json":
            msgspec.json.decode(block.text)


def _run_python(block: Block, expected: list[str], address: str, namespace: dict[str, Any]) -> None:
    source = block.text.replace(SHOWN_ADDRESS, address)
    # Blank lines before it, so that a traceback tells the line of the page.
    code = compile("\n" * (block.number - 1) + source, block.page, "exec")
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(code, namespace)
    shown = printed.getvalue().replace(address, SHOWN_ADDRESS)
    assert looks_like(expected, shown), f"{block.place} really prints:\n{shown}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_of_page_are_of_a_kind_that_is_checked(page: Path) -> None:
    blocks = blocks_of(page)
    assert [block.place for block in blocks if block.kind not in KINDS] == []
    kinds = ["", *[block.kind for block in blocks]]
    assert [a for a, b in pairwise(kinds) if b == "output" and a != "python"] == []


def test_every_example_is_run_by_default() -> None:
    blocks = [block for page in PAGES for block in blocks_of(page)]
    left_out = [block for block in blocks if block.not_run is not None]
    assert len(left_out) <= 4, [block.place for block in left_out]
    assert sum(block.kind in ("console", "python") for block in blocks) >= 30


# --- the checks themselves ------------------------------------------------------------------


def test_wrong_output_in_a_console_block_is_noticed(typist: Typist) -> None:
    typist.run(_block("console", "$ mbctl topic create orders", "created topic orders"))
    wrong = _block("console", "$ mbctl topic create bills", "created topic orders")
    with pytest.raises(AssertionError, match="created topic bills"):
        typist.run(wrong)


def test_shell_transcript_is_typed_and_compared(typist: Typist) -> None:
    typist.run(
        _block(
            "console",
            "$ mbctl publisher --name till",
            f"connected to {SHOWN_ADDRESS} as publisher till",
            "...",
            "publisher> createTopic orders",
            "created topic orders",
        )
    )
    wrong = _block("console", "publisher> send orders one", "orders #1  3 B")
    with pytest.raises(AssertionError, match="orders #0"):
        typist.run(wrong)


def test_ctrl_c_is_pressed_when_what_is_above_it_has_appeared(typist: Typist) -> None:
    typist.run(
        _block("console", "$ sh -c 'echo one; exec sleep 60'", "one", "^C", "$ echo $?", "130")
    )


def test_wrong_output_of_a_python_block_is_noticed() -> None:
    block = _block("python", "print('one')")
    _run_python(block, ["one"], SHOWN_ADDRESS, {})
    with pytest.raises(AssertionError, match="one"):
        _run_python(block, ["two"], SHOWN_ADDRESS, {})


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        (["one"], "one\n", True),
        (["one"], "one  \n", True),
        (["one"], "two\n", False),
        (["one"], "one\ntwo\n", False),
        (["one", "..."], "one\ntwo\nthree\n", True),
        (["..."], "", True),
        (["at ... o'clock"], "at 12 o'clock\n", True),
        (["at ... o'clock"], "at 12\n", False),
        (["12:00:00.000 a"], "23:59:59.999 a\n", True),
        (["12:00:00.000 a"], "23:59:59.999 b\n", False),
        (["at 2026-01-02T03:04:05.678Z"], "at 2027-01-02T03:04:05.678901234Z\n", True),
        (["9.9 s ago"], "100 ms ago\n", True),
        (["9.9 s ago"], "never\n", False),
        ([], "", True),
        ([], "one\n", False),
    ],
)
def test_comparing_allows_dots_and_other_times_and_nothing_else(
    expected: list[str], actual: str, same: bool
) -> None:
    assert looks_like(expected, actual) == same


def test_page_is_taken_apart_into_blocks_with_their_places() -> None:
    text = "a\n\n```console\n$ x\ny\n```\nb\n<!-- not run: it waits -->\n```python\nz\n```\n"
    blocks = take_apart("page", text)
    assert [(b.kind, b.number, b.not_run) for b in blocks] == [
        ("console", 4, None),
        ("python", 10, "it waits"),
    ]
    (step,) = steps_of(blocks[0])
    assert (step.prompt, step.line, step.expected) == ("$ ", "x", ["y"])
    with pytest.raises(AssertionError, match="not closed"):
        take_apart("page", "```console\n$ x\n")


def _block(kind: str, *lines: str) -> Block:
    return Block(page="page", kind=kind, number=1, lines=list(lines), not_run=None)
