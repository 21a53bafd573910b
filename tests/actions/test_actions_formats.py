"""The language of --format."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbctl import batch as batches
from mbctl.actions.formats import parse_format
from mbctl.client.pulled import Peeked
from mbctl.errors import InvalidArgument
from mbctl.wire.messages import Piece, Pulled

NS = 1_767_323_045_678_000_000


def message(payload: bytes = b"hi", key: bytes | None = b"k1") -> Any:
    """A message as a peek brings it."""
    batch = batches.read(batches.encode([payload], [key], [{"type": "new", "note": "a b"}]))
    piece = Piece(first=7, timestamp=NS, deliveries=2, batch=batch)
    (only,) = Peeked("orders", Pulled(0, 1, 0, [piece]))
    return only


def render(template: str, *, safe: bool = False, **about: Any) -> bytes:
    """What a template makes of a message that is the third."""
    return parse_format(template).render(message(**about), 3, safe=safe)


@pytest.mark.parametrize(
    ("template", "written"),
    [
        (r"%t %o %k %p\n", b"orders 7 k1 hi\n"),
        ("%h", b"type=new note=a b"),
        ("%h{type}|%h{none}|", b"new||"),
        ("%l %d %n %%", b"2 2 3 %"),
        ("%T", b"2026-01-02T03:04:05.678000000Z"),
        ("%T{iso}", b"2026-01-02T03:04:05.678000000Z"),
        ("%T{ms}", b"1767323045678"),
        ("%T{ns}", b"1767323045678000000"),
        ("%T{%Y}", b"2026"),
        ("[%10t]", b"[    orders]"),
        ("[%-10t]", b"[orders    ]"),
        ("[%-5.3t]", b"[ord  ]"),
        ("[%.3t]", b"[ord]"),
        (r"\t\r\0\\\x41\xff", b"\t\r\0\\A\xff"),
        ("caf\u00e9", "caf\u00e9".encode()),
        ("", b""),
    ],
)
def test_template_is_filled_in(template: str, written: bytes) -> None:
    assert render(template) == written


@pytest.mark.parametrize(
    ("template", "written"),
    [
        ("%p", b"\x1b\xff"),
        ("%p{hex}", b"1bff"),
        ("%p{base64}", b"G/8="),
        ("%p{json}", b'"G/8="'),
        ("%p{str}", b"\\x1b\\xff"),
        ("%3p|", b" \x1b\xff|"),
    ],
)
def test_payload_is_written_as_asked(template: str, written: bytes) -> None:
    assert render(template, payload=b"\x1b\xff") == written


def test_payload_is_exact_off_a_terminal_and_harmless_on_one() -> None:
    payload = b"\x1b]0;owned\x07\xff\n"
    assert render("%p", payload=payload) == payload
    assert render(r"%p\n", payload=payload, safe=True) == b"\\x1b]0;owned\\x07\\xff\\n\n"


def test_text_as_json_is_a_string_of_json() -> None:
    assert render("%p{json}", payload=b'say "hi"\n') == b'"say \\"hi\\"\\n"'


def test_message_without_a_key_has_an_empty_one() -> None:
    assert render("[%k]", key=None) == b"[]"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("%t %q", r"'%q' \(column 4\) means nothing"),
        ("100%", r"'%' \(column 4\) means nothing"),
        (r"a\q", r"column 2"),
        ("\\", r"column 1"),
        ("%p{xml}", "is none of"),
        ("%t{hex}", "%t takes no {hex}"),
    ],
)
def test_template_that_means_nothing_is_refused(template: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        parse_format(template)


@given(st.text(max_size=30))
def test_any_template_is_read_or_refused(template: str) -> None:
    try:
        parsed = parse_format(template)
    except InvalidArgument:
        return
    assert isinstance(parsed.render(message(), 1, safe=True), bytes)


@given(st.binary(max_size=100))
def test_every_payload_comes_out_as_it_went_in(payload: bytes) -> None:
    assert render("<%p>", payload=payload) == b"<" + payload + b">"
    assert bytes.fromhex(render("%p{hex}", payload=payload).decode()) == payload
