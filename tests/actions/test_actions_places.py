"""Places, times and ages: what people may write, and what it means."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbctl.actions.places import age_text, parse_age, parse_place, parse_time
from mbctl.errors import InvalidArgument
from mbctl.model import NS_PER_S, AtTime

NOW = 1_767_225_600_123_456_789


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("new", "new"),
        ("Earliest", "earliest"),
        ("0", 0),
        ("42", 42),
        ("2h", AtTime(NOW - 7200 * NS_PER_S)),
        ("1.5s", AtTime(NOW - 1_500_000_000)),
        ("1970-01-01T00:00:00Z", AtTime(0)),
        ("9999w", AtTime(0)),
    ],
)
def test_place_means_what_it_says(text: str, place: object) -> None:
    assert parse_place(text, NOW) == place


def test_an_age_as_a_place_counts_from_now() -> None:
    before = time.time_ns()
    place = parse_place("1m")
    assert isinstance(place, AtTime)
    assert before <= place.ns + 60 * NS_PER_S <= time.time_ns()


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-01-02T03:04:05Z", 1_767_323_045_000_000_000),
        ("2026-01-02t03:04:05.5z", 1_767_323_045_500_000_000),
        ("2026-01-02 03:04:05.123456789+00:00", 1_767_323_045_123_456_789),
        ("2026-01-02T05:04:05+02:00", 1_767_323_045_000_000_000),
        ("2026-01-01T22:04:05-05:00", 1_767_323_045_000_000_000),
        ("2026-01-02T03:04Z", 1_767_323_040_000_000_000),
        ("2026-01-02Z", 1_767_312_000_000_000_000),
    ],
)
def test_time_is_read_to_the_nanosecond(text: str, ns: int) -> None:
    assert parse_time(text) == ns


@pytest.fixture
def _berlin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()


@pytest.mark.usefixtures("_berlin")
def test_time_without_a_zone_is_the_local_one(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        assert parse_time("2026-01-02T03:04:05") == parse_time("2026-01-02T02:04:05Z")
        assert parse_time("2026-07-02") == parse_time("2026-07-01T22:00Z")
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "-1", "٣", "1_000", "1e5", "0x10", "5 m", "m", "5y", "+5", "1." + "0" * 12),
        *("2026-13-01", "2026-02-30", "2026-01-02T25:00Z", "2026-1-2", "02.01.2026", "03:04:05Z"),
        *("1969-12-31T23:59:59Z", "2300-01-01Z", "0000-01-01", "0001-01-01", "9999-12-31"),
        *("2026-01-02T03:04:05.1234567890Z", "2026-01-02T03:04:05+25:00", "1" * 19, "0s"),
    ],
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_place(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("5m", 300), ("2h", 7200), ("7d", 604_800), ("1.5h", 5400)],
)
def test_age_is_seconds(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "0d", "-5s", "5 days", "s", "1e3s", "inf", "nan"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_age(text)


@given(st.integers(1, 10**9))
def test_age_is_shown_as_it_can_be_read_back(seconds: int) -> None:
    assert parse_age(age_text(seconds)) == seconds


@given(st.integers(0, 2**63 - 1))
def test_every_time_that_a_message_has_can_be_written(ns: int) -> None:
    moment = datetime.fromtimestamp(ns // NS_PER_S, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    assert parse_time(f"{moment}.{ns % NS_PER_S:09d}Z") == ns
