"""What the command line accepts, and how it refuses the rest."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from cli_harness import Run

from mbctl import __version__
from mbctl.cli import app as cli_app

UNUSED = "127.0.0.1:1"


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""
    for name in cli_app.COMMANDS:
        command = cli_app.LazyCommands()[name]
        subcommands = getattr(command, "commands", None)
        if subcommands is None:
            yield name, command
        else:
            yield from ((f"{name} {sub}", made) for sub, made in subcommands.items())


ALL_COMMANDS = dict(commands())


def test_version_is_the_package_version(run: Run) -> None:
    ended = run("--version")
    assert (ended.code, ended.out.decode()) == (0, f"mbctl {__version__}\n")


def test_help_lists_what_is_built_and_nothing_else(run: Run) -> None:
    listed = run("--help").out.decode().split("Commands:\n")[1]
    names = [line.split()[0] for line in listed.splitlines() if line.strip()]
    assert names == list(cli_app.COMMANDS)


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_help_of_a_command_fits_a_narrow_terminal_and_ends_with_examples(
    run: Run, name: str
) -> None:
    ended = run(*name.split(), "--help")
    text = ended.out.decode()
    assert ended.code == 0
    assert text.startswith(f"Usage: mbctl {name} ")
    assert "{" not in text.splitlines()[0]
    assert max(len(line) for line in text.splitlines()) <= 80
    assert f"  mbctl {name}" in text.split("Examples:\n")[1]


@pytest.mark.parametrize("args", [(), ("topic",), ("subscription",), ("context",)], ids=repr)
def test_a_group_without_a_command_shows_its_help_and_exits_2(
    run: Run, args: tuple[str, ...]
) -> None:
    ended = run(*args)
    assert (ended.code, ended.out) == (2, b"")
    assert "Commands:" in ended.err


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_help_says_ranges_and_defaults_in_words(run: Run, name: str) -> None:
    text = " ".join(run(*name.split(), "--help").out.decode().split())
    assert not re.search(r"[<>]=|default: \d+\.0[;\]]", text.split("Examples:")[0])


def test_help_has_ranges_in_the_words_of_people(run: Run) -> None:
    assert "0 to 65535]" in run("server", "--help").out.decode()
    assert "[at least 1]" in run("pull", "--help").out.decode()
    assert "at most 86400]" in run("subscribe", "--help").out.decode()


def test_summaries_of_commands_are_not_cut_off(run: Run) -> None:
    for args in ((), ("topic",), ("subscription",), ("context",)):
        assert "..." not in run(*args, "--help").out.decode().split("Commands:")[1]


@pytest.mark.parametrize(
    "args",
    [
        ("user", "list"),
        ("server", "--http", "127.0.0.1:80"),
        ("server", "--config", "x"),
    ],
    ids=" ".join,
)
def test_what_is_not_built_yet_is_refused_as_wrong_usage(run: Run, args: tuple[str, ...]) -> None:
    ended = run(*args)
    assert (ended.code, ended.out) == (2, b"")
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("error: ")
    assert "see: mbctl" in ended.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("snd",), "did you mean 'send'"),
        (("topic", "lst"), "did you mean 'list'"),
        (("send",), "missing argument 'TOPIC'"),
        (("send", "orders"), "a MESSAGE, - for stdin, or --lines"),
        (("send", "orders", "hi", "--lines"), "--lines goes with neither"),
        (("send", "orders", "--lines", "--key", "k"), "--lines goes with neither"),
        (("send", "orders", "--lines", "-H", "a=b"), "--lines goes with neither"),
        (("send", "orders", "hi", "-H", "novalue"), "'novalue' is not name=value"),
        (("send", "orders", "hi", "-H", "=x"), "'=x' is not name=value"),
        (("send", "orders", "hi", "-H", "a=1", "-H", "a=2"), "header 'a' is given twice"),
        (("send", "orders", "hi", "-H", "a=\udcff"), "headers must be UTF-8"),
        (("send", "orders", "hi", "there"), "unexpected extra argument(s) (there)"),
        (("pull", "orders"), "missing option '--name'"),
        (("pull", "orders", "--name", "b", "-n", "0"), "'-n' / '--count'"),
        (("pull", "orders", "--name", "b", "-n", "2", "--min", "3"), "--min 3 is more than -n 2"),
        (("pull", "orders", "--name", "b", "--wait", "-1"), "-1 is below 0"),
        (("pull", "orders", "--name", "b", "--wait", "nan"), "nan is below 0"),
        (("subscribe", "orders"), "missing option '--name'"),
        (("subscribe", "orders", "--name", "b", "--from", "-1"), "not new, earliest, an offset"),
        (("subscribe", "orders", "--name", "b", "--from", "٣"), "not new, earliest, an offset"),
        (("subscribe", "orders", "--name", "b", "--from", "2026-13-01"), "there is no time"),
        (("subscribe", "orders", "--name", "b", "--max-deliveries", "0"), "--max-deliveries"),
        (("subscribe", "orders", "--name", "b", "--dead-letter", "d"), "needs --max-deliveries"),
        (("subscribe", "orders", "--name", "b", "--ack-wait", "0"), "0 is not above 0"),
        (("subscribe", "orders", "--name", "b", "--ack-wait", "86401"), "86401"),
        (("follow",), "missing argument 'TOPIC...'"),
        (("follow", "orders", "--from", "now"), "'now' is not new, earliest, an offset"),
        (("topic", "create", "orders", "--max-bytes", "5X"), "'5X' is not a size"),
        (
            ("topic", "create", "orders", "--max-bytes", "8192P"),
            "'8192P' is not a size below 8 EiB",
        ),
        (("topic", "create", "orders", "--max-messages", "0"), "--max-messages"),
        (("topic", "create", "orders", "--max-age", "7"), "'7' is not an age"),
        (("topic", "create", "orders", "--retain-age", "0s"), "must be above 0"),
        (("topic", "create", "orders", "--when-full", "burst"), "'burst' is not one of"),
        (("topic", "read", "orders", "--from", "soon"), "'soon' is not new"),
        (("topic", "read", "orders", "-n", "0"), "'-n' / '--count'"),
        (("subscription", "seek", "orders", "b"), "missing option '--to'"),
        (("subscription", "seek", "orders", "b", "--to", "back"), "'back' is not new"),
        (("subscription", "drop", "orders", "b", "--offset", "-1"), "--offset"),
        (("backup",), "missing argument 'FILE'"),
        (("verify", ""), "'DIR': it is empty"),
        (("repair", "--accept-loss", ""), "'DIR': it is empty"),
        (("restore", "broker.backup", ""), "'DIR': it is empty"),
        (("subscription", "show", "orders"), "missing argument 'SUBSCRIBER'"),
        (("status", "-o", "yaml"), "'yaml' is not one of auto, table, json, jsonl, raw"),
        (("status", "--color", "maybe"), "'maybe' is not one of auto, always, never"),
        (("status", "--timeout", "0"), "0 is not above 0"),
        (("status", "--timeout", "soon"), "'soon' is not a valid float"),
        (("status", "--server", "nowhere:x"), "'nowhere:x' is no address"),
        (("ping", "--wait", "-1"), "-1 is below 0"),
        (("server", "--port", "65536"), "'--port'"),
        (("server", "--sync", "sometimes"), "'sometimes' is not one of"),
        (("server", "--memory", "--data", "x"), "--data names a directory"),
        (("server", "--memory", "--sync", "always"), "--sync is about a disk"),
        (("server", "--host", "0.0.0.0", "--memory"), "--insecure"),
        (("publisher", "-c", "topics", "-f", "x"), "-c and -f do not go together"),
        (("demo", "--seconds", "0"), "0 is not above 0"),
        (("top", "--interval", "0"), "0 is not above 0"),
        (("top", "--sort", "age"), "'age' is not one of"),
        (("pull", "orders", "--name", "b", "--format", "%q"), "'%q' (column 1) means nothing"),
        (("pull", "orders", "--name", "b", "-F", "%p", "--full"), "do not go together"),
        (("follow", "orders", "--rate", "--full"), "--rate goes with neither"),
        (("status", "--context", "nowhere"), "there is no context 'nowhere'"),
        (("context", "use"), "say a NAME, or --none"),
        (("context", "use", "nowhere"), "there is no context 'nowhere'"),
        (("context", "use", "-"), "no context was in use before"),
        (("context", "show"), "no context is in use"),
        (("context", "remove", "nowhere"), "there is no context 'nowhere'"),
        (("context", "add", "x"), "missing option '--server'"),
        (("context", "add", "x", "-s", "nowhere:x"), "'nowhere:x' is no address"),
        (("context", "add", ".x", "-s", "127.0.0.1"), "'.x' is not a valid name"),
    ],
    ids=lambda value: (
        " ".join(value).encode("ascii", "backslashreplace").decode()
        if isinstance(value, tuple)
        else None
    ),
)
def test_wrong_usage_is_one_line_that_says_what_is_wrong(
    run: Run, args: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBCTL_SERVER", UNUSED)
    ended = run(*args)
    assert (ended.code, ended.out) == (2, b"")
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("error: ")
    assert words.lower() in ended.err.lower()


@pytest.mark.parametrize("flags", [("-o", "json"), ("-ojson",), ("--output=json",)], ids=repr)
def test_wrong_usage_with_json_is_reported_as_json_too(run: Run, flags: tuple[str, ...]) -> None:
    ended = run("pull", "orders", *flags)
    assert ended.code == 2
    error = json.loads(ended.err.splitlines()[1])["error"]
    assert (error["code"], error["hint"]) == ("Usage", "see: mbctl pull --help")


# What these say is shown in the same forms, and asks no server.
OF_FILES = (*("verify", "repair", "restore", "context", "cluster", "demo", "bench"),)
OF_SERVERS = (
    ("-s, --server HOST:PORT", "MBCTL_SERVER"),
    ("--context NAME", "MBCTL_CONTEXT"),
    ("--timeout SECONDS", "MBCTL_TIMEOUT"),
)


@pytest.mark.parametrize("name", [n for n in ALL_COMMANDS if n != "server"])
def test_every_client_command_has_the_shared_options_and_their_variables(
    run: Run, name: str
) -> None:
    text = run(*name.split(), "--help").out.decode().split("Common options:")[1]
    words = " ".join(text.split())
    for option, variable in (
        *(() if name.split()[0] in OF_FILES else OF_SERVERS),
        ("-o, --output auto|table|json|jsonl|raw", "MBCTL_OUTPUT"),
        ("--color auto|always|never", "MBCTL_COLOR"),
        ("-q, --quiet", "MBCTL_QUIET"),
        ("-v, --verbose", "MBCTL_VERBOSE"),
    ):
        assert option in words
        assert variable in words


def test_commands_are_those_of_their_modules() -> None:
    for name, command in ALL_COMMANDS.items():
        assert command.name == name.split()[-1]
        assert isinstance(command, typer.core.TyperCommand)
