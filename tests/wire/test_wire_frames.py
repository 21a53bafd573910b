"""A stream cut into frames, however it arrives and whatever it claims, by both readers."""

import random
import tracemalloc
from collections.abc import Callable

import pytest

from mbctl.errors import ProtocolError
from mbctl.wire.frames import BEGIN_BYTES, FrameBuffer, FrameReader, frame

Reader = FrameReader | FrameBuffer
Way = Callable[..., list[bytes]]

CONTENTS = [b"a", b"bc" * 40, b"\x00" * 300, b"d", b"e" * 70_000]
STREAM = b"".join(map(frame, CONTENTS))

each_kind = pytest.mark.parametrize("kind", [FrameReader, FrameBuffer])


def taken(reader: Reader, *pieces: bytes) -> list[bytes]:
    """The frames that come of ``pieces``, each fed from memory that is used again after it."""
    frames = []
    for piece in pieces:
        lent = bytearray(piece)
        reader.feed(memoryview(lent))
        while (content := reader.next_frame()) is not None:
            frames.append(bytes(content))
        reader.keep()
        lent[:] = b"!" * len(lent)
    return frames


def received(reader: Reader, *pieces: bytes) -> list[bytes]:
    """The same, received where the reader wants it, and fed where it does not mind."""
    frames = []
    for piece in pieces:
        left = piece
        while left:
            room = reader.room()
            if room is None:
                frames += taken(reader, left)
                break
            part = left[: len(room)]
            room[: len(part)] = part
            del room
            reader.received(len(part))
            left = left[len(part) :]
            while (content := reader.next_frame()) is not None:
                frames.append(bytes(content))
            reader.keep()
    return frames


WAYS = [taken, received]
each_way = pytest.mark.parametrize("way", WAYS)


