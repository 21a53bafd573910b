"""Nothing that people can type or call is missing from the pages, and no page is a dead end.

Each command, shell verb and verb of the library has a page or a section of a fixed form, so
that these tests can hold it against the code.
"""

import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from docs_pages import DOCS, README, ROOT, name_of, pages, prose_of

from mbctl import Admin, Batch, Message, Pipeline, Publisher, Server, Subscriber, errors, model
from mbctl.actions import exit_codes
from mbctl.cli import app as cli_app
from mbctl.cli.options import SharedOption
from mbctl.shell.verbs import VERBS

COMMANDS = DOCS / "commands.md"
PYTHON = DOCS / "python-api.md"
SHELL_VERBS = DOCS / "shell-verbs.md"

# Public so that the parts of the library can call each other; nobody else needs them.
INTERNAL = {
    Publisher: {"address", "opened", "opening", "was_retried", "welcome"},
    Subscriber: {
        *("address", "opened", "opening", "was_retried", "welcome"),
        *("leave_gap", "leave_unsettled", "pull_request", "remember_place", "take_reply"),
        *("settle_ack", "settle_all", "settle_extend", "settle_nack"),
    },
    Admin: {"address", "opened", "opening", "was_retried", "welcome"},
    Batch: {"close_range", "member", "take_over", "settler", "topic_id"},
}

# What the page of every command has, whatever it does; and that of every verb.
COMMAND_PARTS = ["What it does", "Options", "Output", "Exit codes", "Examples", "See also"]
VERB_PARTS = ["Returns", "Raises", "Example", "asyncio", "See also"]


@cache
def read(page: Path) -> str:
    """The text of a page, of which a table may have bars in its cells."""
    return page.read_text(encoding="utf-8").replace("\\|", "¦")


def section(text: str, title: str) -> str:
    """What stands below a heading, to the next one of its level."""
    found = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert found is not None, f"there is no heading {title!r}"
    return re.split(rf"^#{{1,{len(found[1])}}} ", text[found.end() :], flags=re.MULTILINE)[0]


def table(text: str, head: str) -> list[list[str]]:
    """The rows of the tables whose first column is called ``head``."""
    found = re.findall(rf"^\| {head} \|.*\n\|[-|]+\|\n((?:\|.*\n)*)", text, re.MULTILINE)
    lines = "".join(found).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def quoted(cell: str) -> list[str]:
    """What stands in a cell as code."""
    return re.findall(r"`([^`]+)`", cell)


# --- commands -------------------------------------------------------------------------------


@cache
def commands() -> list[tuple[str, Any]]:
    """All commands by their full names, without ``mbctl``."""
    found = []
    for name in cli_app.COMMANDS:
        command = cli_app.LazyCommands()[name]
        found += [(f"{name} {n}", c) for n, c in getattr(command, "commands", {}).items()] or [
            (name, command)
        ]
    return found


each_command = pytest.mark.parametrize(
    ("name", "command"), commands(), ids=[name for name, _ in commands()]
)


def manual_of(name: str) -> str:
    """The page of a command, or the section of one that is part of a group."""
    group, _, part = name.partition(" ")
    text = read(DOCS / "commands" / f"{group}.md")
    return section(text, name) if part else text


def own_params(command: Any) -> Iterator[Any]:
    """The arguments and options of a command that not every command has."""
    for param in command.get_params(typer.Context(command)):
        if not isinstance(param, SharedOption) and "--help" not in param.opts:
            yield param


@each_command
def test_command_has_a_manual_of_the_usual_form(name: str, command: Any) -> None:
    manual = manual_of(name)
    assert re.search(rf"```text\nmbctl {name}\b", manual)
    if " " in name:
        # A part of a group has the same tables without headings.
        assert table(manual, "form")
        assert "```console" in manual
    else:
        titles = re.findall(r"^## (.*)$", manual, re.MULTILINE)
        assert [title for title in titles if title in COMMAND_PARTS] == COMMAND_PARTS
    assert table(manual, "exit")


