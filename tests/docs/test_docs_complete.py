"""Nothing that people can type or call is missing from the pages, and no page is a dead end."""

import inspect
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from docs_pages import DOCS, README, ROOT, name_of, pages, prose_of

from mbctl import Admin, Batch, Message, Pipeline, Publisher, Subscriber, errors, model
from mbctl.actions import exit_codes
from mbctl.cli import app as cli_app
from mbctl.shell.verbs import VERBS

COMMANDS = (DOCS / "commands.md").read_text(encoding="utf-8")
PYTHON = (DOCS / "python-api.md").read_text(encoding="utf-8")

# Public so that the parts of the library can call each other; nobody else needs them.
INTERNAL = {
    Publisher: {"address", "opened", "opening", "was_retried", "welcome"},
    Subscriber: {
        *("address", "opened", "opening", "was_retried", "welcome"),
        *("leave_gap", "leave_unsettled", "pull_request", "remember_place", "take_reply"),
        *("settle_ack", "settle_all", "settle_extend", "settle_nack"),
    },
    Admin: {"address", "opened", "opening", "was_retried", "welcome"},
    Batch: {"close_range", "take_over", "settler", "topic_id"},
}


def commands() -> list[tuple[str, Any]]:
    """All commands by their full names, without ``mbctl``."""
    found = []
    for name in cli_app.COMMANDS:
        command = cli_app.LazyCommands()[name]
        found += [(f"{name} {n}", c) for n, c in getattr(command, "commands", {}).items()] or [
            (name, command)
        ]
    return found


def anchors_of(page: Path) -> set[str]:
    """The anchors that a page's headings have."""
    titles = re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.replace(" ", "-") for title in plain}


# --- commands.md ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_command_is_described(name: str) -> None:
    assert re.search(rf"`(mbctl )?{name}[ `]", COMMANDS)


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_options_of_command_are_described(name: str, command: Any) -> None:
    options = {
        option
        for param in command.get_params(typer.Context(command))
        if param.param_type_name == "option"
        for option in param.opts
    }
    missing = {o for o in options if f"`{o}" not in COMMANDS and f", `{o}" not in COMMANDS}
    assert missing <= {"-h", "--help", "-y"}


def test_environment_variables_are_described_and_exist() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "mbctl").rglob("*.py"))
    shared = {f"MBCTL_{name.upper()}" for name in ("server", "timeout", "output", "color")}
    existing = {*re.findall(r"MBCTL_[A-Z_]+", sources), *shared, "MBCTL_QUIET", "MBCTL_VERBOSE"}
    assert set(re.findall(r"MBCTL_[A-Z_]+", COMMANDS)) == existing


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_shell_verb_is_described_with_its_syntax(verb: Any) -> None:
    # In a table a bar must be escaped.
    assert f"`{verb.syntax}`" in COMMANDS.replace("\\|", "|")


def exit_codes_described() -> dict[str, int]:
    """By error, the exit code in the table of the page."""
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", COMMANDS, re.MULTILINE)
    return {name: int(code) for code, row in rows for name in re.findall(r"`([A-Z]\w+)`", row)}


def test_exit_codes_are_those_of_the_page() -> None:
    described = exit_codes_described()
    leaves = {name: kind for name, kind in error_classes().items() if not is_family(kind)}
    # A failed pipeline ends as its first refusal would alone.
    assert set(described) == {name for name in leaves if name != "SendFailed"}
    assert described == {name: exit_codes.of(error_classes()[name]()) for name in described}


# --- python-api.md --------------------------------------------------------------------------


def is_family(kind: type[errors.MbctlError]) -> bool:
    """Whether ``mbctl.errors`` has errors that derive from it."""
    return any(child.__module__ == errors.__name__ for child in kind.__subclasses__())


def error_classes() -> dict[str, type[errors.MbctlError]]:
    """All errors that ``mbctl.errors`` has, by name."""
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.MbctlError)
    }


@pytest.mark.parametrize("name", sorted(set(error_classes()) - {"MbctlError"}))
def test_error_is_described_with_whether_it_is_retryable(name: str) -> None:
    rows = PYTHON.partition("| error | meaning | retryable |")[2].splitlines()
    (row,) = [row for row in rows if re.match(rf"\| [^|]*`{name}`[^|]*\|", row)]
    kind = error_classes()[name]
    if not is_family(kind):
        assert row.endswith("| yes |" if kind.retryable else "| no |")


@pytest.mark.parametrize("kind", [Publisher, Subscriber, Admin, Pipeline, Batch, Message])
def test_public_names_of_class_are_described(kind: type) -> None:
    names = {name for name in dir(kind) if not name.startswith("_")}
    names -= INTERNAL.get(kind, set())
    missing = {n for n in names if not re.search(rf"[`. ]{n}[`(), ]|^### {n}$", PYTHON, re.M)}
    assert not missing


def arguments_of(call: Any) -> str:
    """The arguments of a function as the page writes them, in parentheses."""
    written = []
    for parameter in inspect.signature(call).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in written:
            written.append("*")
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        written.append(f"{parameter.name}{default}")
    return f"({', '.join(written)})".replace("(self, ", "(").replace("'", '"')


@pytest.mark.parametrize("kind", [Publisher, Subscriber, Admin])
def test_arguments_of_class_are_those_described(kind: type) -> None:
    assert f"`{kind.__name__}{arguments_of(kind)}`" in PYTHON


@pytest.mark.parametrize(
    "method",
    [
        *(Publisher.delete_topic, Publisher.send, Publisher.send_many),
        *(Subscriber.subscribe, Subscriber.unsubscribe, Subscriber.pull),
    ],
)
def test_arguments_of_method_are_those_described(method: Any) -> None:
    assert f"`{method.__name__}{arguments_of(method)} ->" in PYTHON


@pytest.mark.parametrize(
    "kind",
    [
        *(model.Receipt, model.Subscribed, model.TopicInfo, model.SubscriptionInfo),
        *(model.TopicHolds, model.Hold, model.ServerStatus),
    ],
)
def test_fields_of_value_are_those_described(kind: type[msgspec.Struct]) -> None:
    (fields,) = re.findall(rf"^\| `{kind.__name__}` \| (.*) \|$", PYTHON, re.MULTILINE)
    described = re.findall(r"`([a-z_]+)`", fields)
    assert described == list(kind.__struct_fields__)


# --- links and places -----------------------------------------------------------------------


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_of_page_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (anchor and anchor not in anchors_of(linked)):
            broken.append(target)
    assert not broken


def test_every_page_is_in_the_index() -> None:
    index = prose_of(DOCS / "README.md")
    linked = {(DOCS / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)\)", index)}
    assert set(pages()) - {README, DOCS / "README.md"} <= linked


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_files_that_page_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:mbctl|tests|scripts|docs|\.ci)/[\w./-]*)", prose_of(page))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_design_names_every_package() -> None:
    design = prose_of(DOCS / "design.md")
    packages = [path.parent.name for path in (ROOT / "mbctl").glob("*/__init__.py")]
    assert [name for name in packages if f"`mbctl/{name}/`" not in design] == []


def test_every_folder_of_tests_is_explained() -> None:
    page = prose_of(DOCS / "testing.md")
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert [name for name in sorted(folders) if f"`tests/{name}/`" not in page] == []
