"""How the bounds of a pull are filled."""

import pytest

from mbctl.core.grant import _PIECES_MAX, PIECE_BYTES, Room
from mbctl.core.index import BatchIndex


def index_of(*batches: tuple[int, int]) -> BatchIndex:
    """Batches of these counts and sizes."""
    index = BatchIndex()
    for count, size in batches:
        index.append(count, size, 0)
    return index


def filled(room: Room, index: BatchIndex, first: int = 0) -> list[tuple[int, int]]:
    """The ranges of the pieces that go in."""
    room.fill(index, first, index.next_offset, 1)
    return [(piece.first, piece.next) for piece in room.pieces]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (1, [(0, 1)]),
        (3, [(0, 3)]),
        (4, [(0, 3), (3, 4)]),
        (6, [(0, 3), (3, 5), (5, 6)]),
        (7, [(0, 3), (3, 5), (5, 7)]),
        (99, [(0, 3), (3, 5), (5, 9)]),
    ],
)
def test_room_takes_no_more_messages_than_asked_for(messages, expected) -> None:
    assert filled(Room(messages, 10_000), index_of((3, 30), (2, 20), (4, 40))) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (62, [(0, 3)]),
        (62 + 51, [(0, 3)]),
        (62 + 52, [(0, 3), (3, 5)]),
        (10_000, [(0, 3), (3, 5), (5, 9)]),
    ],
    ids=["the first", "one byte less than two", "two", "all"],
)
def test_later_batches_go_in_whole_or_not_at_all(size, expected) -> None:
    assert filled(Room(99, size), index_of((3, 30), (2, 20), (4, 40))) == expected


@pytest.mark.parametrize(
    ("size", "count"), [(1, 1), (41, 1), (42, 1), (51, 1), (52, 2), (61, 2), (62, 3)]
)
def test_of_the_first_batch_goes_in_what_fits_and_at_least_one_message(size, count) -> None:
    assert filled(Room(99, size), index_of((3, 30), (2, 20))) == [(0, count)]


def test_the_rest_of_a_batch_is_measured_by_its_share() -> None:
    index = index_of((100, 1_000), (2, 20))
    room = Room(99, 10 * 10 + PIECE_BYTES + 20 + PIECE_BYTES)
    assert filled(room, index, first=90) == [(90, 100), (100, 102)]


def test_pieces_know_the_batch_they_are_part_of() -> None:
    index = index_of((3, 30))
    index.set_last_place(77)
    room = Room(1, 10_000)
    assert room.fill(index, 1, 3, deliveries=4) == 2
    [piece] = room.pieces
    assert (piece.place, piece.batch_first, piece.batch_next) == (77, 0, 3)
    assert (piece.first, piece.next, piece.deliveries) == (1, 2, 4)


def test_nothing_goes_into_a_room_from_an_empty_range() -> None:
    room = Room(5, 5)
    assert room.fill(BatchIndex(), 0, 0, 1) == 0
    assert room.pieces == []


def test_a_backlog_of_single_messages_is_granted_in_bounded_portions() -> None:
    index = index_of(*[(1, 10)] * (_PIECES_MAX + 10))
    room = Room(1_000_000, 1 << 30)
    assert room.fill(index, 0, index.next_offset, 1) == _PIECES_MAX
    assert room.is_full
