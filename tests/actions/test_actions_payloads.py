"""How payloads look: JSON folded and painted, binary as hex, and all of it harmless."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbctl.actions import payloads

_PAINT = re.compile(r"\x1b\[[0-9]+m")


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b"hello", "hello"),
        (b"", ""),
        (b"\x1b[2Jx", "\\x1b[2Jx"),
        ("caf\u00e9".encode(), "caf\u00e9"),
        (b"mostly text \xff", "mostly text \\xff"),
        (b"\x00\x01\xfe\xff", "hex:0001feff"),
    ],
)
def test_payload_is_one_line(payload: bytes, shown: str) -> None:
    assert payloads.one_line(payload) == shown


def test_long_payload_is_cut_and_counted() -> None:
    assert payloads.one_line(b"x" * 12, 10) == "x" * 10 + "…(+2 characters)"
    assert payloads.one_line(b"\xff\x00" * 6, 10) == "hex:" + "ff00" * 5 + "…(+2 bytes)"
    assert payloads.one_line(b"\xff\x00" * 5, 10) == "hex:" + "ff00" * 5


def test_json_that_fits_is_one_line_and_else_folded() -> None:
    payload = b'{"id":1,"tags":["a","b"],"big":123456789012345678901234567890}'
    assert payloads.lines_of(payload, width=80) == [
        '{"id": 1, "tags": ["a", "b"], "big": 123456789012345678901234567890}'
    ]
    assert payloads.lines_of(payload, width=22) == [
        *("{", '  "id": 1,', '  "tags": ["a", "b"],'),
        *('  "big": 123456789012345678901234567890', "}"),
    ]
    assert payloads.lines_of(payload, width=12)[2:6] == [
        '  "tags": [',
        '    "a",',
        '    "b"',
        "  ],",
    ]


@pytest.mark.parametrize(
    "payload",
    [b"{}", b"[]", b'[{}, [], ""]', b'{"a": "{", "b": "[\\"", "c": {"d": []}}', b"[1.0, 1e5]"],
)
@pytest.mark.parametrize("width", [1, 10, 20, 80])
def test_folding_changes_nothing_of_the_json(payload: bytes, width: int) -> None:
    lines = payloads.lines_of(payload, width=width)
    assert "".join("".join(lines).split()) == "".join(payload.decode().split())


def test_lines_that_are_left_out_are_counted() -> None:
    assert payloads.lines_of(b"a\nb\nc", width=80, lines_max=2) == ["a", "b", "…(+1 line)"]
    assert payloads.lines_of(bytes(range(128, 168)), width=80, lines_max=2)[-1] == "…(+8 bytes)"


def test_binary_is_a_hex_dump() -> None:
    assert payloads.lines_of(b"\x00\xff\x80AB", width=80) == [
        "00000000  00 ff 80 41 42                                    |...AB|"
    ]


@pytest.mark.parametrize("payload", [b"{not json}", b"[1,", b"[" * 5000 + b"]" * 5000, b"[red]"])
def test_what_only_looks_like_json_is_text(payload: bytes) -> None:
    assert "".join(payloads.lines_of(payload, width=80)) == payload.decode()


def test_json_is_painted_by_what_it_is() -> None:
    painted = payloads.paint_json('{"a": [1, true, "x\\"y"]}')
    assert painted == (
        '{\x1b[34m"a"\x1b[0m: [\x1b[36m1\x1b[0m, \x1b[35mtrue\x1b[0m, \x1b[32m"x\\"y"\x1b[0m]}'
    )


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
def test_whatever_is_shown_cannot_act(payload: bytes) -> None:
    shown = [payloads.one_line(payload), *payloads.lines_of(payload, width=40)]
    for line in shown:
        assert all(c.isprintable() or c.isspace() for c in line)
        assert not set(line) & set("\x1b\n\r\x9b\u202e\u2066")
        assert _PAINT.sub("", payloads.paint_json(line)) == line