@each_command
def test_options_of_command_are_those_described(name: str, command: Any) -> None:
    described = {word for row in table(manual_of(name), "option") for word in quoted(row[0])}
    existing = set()
    for param in own_params(command):
        if param.param_type_name == "option":
            existing |= set(param.opts)
        else:
            existing.add(param.metavar or param.name.upper())
    assert described == {word.replace("[MESSAGE]", "MESSAGE") for word in existing}


@each_command
def test_defaults_of_options_are_those_described(name: str, command: Any) -> None:
    defaults = {}
    for row in table(manual_of(name), "option"):
        defaults.update(dict.fromkeys(quoted(row[0]), row[-2]))
    for param in own_params(command):
        if param.param_type_name != "option" or param.default is None:
            continue
        shown = defaults[param.opts[0]]
        if param.default is False:
            assert shown == "off"
        else:
            plain = f"{param.default:g}" if isinstance(param.default, float) else param.default
            assert str(plain) in shown


@each_command
def test_environment_of_command_is_described(name: str, command: Any) -> None:
    described = set(re.findall(r"`(MBCTL_[A-Z_]+)` \|", manual_of(name)))
    assert described == {param.envvar for param in own_params(command) if param.envvar}


@each_command
def test_exit_codes_of_command_are_those_of_its_errors(name: str, command: Any) -> None:
    rows = table(manual_of(name), "exit")
    assert [row[0] for row in rows] == sorted((row[0] for row in rows), key=int)
    known = {row[0] for row in table(read(COMMANDS), "exit")}
    assert {row[0] for row in rows} <= known
    for code, when in rows:
        for error in (word for word in quoted(when) if word in error_classes()):
            assert exit_codes.of(error_classes()[error]()) == int(code), error


def test_every_exit_code_has_a_command_that_ends_with_it() -> None:
    used = {int(row[0]) for name, _ in commands() for row in table(manual_of(name), "exit")}
    # Nobody is refused for who he is in this version.
    assert used == set(vars_of(exit_codes)) - {exit_codes.NOT_ALLOWED}
    assert {int(row[0]) for row in table(read(COMMANDS), "exit")} == set(vars_of(exit_codes))


def vars_of(module: Any) -> list[int]:
    """The values of a module's constants."""
    return [value for name, value in vars(module).items() if name.isupper() and name[0] != "_"]


def test_exit_codes_are_those_of_the_page() -> None:
    rows = table(read(COMMANDS), "exit")
    described = {name: int(code) for code, when in rows for name in quoted(when)}
    leaves = {name for name, kind in error_classes().items() if not is_family(kind)}
    named = {name: code for name, code in described.items() if name in leaves}
    # A failed pipeline ends as its first refusal would alone.
    assert set(named) == leaves - {"SendFailed"}
    assert named == {name: exit_codes.of(error_classes()[name]()) for name in named}


def test_options_of_all_commands_are_those_described() -> None:
    context = typer.Context(dict(commands())["status"])
    shared = [p for p in context.command.get_params(context) if isinstance(p, SharedOption)]
    rows = table(section(read(COMMANDS), "Options of all client commands"), "option")
    assert [quoted(row[0]) for row in rows] == [param.opts for param in shared]
    assert [quoted(row[1]) for row in rows] == [[param.envvar] for param in shared]


def test_environment_variables_are_described_and_exist() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "mbctl").rglob("*.py"))
    shared = {
        f"MBCTL_{name.upper()}" for name in ("server", "context", "timeout", "output", "color")
    }
    existing = {*re.findall(r"MBCTL_[A-Z_]+", sources), *shared, "MBCTL_QUIET", "MBCTL_VERBOSE"}
    manuals = read(COMMANDS) + "".join(manual_of(name) for name, _ in commands())
    assert set(re.findall(r"MBCTL_[A-Z_]+", manuals)) == existing


# --- shell verbs ----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_shell_verb_is_described_with_syntax_options_and_example(verb: Any) -> None:
    manual = section(read(SHELL_VERBS), verb.name)
    assert f"```text\n{verb.syntax}\n```" in manual
    described = [word for row in table(manual, "option") for word in quoted(row[0])]
    assert described == [option.written.replace("|", "¦") for option in verb.options]
    assert re.search(rf"```console\n(?:.*\n)*?(publisher|subscriber)> {verb.name}", manual)


# --- verbs of the library -------------------------------------------------------------------


