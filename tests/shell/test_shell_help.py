"""The help: each verb is explained with all that it takes."""

import pytest

from mbctl.shell.commands import KINDS, Kind
from mbctl.shell.help import explain, overview
from mbctl.shell.verbs import VERBS, Verb, find_verb


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_help_of_a_verb_has_its_syntax_options_and_example(verb: Verb) -> None:
    text = explain(verb)
    assert text.startswith(f"{verb.syntax}\n")
    assert f"example: {verb.example}\n" in text
    for option in verb.options:
        assert f"  {option.flag}" in text
        assert option.help in text


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_help_of_a_verb_fits_80_columns(verb: Verb) -> None:
    assert max(map(len, explain(verb).splitlines())) < 80


def test_overview_lists_the_verbs_of_one_shell() -> None:
    verbs = [row["verb"] for row in overview("publisher")]
    assert "send" in verbs
    assert "help" in verbs
    assert "pull" not in verbs


@pytest.mark.parametrize("word", ["createTopic", "create-topic", "CREATE_TOPIC", "createtopic"])
def test_verb_is_found_however_it_is_written(word: str) -> None:
    verb = find_verb(word)
    assert verb is not None
    assert verb.name == "createTopic"


@pytest.mark.parametrize("kind", KINDS)
def test_overview_fits_80_columns(kind: Kind) -> None:
    rows = overview(kind)
    width = max(len(row["verb"]) for row in rows)
    assert all(width + 2 + len(row["about"]) < 80 for row in rows)
