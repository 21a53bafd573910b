"""The source files of the project, parsed once for all rules."""

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mbctl"


@cache
def files() -> list[Path]:
    """All files that belong to the project, committed or about to be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return sorted(path for path in paths if path.is_file())


def modules() -> list[Path]:
    """The modules of the package."""
    return [path for path in files() if path.suffix == ".py" and PACKAGE in path.parents]


def suite() -> list[Path]:
    """The Python files among the tests."""
    return [path for path in files() if path.suffix == ".py" and ROOT / "tests" in path.parents]


def name_of(path: Path) -> str:
    """The path within the project."""
    return path.relative_to(ROOT).as_posix()


@cache
def text_of(path: Path) -> str:
    """The content of a file."""
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    """A parsed module."""
    return ast.parse(text_of(path), name_of(path))


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """All nodes of a parsed module."""
    return list(ast.walk(tree_of(path)))
