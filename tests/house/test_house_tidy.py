"""The tidiness of the tree: sizes, docstrings, comments, names, what must not stand anywhere."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from house_sources import PACKAGE, ROOT, files, modules, name_of, nodes_of, suite, text_of, tree_of

# A second look is due at 400 lines and at 50. These are where the tree may not grow beyond.
MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 80
PARAMETERS_MAX = 5

TOP_LEVEL = {
    *(".ci", ".gitignore", "LICENSE", "README.md", "docs", "mbctl", "pyproject.toml"),
    *("reports", "scripts", "tests"),
}

# Where people are spoken to, and so where ``print`` belongs.
SPEAKING = ("mbctl/actions/", "mbctl/bench/", "mbctl/cli/", "mbctl/shell/", "mbctl/server/run.py")

# Where every error ends, or goes from a thread to who waits for it; everywhere else it is
# caught by its name.
CATCHING_ALL = {
    *("mbctl/cli/command.py", "mbctl/journal/worker.py", "mbctl/server/embedded.py"),
    # A worker, whose error is told by the process that measures.
    "mbctl/bench/crew.py",
    # A case that failed, whoever's fault it is, keeps none of the others from being measured.
    "mbctl/bench/running.py",
}

# The messages of the protocol are fields; what they mean stands in docs/protocol.md.
FIELDS_ONLY = "mbctl/wire/messages.py"

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Function = ast.FunctionDef | ast.AsyncFunctionDef

# What no sentence can be taken for.
_STATEMENTS = (
    *(ast.Assign, ast.AugAssign, ast.Import, ast.ImportFrom),
    *(ast.Return, ast.Raise, ast.Assert, ast.Delete),
)


def definitions(path: Path) -> Iterator[tuple[str, Definition, bool]]:
    """All classes and functions of a module: place, node, and whether others may use it."""

    def walk(node: ast.AST, public: bool) -> Iterator[tuple[str, Definition, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Definition):
                visible = public and not child.name.startswith("_")
                yield f"{name_of(path)}:{child.lineno} {child.name}", child, visible
                # What is inside a function is nobody else's.
                yield from walk(child, visible and isinstance(child, ast.ClassDef))
            else:
                yield from walk(child, public)

    return walk(tree_of(path), public=True)


def functions() -> Iterator[tuple[str, Function]]:
    """All functions and methods of the package, with the place of each."""
    for path in modules():
        for place, node, _ in definitions(path):
            if isinstance(node, Function):
                yield place, node


def length_of(node: Function) -> int:
    """The lines of a function, from its ``def`` on."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def comments_of(path: Path) -> Iterator[tuple[int, str]]:
    """The comments of a module that have a line of their own, without their ``#``."""
    for number, line in enumerate(text_of(path).splitlines(), start=1):
        if line.lstrip().startswith("#"):
            yield number, line.lstrip(" #").strip()


def is_code(comment: str) -> bool:
    """Whether a comment is Python rather than a sentence."""
    if re.match(r"(noqa|type|pragma|ruff):", comment):
        return False
    if re.match(r"(if|for|while|with|def|class|try|else|elif|except)\b.*:$", comment):
        return True
    try:
        body = ast.parse(comment).body
    except SyntaxError:
        return False
    return any(
        isinstance(node, _STATEMENTS)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await))
        for node in body
    )


# --- sizes ----------------------------------------------------------------------------------


def test_modules_are_not_too_long() -> None:
    lengths = {name_of(path): text_of(path).count("\n") for path in modules()}
    assert {name: n for name, n in lengths.items() if n > MODULE_LINES_MAX} == {}


def test_functions_are_not_too_long() -> None:
    lengths = {place: length_of(node) for place, node in functions()}
    assert {place: n for place, n in lengths.items() if n > FUNCTION_LINES_MAX} == {}


def test_functions_take_few_positional_arguments() -> None:
    wrong = []
    for place, node in functions():
        # A command's parameters are its options, which people give by name.
        if place.startswith("mbctl/cli/commands/"):
            continue
        arguments = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
        count = sum(name not in ("self", "cls") for name in arguments)
        if count > PARAMETERS_MAX:
            wrong.append(f"{place} takes {count}")
    assert not wrong


# --- what is written about the code ---------------------------------------------------------