def is_family(kind: type[errors.MbctlError]) -> bool:
    """Whether ``mbctl.errors`` has errors that derive from it."""
    return any(child.__module__ == errors.__name__ for child in kind.__subclasses__())


@cache
def error_classes() -> dict[str, type[errors.MbctlError]]:
    """All errors that ``mbctl.errors`` has, by name."""
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.MbctlError)
    }


def public_names(kind: type) -> set[str]:
    """What a class has for its users."""
    return {name for name in dir(kind) if not name.startswith("_")} - INTERNAL.get(kind, set())


def verbs() -> Iterator[tuple[str, Any]]:
    """The verbs of the library, by the page of each."""
    for kind in (Publisher, Subscriber, Admin):
        for name in sorted(public_names(kind)):
            verb = inspect.getattr_static(kind, name, None)
            if inspect.isfunction(verb) and name != "close":
                yield f"{kind.__name__}-{name}".lower().replace("_", "-"), verb
    for name in ("ack", "nack", "extend"):
        yield f"batch-{name}", getattr(Batch, name)


each_verb = pytest.mark.parametrize(
    ("page", "verb"), list(verbs()), ids=[page for page, _ in verbs()]
)


def parameters_of(call: Any) -> list[inspect.Parameter]:
    """What a function takes; ``**settings`` are those of a topic."""
    found: list[inspect.Parameter] = []
    for parameter in inspect.signature(call).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            found += inspect.signature(model.TopicSettings).parameters.values()
        elif parameter.name != "self":
            found.append(parameter)
    return found


def signature_of(call: Any) -> str:
    """The arguments of a function as its page writes them, in parentheses."""
    written = []
    for parameter in parameters_of(call):
        is_named = parameter.kind is parameter.KEYWORD_ONLY
        if is_named and not any(part.startswith("*") for part in written):
            written.append("*")
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        written.append(f"{star}{parameter.name}{default_of(parameter)}")
    return f"({', '.join(written)})"


def default_of(parameter: inspect.Parameter) -> str:
    """``=`` and a parameter's default as a page writes it, if it has one."""
    if parameter.default is parameter.empty:
        return ""
    return (
        "=LIMITS"
        if parameter.default is model.LIMITS
        else f"={parameter.default!r}".replace("'", '"')
    )


def docs_of(page: str) -> str:
    """The text of a page of the library."""
    return read(DOCS / "api" / f"{page}.md")


@each_verb
def test_verb_has_a_page_of_the_usual_form(page: str, verb: Any) -> None:
    text = docs_of(page)
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert [title for title in titles if title in VERB_PARTS] == VERB_PARTS
    assert f"{verb.__name__}(" in section(text, "asyncio")
    assert "```python" in section(text, "Example")


@each_verb
def test_signature_of_verb_is_the_one_described(page: str, verb: Any) -> None:
    (written, *_) = re.findall(r"```text\n(.*?)```", docs_of(page), re.DOTALL)
    assert f"{verb.__name__}{signature_of(verb)} -> " in re.sub(r"\s+", " ", written)


@each_verb
def test_arguments_of_verb_are_those_described(page: str, verb: Any) -> None:
    rows = table(docs_of(page), "argument")
    described = {quoted(row[0])[0].lstrip("*"): row[1] for row in rows}
    if page.startswith("batch-"):
        # There the ranges of the longer forms stand beside them.
        described = {name: default for name, default in described.items() if name == "delay"}
    expected = {
        parameter.name: f"`{default_of(parameter)[1:]}`" if default_of(parameter) else "required"
        for parameter in parameters_of(verb)
    }
    assert described == expected


@each_verb
def test_errors_of_verb_are_described_with_whether_they_are_retryable(page: str, verb: Any) -> None:
    described = set()
    for names, _, retryable in table(docs_of(page), "error"):
        for name in quoted(names):
            assert error_classes()[name].retryable == (retryable == "yes"), name
            described.add(name)
    promised = set()
    for names in re.findall(r"^    +([A-Z][\w, ]+?)(?::.*)?$", (verb.__doc__ or ""), re.MULTILINE):
        promised |= {name for name in names.split(", ") if name in error_classes()}
    assert promised <= described


