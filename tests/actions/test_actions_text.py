"""Text is safe to show, exact where it promises to be, and sizes mean what people think."""

import unicodedata
from base64 import b64decode
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbctl.actions import text
from mbctl.errors import InvalidArgument

NS = 1_000_000_000


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain ascii", "plain ascii"),
        ("naïve 東京 🎉", "naïve 東京 🎉"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x00\x7f\x9b31m", "\\x00\\x7f\\x9b31m"),
        ("abc\u202egpj.exe", "abc\\u202egpj.exe"),
        ("\u2066\u200b\u200f\ufeff", "\\u2066\\u200b\\u200f\\ufeff"),
        ("line\u2028end", "line\\u2028end"),
        ("lone \udc80", "lone \\udc80"),
        ("tag \U000e0041", "tag \\U000e0041"),
        ("no-break\u00a0space\u3000", "no-break\u00a0space\u3000"),
        (r'{"a": "b\n"}', r'{"a": "b\n"}'),
        ("[bold]not markup[/bold]", "[bold]not markup[/bold]"),
    ],
)
def test_escape_shows_what_a_terminal_could_act_on(raw: str, shown: str) -> None:
    assert text.escape(raw) == shown


@given(st.text())
def test_escaped_text_holds_nothing_that_is_invisible_or_acts(raw: str) -> None:
    categories = {unicodedata.category(c) for c in text.escape(raw)}
    assert not categories & {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}


@given(st.binary())
def test_display_is_one_line_of_safe_text_for_any_bytes(payload: bytes) -> None:
    shown = text.display(payload)
    assert shown == text.escape(shown)
    assert len(shown.splitlines()) <= 1


def test_display_shows_bytes_that_are_not_utf8_and_keeps_the_rest() -> None:
    assert text.display("é".encode() + b"\xff\xfe!") == "é\\xff\\xfe!"


@given(st.binary())
def test_payload_text_gives_the_payload_back(payload: bytes) -> None:
    shown, encoding = text.payload_text(payload)
    assert (shown.encode() if encoding == "utf-8" else b64decode(shown)) == payload


def test_payload_text_is_utf8_exactly_when_it_can_be() -> None:
    assert text.payload_text("é\x00".encode()) == ("é\x00", "utf-8")
    assert text.payload_text(b"\xff\n") == ("/wo=", "base64")


def test_clip_says_how_much_is_left_out() -> None:
    assert text.clip("abcdef", 6) == "abcdef"
    assert text.clip("a" * 2000, 3) == "aaa…(+1,997 characters)"


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (1_700_000_000 * NS + 123_456_789, "2023-11-14T22:13:20.123456789Z"),
        (253_402_300_799 * NS, "9999-12-31T23:59:59.000000000Z"),
    ],
)
def test_rfc3339_keeps_every_nanosecond(ns: int, shown: str) -> None:
    assert text.rfc3339(ns) == shown


@given(st.integers(min_value=0, max_value=4_000_000_000 * NS))
def test_rfc3339_is_the_time_that_datetime_reads(ns: int) -> None:
    read = datetime.fromisoformat(text.rfc3339(ns))
    assert read == datetime.fromtimestamp(ns // NS, UTC).replace(microsecond=ns % NS // 1000)


def test_local_time_names_the_day_only_if_it_is_another() -> None:
    noon = int(datetime(2024, 5, 6, 12, 0, 0).timestamp()) * NS
    later = noon + 5_123 * 1_000_000
    assert text.local_time(later, noon) == "12:00:05.123"
    assert text.local_time(later, noon + 86_400 * NS) == "2024-05-06 12:00:05.123"


def test_ago_counts_from_now_and_knows_never() -> None:
    assert text.ago(None, 5 * NS) == "never"
    assert text.ago(2 * NS, 5 * NS) == "3.0 s ago"
    assert text.ago(9 * NS, 5 * NS) == "0 ms ago"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.0421, "42 ms"),
        (0.9999, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (99 * 60, "99 min"),
        (100 * 60, "2 h"),
        (71 * 3600, "71 h"),
        (72 * 3600, "3 d"),
        (-1, "0 ms"),
    ],
)
def test_duration_picks_a_unit_people_read_at_a_glance(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (64 * 1024**2, "64.0 MiB"),
        (5 * 1024**5, "5.0 PiB"),
        (5000 * 1024**5, "5000.0 PiB"),
    ],
)
def test_size_is_in_the_largest_unit_below_it(number: int, shown: str) -> None:
    assert text.size(number) == shown


def test_counted_knows_one_from_many() -> None:
    assert [text.counted(n, "message") for n in (0, 1, 2, 1234)] == [
        "0 messages",
        "1 message",
        "2 messages",
        "1,234 messages",
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("4096", 4096),
        ("1B", 1),
        ("64M", 64 * 1024**2),
        ("64m", 64 * 1024**2),
        ("64 MiB", 64 * 1024**2),
        ("64MB", 64_000_000),
        ("10kB", 10_000),
        ("1.5GiB", 3 * 1024**3 // 2),
        ("2T", 2 * 1024**4),
        (" 7 ", 7),
    ],
)
def test_parse_size_reads_what_people_write(written: str, meant: int) -> None:
    assert text.parse_size(written) == meant


@pytest.mark.parametrize(
    "written",
    [
        "",
        "M",
        "-1",
        "0",
        "0.1",
        "1e5",
        "1_000",
        "nan",
        "inf",
        "64X",
        "1.2.3",
        ".",
        "٣",
        "1iB",
        "5 M B",
        "8192P",
        "99999999999999999999",
    ],
)
def test_parse_size_refuses_what_is_no_size(written: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        text.parse_size(written)
    assert repr(written) in str(caught.value)


@given(st.text(alphabet="0123456789.KMGTPBib- eE_", max_size=8))
def test_parse_size_gives_a_size_or_its_own_error(written: str) -> None:
    with suppress(InvalidArgument):
        assert text.parse_size(written) > 0


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("orders", True), ("~00ff", True), ("$(id)", False), ("\x1b]0;x", False), ("a\u202eb", False)],
)
def test_only_names_are_offered(name: str, is_one: bool) -> None:
    assert text.is_name(name) is is_one
