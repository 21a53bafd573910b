"""The ledger itself: every way in which a broker may be wrong is found in its accounts."""

from pathlib import Path

import msgspec
import pytest
from crashes.books import COUNTS, Books
from crashes.ledger import SPOILED, Account, AccountReader, Entry, payload, read_payload

Line = tuple[str, list[object]]
SUBSCRIBERS = {"t": ["prompt-0", "carrier-0"], "u": ["prompt-0", "carrier-0"]}


def entry(number: int, offset: int, *, first: int | None = None, count: int = 1) -> Entry:
    """Message ``number`` of publisher 7, as it was received at ``offset``."""
    return Entry(offset, 7, number, number if first is None else first, count, 1000 + number)


def got(actor: str, *entries: Entry, topic: str = "t") -> Line:
    return actor, ["got", topic, 1, [msgspec.structs.astuple(one) for one in entries]]


def sent(number: int, offset: int, *, count: int = 1) -> list[Line]:
    """A batch that was acknowledged."""
    return [
        ("single-7", ["send", "t", number, count]),
        ("single-7", ["stored", "t", number, count, offset]),
    ]


def everybody_got(*entries: Entry) -> list[Line]:
    return [got(actor, *entries) for actor in SUBSCRIBERS["t"]]


def counts(lines: list[Line], kept: list[Entry] | None = None) -> dict[str, int]:
    """What the books say is wrong, if ``kept`` is what can still be read."""
    books = Books()
    books.enter(lines)
    books.compare_offsets("t", kept or [])
    books.compare_kept(books.stored(), {"t": kept or []}, SUBSCRIBERS)
    books.compare_sends()
    books.compare_delivered(SUBSCRIBERS)
    assert books.is_clean == (not books.examples())
    return {name: count for name, count in books.counts.items() if count}


ONE, TWO = entry(1, 0), entry(2, 1)
HALF = entry(1, 0, count=2)
SENT = [*sent(1, 0), *sent(2, 1)]
REFUSED: list[Line] = [
    ("single-7", ["send", "t", 3, 1]),
    ("single-7", ["refused", "t", 3, 1, "TopicFull"]),
]
UNKNOWN: list[Line] = [
    ("single-7", ["send", "t", 3, 1]),
    ("single-7", ["unknown", "t", 3, 1]),
]
CONFIRMED: Line = ("prompt-0", ["confirmed", "t", 1, [[0, 1]]])


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ([*SENT, *everybody_got(ONE, TWO)], []),
        ([*SENT, *everybody_got(ONE, TWO)], [ONE, TWO]),
        ([*SENT, *everybody_got(ONE, TWO), *everybody_got(TWO)], []),
        ([*SENT, *everybody_got(ONE, TWO), CONFIRMED, got("carrier-0", ONE)], []),
        ([*SENT, *REFUSED, *everybody_got(ONE, TWO)], []),
        ([*SENT, *UNKNOWN, *everybody_got(ONE, TWO)], []),
        ([*SENT, *UNKNOWN, *everybody_got(ONE, TWO, entry(3, 2))], []),
        ([*sent(1, 0, count=2), *everybody_got(HALF, entry(2, 1, first=1, count=2))], []),
    ],
)
def test_ledger_of_an_honest_broker_is_clean(lines: list[Line], kept: list[Entry]) -> None:
    assert counts(lines, kept) == {}


