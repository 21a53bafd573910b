"""The live picture: what it shows of a sample, and what keys change."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbctl.actions import live
from mbctl.actions.output import Output
from mbctl.actions.samples import Sample, SubscriptionLine, TopicLine, skew_s
from mbctl.actions.top import SORTS, View, frame
from mbctl.model import NS_PER_S, ServerStatus

_PAINT = re.compile(r"\x1b\[[0-9]+m")
NOW = 1_767_323_045 * NS_PER_S

STATUS = ServerStatus(
    version="1.2.3",
    engine="local",
    durability="always",
    address="127.0.0.1:5555",
    pid=1,
    started=NOW - 3600 * NS_PER_S,
    uptime_s=3600.0,
    connections=12,
    topics=2,
    subscriptions=3,
    publishers=1,
    messages=1300,
    bytes=1000,
    max_bytes=10_000,
    messages_in=1,
    messages_out=1,
    bytes_in=1,
    bytes_out=1,
    messages_in_per_s=1.0,
    messages_out_per_s=1.0,
    syncs=1,
)


def topic(name: str, **about: object) -> TopicLine:
    """A topic's line."""
    values: dict[str, object] = {
        **{"messages_in_per_s": 0.0, "messages": 0, "bytes": 0, "subscriptions": 0},
        **{"lag": 0, "held_by": None, "recent": [0.0]},
    }
    return TopicLine(topic=name, **{**values, **about})  # type: ignore[arg-type]


def subscription(name: str, subscriber: str, **about: object) -> SubscriptionLine:
    """A subscription's line."""
    values: dict[str, object] = {
        **{"durable": True, "lag": 0, "messages_out_per_s": 0.0, "leased": 0, "parked": 0},
        "last_pull": None,
    }
    return SubscriptionLine(topic=name, subscriber=subscriber, **{**values, **about})  # type: ignore[arg-type]


def sample(topics: list[TopicLine], subscriptions: list[SubscriptionLine]) -> Sample:
    """A look at a server with these."""
    return Sample(NOW, STATUS, topics, subscriptions, [0.0, 5.0, 10.0], [20.0])


LOOK = sample(
    [
        topic("orders", messages_in_per_s=5.0, lag=7, held_by="billing", bytes=10, messages=7),
        topic("clicks", messages_in_per_s=90.0, lag=2, held_by="web", bytes=5, recent=[1.0, 2.0]),
    ],
    [
        subscription("orders", "billing", lag=7, last_pull=NOW - NS_PER_S),
        subscription("clicks", "web", lag=2, messages_out_per_s=80.0),
    ],
)


def shown(look: Sample | None, view: View, width: int = 120, height: int = 24) -> list[str]:
    """The lines without their colours."""
    return [_PAINT.sub("", line) for line in frame(look, view, width=width, height=height)]


def order(view: View) -> list[str]:
    """The topics in the order in which they stand."""
    lines = shown(LOOK, view)
    return [line.split()[0] for line in lines if line.startswith((" orders  ", " clicks  "))]


def test_picture_has_rates_lag_and_who_holds_the_disk() -> None:
    lines = shown(LOOK, View("127.0.0.1:5555"))
    assert lines[0].rstrip() == (
        " mbctl top   127.0.0.1:5555   1.2.3 local always   up 60 min   12 connections"
    )
    assert re.fullmatch(r" in +10 msg/s +▅█   out +20 msg/s +█", lines[1])
    assert lines[2] == " kept 1,300 messages, 1000 B of 9.8 KiB (10%)   2 topics   3 subscriptions"
    assert any(re.fullmatch(r" orders +5 +7 +10 B +7  billing", line) for line in lines)
    assert any(re.fullmatch(r" orders billing +0 +7 +0 +0  1\.0 s ago", line) for line in lines)


@pytest.mark.parametrize(
    ("sort", "first"),
    [("rate", "clicks"), ("lag", "orders"), ("size", "orders"), ("name", "clicks")],
)
def test_sort_says_what_comes_first(sort: str, first: str) -> None:
    assert order(View("x", sort=sort))[0] == first  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("only", "left"),
    [
        ("", ["clicks", "orders"]),
        ("ORD", ["orders"]),
        ("web", ["clicks"]),
        ("*s", ["clicks", "orders"]),
        ("o*", ["orders"]),
        ("none", []),
    ],
)
def test_filter_shows_what_has_it_in_a_name(only: str, left: list[str]) -> None:
    assert order(View("x", only=only)) == left


