"""Cutting parts out of batches."""

import pytest

from mbctl import batch as batches
from mbctl.core.grant import Piece
from mbctl.engine import cuts as module
from mbctl.engine.cuts import Cuts


def piece(first: int, next: int, batch: tuple[int, int] = (0, 10), place: int = 1) -> Piece:
    return Piece(place, batch[0], batch[1], first, next, 777, 1)


def payloads(reply: list[tuple[int, int, int, object]]) -> list[list[bytes]]:
    return [batches.decode(body).payloads for _, _, _, body in reply]  # type: ignore[arg-type]


TEN = [b"%d" % number for number in range(10)]
BODY = batches.encode(TEN)


def test_a_whole_batch_is_passed_on_as_it_is() -> None:
    reply, over = Cuts().pieces([piece(0, 10)], [BODY], 1_000)
    assert reply == [(0, 777, 1, BODY)]
    assert reply[0][3] is BODY
    assert over == []


def test_a_part_is_cut_with_its_keys_and_headers() -> None:
    keys, headers = [None, *TEN[1:]], [{"n": str(number)} for number in range(10)]
    body = batches.encode(TEN, keys, headers)
    [(first, _, _, part)], over = Cuts().pieces([piece(3, 5)], [body], 1_000)
    columns = batches.decode(part)
    assert (first, over) == (3, [])
    assert columns.payloads == [b"3", b"4"]
    assert columns.keys == [b"3", b"4"]
    assert columns.headers == [{"n": "3"}, {"n": "4"}]


def test_offsets_of_a_batch_that_does_not_begin_at_0_are_cut_right() -> None:
    reply, _ = Cuts().pieces([piece(103, 105, (100, 110))], [BODY], 1_000)
    assert payloads(reply) == [[b"3", b"4"]]


def test_what_does_not_fit_is_told_with_all_that_comes_after_it() -> None:
    body = batches.encode([b"x" * 100] * 10)
    granted = [piece(2, 8), piece(10, 12, (10, 12), 2), piece(12, 14, (12, 14), 3)]
    small = batches.encode([b"a", b"b"])
    reply, over = Cuts().pieces(granted, [body, small, small], 32 + 16 + 3 * 105)
    assert [len(messages) for messages in payloads(reply)] == [3]
    assert over == [(5, 8), (10, 12), (12, 14)]


def test_a_whole_batch_after_a_part_that_was_too_large_waits() -> None:
    body = batches.encode([b"x" * 1_000] * 9 + [b"y"])
    large = batches.encode([b"z" * 900])
    granted = [piece(0, 1), piece(10, 11, (10, 11), 2)]
    reply, over = Cuts().pieces(granted, [body, large], 1_200)
    assert len(reply) == 1
    assert over == [(10, 11)]


def test_a_part_of_which_not_one_message_fits_waits_unless_it_is_the_first() -> None:
    body = batches.encode([b"x" * 1_000] * 10)
    first, second = piece(0, 5), piece(14, 16, (10, 20), 2)
    reply, over = Cuts().pieces([first, second], [body, body], 5)
    assert [len(messages) for messages in payloads(reply)] == [1]
    assert over == [(1, 5), (14, 16)]
    reply, over = Cuts().pieces([piece(0, 2), second], [body, body], 2_200)
    assert [len(messages) for messages in payloads(reply)] == [2]
    assert over == [(14, 16)]


def test_a_batch_is_decoded_once_while_it_is_cut_bit_by_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded = []
    decode = batches.decode

    def counting(body: bytes) -> batches.Columns:
        decoded.append(body)
        return decode(body)

    monkeypatch.setattr(module.batches, "decode", counting)
    cuts = Cuts()
    for number in range(9):
        cuts.pieces([piece(number, number + 1)], [BODY], 1_000)
    assert len(decoded) == 1


def test_decoded_batches_are_kept_within_a_bound_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_KEPT_BYTES", 4 * (len(BODY) + 10 * module._PLAIN_BYTES))
    cuts = Cuts()
    for place in (1, 2, 3, 4, 1, 5, 6):
        cuts.pieces([piece(0, 1, place=place)], [BODY], 1_000)
    assert list(cuts._kept) == [4, 1, 5, 6]
    assert cuts._kept_bytes == module._KEPT_BYTES


def test_a_batch_with_headers_counts_for_what_it_is_in_memory() -> None:
    plain, full = Cuts(), Cuts()
    plain.pieces([piece(0, 1)], [BODY], 1_000)
    full.pieces([piece(0, 1)], [batches.encode(TEN, None, [None] * 10)], 1_000)
    assert full._kept_bytes > plain._kept_bytes + 10 * 300