@pytest.mark.parametrize(
    ("wrong", "lines", "kept"),
    [
        pytest.param({"lost": 1, "undelivered": 1}, SENT[:2], [], id="lost"),
        pytest.param(
            {"lost": 1, "undelivered": 1},
            [*SENT[:2], got("prompt-0", ONE)],
            [],
            id="lost-to-one-subscriber",
        ),
        pytest.param({"undelivered": 1}, SENT[:2], [ONE], id="undelivered"),
        pytest.param(
            {"doubled": 1}, [*SENT[:2], *everybody_got(ONE, entry(1, 1))], [], id="doubled"
        ),
        pytest.param(
            {"reordered": 1, "misplaced": 2},
            [*SENT, *everybody_got(entry(2, 0), entry(1, 1))],
            [],
            id="reordered",
        ),
        pytest.param(
            {"rebound": 1, "lost": 1, "undelivered": 1, "misplaced": 1},
            [*SENT, got("tail-0", entry(2, 0)), *everybody_got(ONE)],
            [],
            id="rebound",
        ),
        pytest.param(
            {"undone": 1},
            [*SENT[:2], *everybody_got(ONE), CONFIRMED, got("prompt-0", ONE)],
            [],
            id="undone",
        ),
        pytest.param(
            {"partial": 1},
            [("single-7", ["send", "t", 1, 2]), *everybody_got(HALF)],
            [],
            id="partial",
        ),
        pytest.param(
            {"partial": 1},
            [*sent(1, 0, count=2), *everybody_got(HALF, entry(2, 2, first=1, count=2))],
            [],
            id="in-two-pieces",
        ),
        pytest.param({"unrefused": 1}, [*REFUSED, *everybody_got(entry(3, 0))], [], id="unrefused"),
        pytest.param({"unsent": 1}, everybody_got(ONE), [], id="unsent"),
        pytest.param(
            {"unsent": 1, "lost": 1, "undelivered": 1},
            [*SENT[:2], got("prompt-0", ONE, topic="u"), got("carrier-0", ONE, topic="u")],
            [],
            id="in-another-topic",
        ),
        pytest.param(
            {"spoiled": 1},
            [*SENT[:2], *everybody_got(ONE), got("tail-0", Entry(1, SPOILED, 0, 0, 0, 0))],
            [],
            id="spoiled",
        ),
        pytest.param(
            {"hole": 1, "misplaced": 1},
            [*SENT, *everybody_got(ONE, entry(2, 2))],
            [ONE, entry(2, 2)],
            id="hole",
        ),
        pytest.param({"misplaced": 1}, [*sent(1, 5), *everybody_got(ONE)], [], id="misplaced"),
    ],
)
def test_ledger_finds_what_is_wrong(
    wrong: dict[str, int], lines: list[Line], kept: list[Entry]
) -> None:
    assert counts(lines, kept) == wrong
    assert set(wrong) <= set(COUNTS)


def test_every_kind_of_wrong_has_its_row_above() -> None:
    marks = test_ledger_finds_what_is_wrong.pytestmark  # type: ignore[attr-defined]
    found = {name for row in marks[0].args[1] for name in row.values[0]}
    assert found == set(COUNTS)


def test_payload_says_who_sent_it_and_notices_a_flipped_bit() -> None:
    content = payload(3, 41, (40, 5), 100)
    read = read_payload(content, 9)
    assert (read.offset, read.publisher, read.number, read.first, read.count) == (9, 3, 41, 40, 5)
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 0x10
        assert read_payload(bytes(flipped), 9).publisher == SPOILED
    for size in range(len(content)):
        assert read_payload(content[:size], 9).publisher == SPOILED


def test_accounts_are_read_line_by_line_while_they_are_written(tmp_path: Path) -> None:
    account = Account(tmp_path, "single-7")
    reader = AccountReader(tmp_path)
    account.send("t", 1, 2)
    assert reader.read() == [("single-7", ["send", "t", 1, 2])]
    account.stored("t", 1, 2, 30)
    account.refused("t", 3, 1, "DiskFull")
    account.unknown("t", 4, 1)
    with (tmp_path / "single-7.account").open("ab") as file:
        file.write(b'["send","t",5')
    assert [line[0] for _, line in reader.read()] == ["stored", "refused", "unknown"]
    with (tmp_path / "single-7.account").open("ab") as file:
        file.write(b",1]\n")
    assert reader.read() == [("single-7", ["send", "t", 5, 1])]
    assert reader.read() == []
    account.close()
