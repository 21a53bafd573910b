"""Which part of the project may import which: arrows point up the list only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from house_sources import PACKAGE, modules, name_of, nodes_of, tree_of

import mbctl

# Each part of the house and the parts that it may import, from the lowest up.
HOUSE: dict[str, set[str]] = {
    "errors": set(),
    "model": {"errors"},
    "ranges": {"model"},
    "batch": {"errors", "model"},
    "files": {"errors"},
    "forks": set(),
    "patience": set(),
    "wire": {"batch", "errors", "model"},
    "core": {"ranges", "errors", "model"},
    "journal": {"batch", "files", "ranges", "errors", "model"},
    "engine": {"core", "journal", "batch", "ranges", "errors", "model"},
    "server": {"wire", "engine", "forks", "patience", "errors", "model"},
    "client": {"wire", "batch", "forks", "patience", "errors", "model"},
    "aio": {"client"},
    "offline": {"journal", "batch", "files", "errors", "model", "ranges"},
    "cluster": {"errors", "model"},
    "actions": {"client", "errors", "model"},
    "shell": {"actions", "client", "errors", "model"},
    "bench": {"client", "errors", "model"},
    "testing": {"server", "client"},
}
# The commands and what stands above all of them may import everything.
ABOVE = {"cli", "__main__"}

# Single arrows beside the table, and why.
WIRING = {
    ("mbctl/engine/opening.py", "files"): "somebody has to say that the disk is the real one",
    ("mbctl/server/connection.py", "batch"): "the name of a type: what may stand in a reply",
}

# What a pure layer must not know: time, chance, the outside world.
IMPURE = {
    *("asyncio", "concurrent", "datetime", "logging", "multiprocessing", "os", "pathlib"),
    *("random", "secrets", "select", "selectors", "signal", "socket", "ssl", "subprocess"),
    *("sys", "tempfile", "threading", "time", "uuid", "uvloop"),
}
PURE = ("core", "wire")

# Slow to import, so at home in a few parts or packages only.
HEAVY = {
    # An engine on a cluster waits for other machines, and nats-py is made for asyncio; so are the
    # clients of other systems that the benchmark measures.
    "asyncio": {"server", "client/aio", "engine/jetstream", "bench/systems"},
    # Installed only where somebody has a cluster or compares, and imported only when asked for.
    "nats": {"engine/jetstream", "bench/systems"},
    "uvloop": {"server", "bench/systems"},
    "rich": {"actions", "bench"},
    "prompt_toolkit": {"shell"},
    "typer": {"cli"},
    "multiprocessing": {"bench"},
    # Its import costs more than all of ours; msgspec.Struct does the same.
    "dataclasses": set(),
}


def part_of(path: Path) -> str:
    """The part of the house that a module belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_in(path: Path, home: str) -> bool:
    """Whether a module belongs to a part, or to a package within it: ``client/aio``."""
    within = path.relative_to(PACKAGE).with_suffix("").as_posix()
    return within == home or within.startswith(f"{home}/")


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """All modules that ``path`` imports, also inside functions, with the line of each."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno} is a relative import"
            assert node.module is not None
            if node.module == "mbctl":
                yield from ((node.lineno, f"mbctl.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


def imported_part(module: str) -> str | None:
    """The part of the house that an import is from; None if it is none of ours."""
    package, _, rest = module.partition(".")
    if package != "mbctl":
        return None
    name = rest.partition(".")[0]
    # A public name is at home in the library or in the errors, and the version nowhere.
    home = mbctl._HOMES.get(name, f"mbctl.{name}").split(".")[1]
    return "errors" if home not in {*HOUSE, *ABOVE} and hasattr(mbctl, home) else home


def arrows() -> Iterator[tuple[str, int, str, str]]:
    """Every import across parts: file, line, from, to."""
    for path in modules():
        part = part_of(path)
        for line, module in imports_of(path):
            to = imported_part(module)
            if to is not None and to != part and module != "mbctl.__version__":
                yield name_of(path), line, part, to


def test_every_part_is_in_the_table() -> None:
    assert {part_of(path) for path in modules()} <= {*HOUSE, *ABOVE, "__init__"}


def test_imports_point_up_the_list_only() -> None:
    wrong = [
        f"{file}:{line} {part} imports {to}"
        for file, line, part, to in arrows()
        if part not in {*ABOVE, "__init__"} and to not in HOUSE[part] and (file, to) not in WIRING
    ]
    assert not wrong


def test_arrows_beside_the_table_are_still_there() -> None:
    assert set(WIRING) <= {(file, to) for file, _, _, to in arrows()}


def test_table_is_a_list_without_circles() -> None:
    above: set[str] = set()
    for part, imported in HOUSE.items():
        assert imported <= above, part
        above.add(part)
    for one in ("wire", "core", "journal"):
        assert not HOUSE[one] & {"wire", "core", "journal"}
    assert not HOUSE["client"] & {"core", "journal", "engine"}


def test_importing_the_package_imports_nothing_of_it() -> None:
    at_import = [
        node
        for node in tree_of(PACKAGE / "__init__.py").body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert [ast.unparse(node) for node in at_import] == ["from typing import TYPE_CHECKING, Any"]


@pytest.mark.parametrize("part", PURE)
def test_pure_part_knows_no_time_and_no_outside_world(part: str) -> None:
    wrong = [
        f"{name_of(path)}:{line} {module}"
        for path in modules()
        if part_of(path) == part
        for line, module in imports_of(path)
        if module.partition(".")[0] in IMPURE
    ]
    assert not wrong


@pytest.mark.parametrize("part", PURE)
def test_pure_part_has_no_coroutines(part: str) -> None:
    kinds = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in modules()
        if part_of(path) == part
        for node in nodes_of(path)
        if isinstance(node, kinds)
    ]
    assert not wrong


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_library_is_imported_only_where_it_is_at_home(library: str) -> None:
    wrong = [
        f"{name_of(path)}:{line} {module}"
        for path in modules()
        if not any(is_in(path, home) for home in HEAVY[library])
        for line, module in imports_of(path)
        if module.partition(".")[0] == library
    ]
    assert not wrong


def test_asyncio_face_is_imported_by_its_public_name_only() -> None:
    # So that a command which sends one message does without asyncio.
    wrong = [
        f"{name_of(path)}:{line} {module}"
        for path in modules()
        if not is_in(path, "client/aio") and part_of(path) != "aio"
        for line, module in imports_of(path)
        if module.startswith(("mbctl.client.aio", "mbctl.aio"))
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("module", "part"),
    [
        ("mbctl.core.broker", "core"),
        ("mbctl.wire", "wire"),
        ("mbctl.Publisher", "client"),
        ("mbctl.Receipt", "model"),
        ("mbctl.TopicNotFound", "errors"),
        ("msgspec", None),
        ("mbctlx", None),
    ],
)
def test_import_is_told_to_be_from_a_part(module: str, part: str | None) -> None:
    assert imported_part(module) == part
