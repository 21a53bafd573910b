"""What is kept in memory of the batches appended last."""

from mbctl.journal.reader import Tail

SIZE = 100
"""Of each batch; the one at place n holds the byte n."""


def tail_of(count: int, max_bytes: int, *, is_read: bool) -> Tail:
    """A tail to which so many batches were added, one after the other, and written."""
    tail = Tail(max_bytes)
    for place in range(count):
        tail.add(place, bytes([place]) * SIZE)
        tail.wrote_to(place + 1)
        if is_read:
            tail.get(place)
    return tail


def kept(tail: Tail, count: int) -> list[int]:
    """The places, of so many, whose batches are there."""
    places = [place for place in range(count) if tail.get(place) is not None]
    assert all(tail.get(place) == bytes([place]) * SIZE for place in places)
    return places


def test_the_newest_are_kept_while_they_are_read() -> None:
    assert kept(tail_of(30, 8 * SIZE, is_read=True), 30) == [*range(22, 30)]


def test_a_quarter_is_kept_while_nobody_reads() -> None:
    assert kept(tail_of(30, 8 * SIZE, is_read=False), 30) == [28, 29]


def test_who_reads_again_has_more_kept_from_then_on() -> None:
    tail = tail_of(30, 8 * SIZE, is_read=False)
    for place in range(30, 40):
        tail.get(place)
        tail.add(place, bytes([place]) * SIZE)
        tail.wrote_to(place + 1)
    assert kept(tail, 40) == [*range(32, 40)]


def test_what_is_not_written_is_kept_beyond_any_bound_and_counts_from_when_it_is() -> None:
    tail = tail_of(4, 4 * SIZE, is_read=True)
    for place in range(4, 24):
        tail.add(place, bytes([place]) * SIZE)
    assert kept(tail, 24) == [*range(24)]
    tail.wrote_to(6)
    assert kept(tail, 24) == [*range(2, 24)]
    # However much it is at once: nobody could read it before.
    tail.wrote_to(24)
    tail.add(24, bytes([24]) * SIZE)
    tail.wrote_to(25)
    assert kept(tail, 25) == [24]


def test_what_nobody_will_read_is_let_go_of_once_it_is_written() -> None:
    tail = tail_of(4, 8 * SIZE, is_read=True)
    tail.add(4, bytes([4]) * SIZE)
    tail.remove(1)
    tail.remove(4)
    tail.remove(9)
    assert kept(tail, 5) == [0, 2, 3, 4]
    # Its room is there for others.
    for place in range(5, 10):
        tail.add(place, bytes([place]) * SIZE)
        tail.get(place)
        tail.wrote_to(place + 1)
    assert kept(tail, 10) == [2, 3, *range(4, 10)]