def random_pieces(data: bytes, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    cuts = sorted(chance.randrange(len(data)) for _ in range(chance.randrange(60)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@each_kind
@each_way
def test_frames_come_out_of_one_piece(kind: type[Reader], way: Way) -> None:
    assert way(kind(70_000), STREAM) == CONTENTS


@each_kind
@each_way
def test_frames_come_out_byte_by_byte(kind: type[Reader], way: Way) -> None:
    reader = kind(70_000)
    assert way(reader, *(STREAM[at : at + 1] for at in range(len(STREAM)))) == CONTENTS
    assert reader.buffered == 0


@pytest.mark.parametrize("seed", range(20))
@each_kind
@each_way
def test_frames_come_out_of_random_pieces(kind: type[Reader], way: Way, seed: int) -> None:
    assert way(kind(70_000), *random_pieces(STREAM, seed)) == CONTENTS


@pytest.mark.parametrize("tail", [b"\x00", b"\x00\x00\x00\x05", b"\x00\x00\x00\x05four"])
@each_kind
@each_way
def test_tail_waits_for_the_rest_of_its_frame(kind: type[Reader], way: Way, tail: bytes) -> None:
    reader = kind(70_000)
    assert way(reader, STREAM + tail) == CONTENTS
    assert reader.buffered == len(tail)
    rest = b"\x00\x00\x00\x05four!"[len(tail) :]
    assert way(reader, rest) == [b"four!"]


@each_kind
def test_pieces_may_come_before_frames_are_taken(kind: type[Reader]) -> None:
    reader = kind(70_000)
    for piece in random_pieces(STREAM, 5):
        reader.feed(piece)
    assert reader.buffered == len(STREAM)
    assert taken(reader, b"") == CONTENTS


@each_kind
def test_piece_may_come_when_only_some_frames_are_taken(kind: type[Reader]) -> None:
    reader = kind(70_000)
    reader.feed(STREAM)
    assert reader.next_frame() == CONTENTS[0]
    assert reader.buffered == len(STREAM) - len(frame(CONTENTS[0]))
    assert taken(reader, STREAM) == CONTENTS[1:] + CONTENTS


@each_kind
def test_nothing_fed_is_no_frame(kind: type[Reader]) -> None:
    reader = kind(5)
    assert reader.next_frame() is None
    assert taken(reader, b"") == []


@pytest.mark.parametrize("length", [1, 5])
@each_kind
def test_length_within_the_limit_is_taken(kind: type[Reader], length: int) -> None:
    assert taken(kind(5), frame(b"x" * length)) == [b"x" * length]


@pytest.mark.parametrize("length", [0, 6, 2**31 - 1, 2**31, 2**32 - 1])
@each_kind
def test_length_out_of_bounds_is_an_error_before_its_content_comes(
    kind: type[Reader], length: int
) -> None:
    reader = kind(5)
    reader.feed(length.to_bytes(4, "big"))
    with pytest.raises(ProtocolError, match=f"{length} bytes; 1 to 5"):
        reader.next_frame()


@each_kind
def test_lost_framing_stays_lost(kind: type[Reader]) -> None:
    reader = kind(5)
    reader.feed(b"\x00\x00\x00\x00")
    for _ in range(2):
        with pytest.raises(ProtocolError):
            reader.next_frame()
        reader.feed(frame(b"good"))


@each_kind
def test_limit_may_change_between_frames(kind: type[Reader]) -> None:
    reader = kind(2)
    reader.feed(frame(b"ab") + frame(b"abc") + frame(b"abcd"))
    assert reader.next_frame() == b"ab"
    reader.limit = 3
    assert reader.next_frame() == b"abc"
    with pytest.raises(ProtocolError):
        reader.next_frame()


def test_frame_owns_exactly_its_bytes() -> None:
    data = frame(b"one") + frame(b"two")
    reader = FrameReader(9)
    reader.feed(data)
    content = reader.next_frame()
    assert type(content) is bytes
    assert content == b"one"


def held(reader: FrameReader, *pieces: bytes) -> int:
    """The memory that ``reader`` keeps after it was fed and its frames were taken."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        taken(reader, *(bytes(bytearray(piece)) for piece in pieces))
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_claimed_length_takes_no_memory() -> None:
    assert held(FrameReader(2**32), b"\xff\xff\xff\xffabc") < 4096


def test_large_frame_in_pieces_leaves_nothing_behind() -> None:
    large = frame(b"x" * 1_000_000)
    assert held(FrameReader(1_000_000), large[:7], large[7:600_000], large[600_000:]) < 4096


def test_few_bytes_do_not_hold_the_large_piece_they_came_with() -> None:
    large = frame(b"x" * 1_000_000)
    assert held(FrameReader(1_000_000), large + b"\x00") < 4096
    assert held(FrameReader(1_000_000), large[:600_000], large[600_000:] + b"\x00") < 4096


def dirty(size: int) -> bytearray:
    """Memory that somebody else has used."""
    return bytearray(b"?" * size)


def begun(reader: FrameReader, data: bytes, chance: random.Random) -> list[bytes]:
    """The frames of ``data``, received as a server does: the beginning of a large one first."""
    frames = []
    while data:
        room = reader.room()
        size = chance.randrange(1, 300_000)
        if room is not None:
            size = min(size, len(room))
            room[:size] = data[:size]
            reader.received(size)
        else:
            size = min(size, BEGIN_BYTES if reader.expected else size)
            reader.feed(memoryview(bytearray(data[:size])))
        del room
        data = data[size:]
        while (content := reader.next_frame()) is not None:
            frames.append(bytes(content))
        reader.keep()
    return frames


@pytest.mark.parametrize("seed", range(30))
def test_frames_are_the_same_where_a_large_one_is_expected(seed: int) -> None:
    chance = random.Random(seed)
    sizes = [1, 100, 2_000, 4_090, 40_000, 131_072, 200_000, 1_500_000]
    contents = [chance.randbytes(chance.choice(sizes)) for _ in range(25)]
    reader = FrameReader(2_000_000, dirty)
    assert begun(reader, b"".join(map(frame, contents)), chance) == contents
    assert reader.buffered == 0


def test_a_large_frame_is_expected_after_one_and_not_after_a_small_one() -> None:
    reader = FrameReader(2_000_000)
    large, small = frame(b"x" * 200_000), frame(b"x" * 100_000)
    for data, expected in ((large, 200_000), (large, 200_000), (small, 0)):
        assert taken(reader, data)
        assert reader.expected == expected
    assert taken(reader, frame(b"x" * 1_500_000))
    assert reader.expected == 1024 * 1024


def test_what_is_expected_is_received_where_it_stays() -> None:
    reader = FrameReader(2_000_000)
    data = frame(b"x" * 200_000)
    assert taken(reader, data)
    assert taken(reader, data[:BEGIN_BYTES]) == []
    room = reader.room()
    assert room is not None
    assert len(room) == len(data) - BEGIN_BYTES
    reader.drop()
    assert reader.expected == 0
    # Who has sent no such frame has only twice the room of what has come.
    assert taken(reader, data[:BEGIN_BYTES]) == []
    room = reader.room()
    assert room is not None
    assert len(room) < BEGIN_BYTES