def test_subscription_that_is_stuck_stands_out() -> None:
    lines = frame(LOOK, View("x"), width=120, height=24)
    assert any(line.startswith("\x1b[33m orders billing") for line in lines)
    assert not any(line.startswith("\x1b[33m clicks web") for line in lines)


def test_picture_without_colour_has_none() -> None:
    view = View("x", color=False, utf8=False)
    written = "\n".join(frame(LOOK, view, width=120, height=24))
    assert "\x1b" not in written
    assert not set(written) & set("▁▂▃▄▅▆▇█")


def test_what_does_not_fit_is_counted() -> None:
    topics = [topic(f"topic-{number:03}") for number in range(50)]
    subscriptions = [subscription(f"topic-{number:03}", "a") for number in range(50)]
    lines = shown(sample(topics, subscriptions), View("x"), height=20)
    assert len(lines) <= 20
    found = [line for line in lines if "more" in line]
    assert [line.split()[3] for line in found] == ["topics", "subscriptions"]
    counts = [int(line.split()[2]) for line in found]
    assert counts[0] + sum(line.startswith(" topic-") and " a " not in line for line in lines) == 50


def test_trouble_is_said_and_the_last_picture_stays() -> None:
    view = View("x", trouble="no connection to x: refused; trying again")
    lines = shown(LOOK, view)
    assert lines[2] == " no connection to x: refused; trying again"
    assert any(line.startswith(" orders ") for line in lines)
    assert shown(None, view)[1] == view.trouble


def test_keys_change_the_view() -> None:
    view = View("x")
    assert view.press("p")
    assert view.is_paused
    assert view.press(" ")
    assert not view.is_paused
    for sort in (*SORTS[1:], SORTS[0]):
        assert view.press("s")
        assert view.sort == sort
    assert view.press("~")
    assert not view.press("q")


def test_filter_is_typed_and_taken_or_dropped() -> None:
    view = View("x")
    for key in "/ordq":
        assert view.press(key)
    assert "filter: ordq_" in shown(LOOK, view)[-1]
    view.press("\x7f")
    assert order(view) == ["orders"]
    view.press("\r")
    assert (view.only, view.typing) == ("ord", None)
    for key in ("/", "x", "\x1b"):
        view.press(key)
    assert (view.only, view.typing) == ("ord", None)
    view.press("\x1b")
    assert view.only == ""


@given(
    width=st.integers(1, 200),
    height=st.integers(1, 50),
    names=st.lists(st.text("abc.-_~", min_size=1, max_size=200), max_size=12, unique=True),
)
def test_no_line_is_wider_than_the_terminal(width: int, height: int, names: list[str]) -> None:
    look = sample([topic(n, lag=10**9) for n in names], [subscription(n, n) for n in names])
    for line in shown(look, View("127.0.0.1:5555"), width=width, height=height):
        assert len(line) <= width


@pytest.mark.parametrize(
    ("width", "topics", "subscriptions"),
    [
        (40, ["IN/S", "LAG"], ["READ/S", "LAG"]),
        (60, ["IN/S", "MESSAGES", "LAG", "HELD"], ["READ/S", "LAG", "LAST"]),
        (80, ["IN/S", "MESSAGES", "SIZE", "LAG", "HELD"], ["READ/S", "LAG", "LEASED", "PARKED"]),
    ],
)
def test_narrow_picture_leaves_out_what_matters_least(
    width: int, topics: list[str], subscriptions: list[str]
) -> None:
    lines = shown(LOOK, View("x"), width=width)
    for first, wanted in (("TOPIC", topics), ("SUBSCRIPTION", subscriptions)):
        (head,) = [line.split() for line in lines if line.startswith(f" {first}")]
        assert head[1 : 1 + len(wanted)] == wanted
    assert any(line.startswith(" orders billing ") and " 7" in line for line in lines)


def test_nothing_is_cleared_behind_a_line_as_wide_as_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # There a terminal's cursor stands on the last character, which would go with it.
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "12")
    written = io.BytesIO()
    with io.TextIOWrapper(written, encoding="utf-8", newline="") as stream:
        live._draw(Output(color="never", stdout=stream), LOOK, View("x", color=False))
        lines = written.getvalue().decode().split("\r\n")
    assert len(lines) == 12
    assert any(len(re.sub(r"\x1b\[[0-9]*[A-Z]", "", line)) == 40 for line in lines)
    for line in lines:
        assert re.fullmatch(r"(\x1b\[H)?\x1b\[(2K|J)[^\x1b]*", line)


def test_clock_of_the_server_is_compared_with_ours() -> None:
    assert skew_s(STATUS, NOW) == 0.0
    assert skew_s(STATUS, NOW + 5 * NS_PER_S) == -5.0
