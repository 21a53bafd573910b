"""What people are told, in one sentence."""

import io

import pytest

from mbctl import batch as batches
from mbctl.actions.output import Output
from mbctl.actions.receiving import show_batch, standing
from mbctl.actions.suggest import hint_for
from mbctl.actions.topics import explanation
from mbctl.client.messages import Batch
from mbctl.errors import NotSubscribed, TopicNotFound
from mbctl.model import Hold, Subscribed, TopicHolds
from mbctl.wire.messages import Piece, Pulled


@pytest.mark.parametrize(
    ("skipped", "created", "sentence"),
    [
        (0, True, "billing is subscribed to orders from #7"),
        (1, True, "billing is subscribed to orders from #7, skipping 1 message"),
        (1500, True, "billing is subscribed to orders from #7, skipping 1,500 messages"),
        (0, False, "billing was subscribed to orders before and stays at #7"),
    ],
)
def test_standing_says_where_and_what_is_missed(skipped: int, created: bool, sentence: str) -> None:
    answer = Subscribed("orders", "billing", 1, 7, skipped, created)
    assert standing(answer) == sentence


def test_explanation_names_the_one_furthest_behind() -> None:
    holds = [Hold("audit", 0, 3, 90, 0, None), Hold("billing", 2, 1, 30, 0, None)]
    assert explanation(TopicHolds("orders", 3, 90, holds)) == (
        "orders keeps 3 messages (90 B) because audit has not acknowledged 3 messages"
    )


def test_explanation_of_a_topic_without_subscriptions() -> None:
    assert explanation(TopicHolds("orders", 1, 5, [])).startswith(
        "orders keeps 1 message (5 B) because it has no subscription"
    )
    assert explanation(TopicHolds("orders", 0, 0, [])) == "orders keeps nothing"


def test_messages_that_are_gone_are_told_before_those_that_came() -> None:
    piece = Piece(5, 0, 1, batches.ReadColumns([b"hi"]))
    batch = Batch(None, "orders", Pulled(1, 1, 4, [piece]))  # type: ignore[arg-type]
    out, err = io.StringIO(), io.StringIO()
    show_batch(Output("raw", stdout=out, stderr=err), batch)
    assert out.getvalue() == "hi\n"
    assert err.getvalue() == "4 messages of orders were gone before these\n"


@pytest.mark.parametrize(
    ("topics", "hint"),
    [
        (["orders", "packages"], "did you mean 'orders'? or create it with"),
        (["packages"], "create it with"),
        ([], "create it with"),
    ],
)
def test_hint_names_a_topic_that_is_close(topics: list[str], hint: str) -> None:
    assert hint_for(TopicNotFound(topic="ordres"), topics).startswith(hint)


def test_hint_of_another_error_is_its_own() -> None:
    error = NotSubscribed(topic="orders", subscriber="billing")
    assert hint_for(error, ["orders"]) == error.hint