def test_public_names_have_docstrings() -> None:
    missing = [
        place
        for path in modules()
        for place, node, public in definitions(path)
        if public
        and ast.get_docstring(node) is None
        and not (name_of(path) == FIELDS_ONLY and isinstance(node, ast.ClassDef))
    ]
    assert not missing


def test_modules_have_docstrings() -> None:
    paths = [*modules(), *(path for path in suite())]
    assert [name_of(path) for path in paths if ast.get_docstring(tree_of(path)) is None] == []


def test_docstrings_begin_with_a_sentence() -> None:
    wrong = []
    for path in modules():
        for place, node, _ in definitions(path):
            first = (ast.get_docstring(node) or "A sentence.").split("\n\n")[0]
            if first[-1] not in ".:":
                wrong.append(place)
    assert not wrong


def test_no_code_is_commented_out() -> None:
    wrong = [
        f"{name_of(path)}:{line} {comment}"
        for path in (*modules(), *suite())
        for line, comment in comments_of(path)
        if is_code(comment)
    ]
    assert not wrong


def test_commented_code_is_told_from_a_sentence() -> None:
    code = ("x = 1", "return x", "print(x)", "import os", "if x > 1:", "await y()", "del x")
    prose = ("Arbitrary.", "As with a topic.", "if it has one, so be it", "noqa: SIM115", "x: y")
    assert all(map(is_code, code))
    assert not any(map(is_code, prose))


def test_nothing_is_left_to_do() -> None:
    marks = re.compile(
        r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK")) + r")\b"
    )
    wrong = [
        f"{name_of(path)}:{number}"
        for path in _readable()
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if marks.search(line)
    ]
    assert not wrong


# --- what the code does not do --------------------------------------------------------------


def test_print_is_used_only_where_people_are_spoken_to() -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in modules()
        if not name_of(path).startswith(SPEAKING)
        for node in nodes_of(path)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]
    assert not wrong


def test_all_errors_are_caught_only_where_every_error_ends() -> None:
    found = {
        name_of(path)
        for path in modules()
        for node in nodes_of(path)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) == "Exception")
    }
    assert found == CATCHING_ALL


def test_who_catches_even_ctrl_c_raises_it_again() -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in modules()
        for node in nodes_of(path)
        if isinstance(node, ast.ExceptHandler)
        and node.type is not None
        and "BaseException" in ast.unparse(node.type)
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    ]
    assert not wrong


def test_tests_do_not_mock() -> None:
    wrong = [name_of(path) for path in suite() if re.search(r"\bmock\b", _imports_of(path))]
    assert not wrong


# --- the tree -------------------------------------------------------------------------------


def test_only_known_entries_are_at_the_top() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in files()} <= TOP_LEVEL


def test_no_two_test_files_have_the_same_name() -> None:
    names = Counter(path.name for path in suite() if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_test_files_are_named_for_their_folder() -> None:
    wrong = []
    for path in suite():
        folder = path.parent.name
        names = ("test_",) if folder == "tests" else (f"test_{folder}_",)
        if path.name.startswith("test_") and not path.name.startswith(names):
            wrong.append(name_of(path))
    assert not wrong


def test_folders_of_tests_mirror_the_package() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    folders = {path.relative_to(ROOT).parts[1] for path in suite() if path.parent.name != "tests"}
    assert folders - packages <= {"docs", "durability", "house", "scenario", "semantics"}


def test_nothing_outside_the_repository_is_named() -> None:
    outside = re.compile(
        "|".join(
            (
                r"(?<![\w.])/(work|root)\b",
                r"(?<![\w.])/tmp/\w",
                r"\b(DESIGN|INTERFACE|STYLE|CLI)\.md\b",
                r"\bpypi\.|pythonhosted|index-url|artifactory|nexus",
                r"\bissues? #?\d",
            )
        )
    )
    wrong = [
        f"{name_of(path)}:{number} {line.strip()}"
        for path in _readable()
        if path != Path(__file__).resolve()
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if outside.search(line)
    ]
    assert not wrong


def _readable() -> list[Path]:
    """The files that people read."""
    suffixes = (".py", ".md", ".toml", "")
    return [path for path in files() if path.suffix in suffixes and path.name != ".gitignore"]


def _imports_of(path: Path) -> str:
    nodes = nodes_of(path)
    return "\n".join(ast.unparse(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom))
