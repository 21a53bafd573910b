"""Contexts: the file they are kept in."""

from pathlib import Path

import pytest

from mbctl.actions.contexts import Context, Contexts, load, path, save
from mbctl.errors import InvalidArgument


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory of the test's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def test_without_a_file_there_are_no_contexts() -> None:
    assert load() == Contexts()


def test_contexts_come_back_as_they_were_saved(config: Path) -> None:
    contexts = Contexts(
        current="local",
        previous="a.b",
        contexts={
            "local": Context(server="127.0.0.1:5555"),
            "a.b": Context(server='mb://"odd"\\host', color="red", confirm="always"),
        },
    )
    save(contexts)
    assert load() == contexts
    assert [entry.name for entry in (config / "mbctl").iterdir()] == ["contexts.toml"]


def test_file_may_be_written_by_hand(config: Path) -> None:
    path().parent.mkdir()
    path().write_text('[contexts.local]\nserver = "127.0.0.1:5555"  # mine\n')
    assert load().get("local").confirm == "ask"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"[contexts", "is not a file of contexts"),
        (b"\xff", "it is not UTF-8"),
        (b"[contexts.local]\n", "missing required field `server`"),
        (b'[contexts.local]\nserver = "x"\ncolour = "red"\n', "unknown field `colour`"),
        (b'[contexts.local]\nserver = "x"\ncolor = "pink"\n', "Invalid enum value 'pink'"),
        (b'[contexts.".x"]\nserver = "x"\n', "not a valid name"),
    ],
)
def test_file_that_is_wrong_says_where_and_why(written: bytes, said: str) -> None:
    path().parent.mkdir()
    path().write_bytes(written)
    with pytest.raises(Exception, match=said.replace("`", ".")):
        load()


def test_using_one_remembers_the_one_before() -> None:
    contexts = Contexts(contexts={name: Context(server=name) for name in ("a", "b")})
    contexts.use("a")
    contexts.use("b")
    contexts.use("-")
    assert (contexts.current, contexts.previous) == ("a", "b")
    contexts.use("a")
    assert (contexts.current, contexts.previous) == ("a", "b")
    contexts.use(None)
    assert (contexts.current, contexts.previous) == (None, "a")


def test_removing_the_one_in_use_leaves_none() -> None:
    contexts = Contexts(current="a", contexts={"a": Context(server="a")})
    contexts.remove("a")
    assert contexts == Contexts()


def test_unknown_context_is_compared_with_the_known() -> None:
    contexts = Contexts(contexts={"production": Context(server="x")})
    with pytest.raises(InvalidArgument, match="did you mean production"):
        contexts.get("prodution")
    with pytest.raises(InvalidArgument, match="mbctl context list"):
        contexts.get("zebra")
