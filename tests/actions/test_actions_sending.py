"""Lines of a stream become messages, however the stream is cut into reads."""

import io
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbctl.actions.sending import _batches, _is_ready
from mbctl.errors import MessageTooLarge


class Pieces(io.RawIOBase):
    """A stream that gives its pieces one by one, as a pipe does."""

    def __init__(self, pieces: list[bytes]) -> None:
        # An empty read would mean the end.
        self._pieces = iter([piece for piece in pieces if piece])

    def read1(self, _size: int) -> bytes:
        return next(self._pieces, b"")


def lines_of(pieces: list[bytes], limit: int = 1_000_000) -> list[bytes]:
    stream = Pieces(pieces)
    return [line for batch in _batches(stream, limit) for line in batch]  # type: ignore[arg-type]


LINE_ENDS = st.lists(st.sampled_from([b"\n", b"a", b"\r", b"bc\n", b"\n\n", b"\xe2\x80\xa8", b""]))


@given(LINE_ENDS)
def test_lines_are_what_stands_between_newlines(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    expected = whole.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert lines_of(pieces) == expected
    assert lines_of([whole]) == expected
    assert lines_of([whole[i : i + 1] for i in range(len(whole))]) == expected


def test_lines_of_one_read_are_a_batch_up_to_a_thousand() -> None:
    stream = io.BytesIO(b"x\n" * 2_500)
    assert [len(batch) for batch in _batches(stream, 10)] == [1_000, 1_000, 500]


def test_lines_are_given_before_more_is_read() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"one\ntwo\nunfin"
        raise AssertionError("more was read before the first lines were used")

    stream = Pieces([])
    stream._pieces = pieces()
    assert next(_batches(stream, 10)) == [b"one", b"two"]  # type: ignore[arg-type]


def test_a_stream_without_newlines_is_refused_at_the_limit() -> None:
    assert lines_of([b"x" * 5, b"x" * 5], limit=10) == [b"x" * 10]
    with pytest.raises(MessageTooLarge, match="the line has 11 bytes and the limit is 10"):
        lines_of([b"x" * 5, b"x" * 6, b"never read"], limit=10)


def test_a_pipe_is_ready_when_it_holds_something_or_has_ended() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stream:
        assert not _is_ready(stream)
        os.write(write, b"x")
        assert _is_ready(stream)
        stream.read1(1)
        os.close(write)
        assert _is_ready(stream)


def test_bytes_in_memory_are_always_ready() -> None:
    assert _is_ready(io.BytesIO())
