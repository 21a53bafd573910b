"""How a script is cut into lines."""

import io

import pytest

from mbctl.shell import batch
from mbctl.shell.batch import Line, read_lines


@pytest.mark.parametrize(
    ("script", "contents"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\n\nb", [b"a", b"", b"b"]),
        (b"a\r\nb\rc\n", [b"a\r", b"b\rc"]),
        (b"a\x0bb\x0cc\xe2\x80\xa8d\x85\n", [b"a\x0bb\x0cc\xe2\x80\xa8d\x85"]),
        (b"\xff\x00 \n", [b"\xff\x00 "]),
    ],
)
def test_only_a_line_feed_ends_a_line(script: bytes, contents: list[bytes]) -> None:
    assert [line.content for line in read_lines("x", io.BytesIO(script))] == contents


def test_line_knows_its_place() -> None:
    lines = read_lines("<stdin>", io.BytesIO(b"a\nb\n"))
    assert [line.place for line in lines] == ["<stdin>:1", "<stdin>:2"]


@pytest.mark.parametrize("end", [b"\n", b""])
def test_overlong_line_is_counted_and_passed_over(
    end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "LINE_BYTES_MAX", 4)
    script = b"1234\n12345" + end + b"1234567890123" + end + b"next" + end
    lines = list(read_lines("x", io.BytesIO(script)))
    if end:
        assert [line.size for line in lines] == [4, 5, 13, 4]
        assert lines[-1] == Line("x:4", b"next", 4)
    else:
        assert [line.size for line in lines] == [4, 22]
    assert all(len(line.content) <= 5 for line in lines)


def test_mark_of_an_editor_is_no_part_of_the_first_line() -> None:
    script = b"\xef\xbb\xbfsend a b\n\xef\xbb\xbfsend\n"
    contents = [line.content for line in read_lines("x", io.BytesIO(script))]
    assert contents == [b"send a b", b"\xef\xbb\xbfsend"]