@pytest.mark.parametrize("kind", [Publisher, Subscriber, Admin, Server])
def test_arguments_of_class_are_those_described(kind: type) -> None:
    text = docs_of(kind.__name__.lower())
    assert f"{kind.__name__}{signature_of(kind)}\n" in text


def test_arguments_of_server_are_in_its_table() -> None:
    described = [quoted(row[0])[0] for row in table(docs_of("server"), "argument")]
    assert described == list(inspect.signature(Server).parameters)


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        *((Publisher, "publisher"), (Subscriber, "subscriber"), (Admin, "admin")),
        *((Pipeline, "publisher-pipeline"), (Batch, "batch"), (Message, "batch")),
        (Server, "server"),
    ],
)
def test_public_names_of_class_are_in_its_tables(kind: type, page: str) -> None:
    text = docs_of(page)
    if kind in (Batch, Message):
        text = section(text, kind.__name__)
    listed = [row[0] for head in ("name", "verb") for row in table(text, head)]
    if kind in (Publisher, Subscriber, Admin):
        listed += [row[0] for row in table(section(read(PYTHON), "Clients"), "name")]
    if kind is Pipeline:
        listed += [f"`{name}`" for name in re.findall(r"^## Pipeline\.(\w+)$", text, re.M)]
    described = {word for cell in listed for word in quoted(cell)} - {"with", "async with"}
    # What only an instance has.
    attributes = {"name", "timeout", "limits", "subscriber", "options", "sent", "last"}
    assert public_names(kind) <= described
    assert described <= public_names(kind) | attributes


@pytest.mark.parametrize("name", sorted(set(error_classes()) - {"MbctlError"}))
def test_error_is_described_with_whether_it_is_retryable(name: str) -> None:
    rows = [row for row in table(read(PYTHON), "error") if len(row) == 3]
    (row,) = [row for row in rows if name in quoted(row[0])]
    kind = error_classes()[name]
    if not is_family(kind):
        assert row[2] == ("yes" if kind.retryable else "no")


@pytest.mark.parametrize(
    "kind",
    [
        *(model.Receipt, model.Subscribed, model.Sought, model.TopicInfo, model.TopicSettings),
        *(model.SubscriptionInfo, model.TopicHolds, model.Hold, model.ServerStatus),
    ],
)
def test_fields_of_value_are_those_described(kind: type[msgspec.Struct]) -> None:
    (row,) = [row for row in table(read(PYTHON), "value") if row[0] == f"`{kind.__name__}`"]
    assert [word for word in quoted(row[1]) if word.islower()] == list(kind.__struct_fields__)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        *(("subscription show", model.SubscriptionInfo), ("status", model.ServerStatus)),
        *(("subscribe", model.Subscribed), ("subscription seek", model.Sought)),
        *(("send", model.Receipt), ("topic show", model.TopicSettings)),
    ],
)
def test_fields_of_json_are_those_described(command: str, kind: type[msgspec.Struct]) -> None:
    ((_, shown),) = [row for row in table(manual_of(command), "form") if row[0] == "JSON"]
    # The id of a topic is of no use to who only subscribes.
    fields = [name for name in kind.__struct_fields__ if name != "topic_id" or "topic" in command]
    described = [word for word in quoted(shown) if word in fields]
    assert described == fields


# --- links and places -----------------------------------------------------------------------


@cache
def anchors_of(page: Path) -> set[str]:
    """The anchors that a page's headings have."""
    titles = re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.replace(" ", "-") for title in plain}


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


def test_every_page_is_in_an_index() -> None:
    indexes = {
        DOCS / "README.md": [*DOCS.glob("*.md"), *DOCS.glob("decisions/*.md")],
        COMMANDS: list(DOCS.glob("commands/*.md")),
        PYTHON: list(DOCS.glob("api/*.md")),
    }
    for index, listed in indexes.items():
        targets = re.findall(r"\]\(([^)#\s]+)\)", prose_of(index))
        linked = {(index.parent / target).resolve() for target in targets}
        assert set(listed) - {DOCS / "README.md"} <= linked
    assert {page for pages_of in indexes.values() for page in pages_of} | {README} == set(pages())


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
