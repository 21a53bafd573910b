"""What is installed: name, version, command, types, and why each dependency is there."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from typing import Any

import pytest
from house_sources import PACKAGE, ROOT, files, text_of

import mbctl
from mbctl import cli, errors

PYPROJECT: dict[str, Any] = tomllib.loads(text_of(ROOT / "pyproject.toml"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
HATCH: dict[str, Any] = PYPROJECT["tool"]["hatch"]


def names_of(requirements: list[str]) -> list[str]:
    """The names of the libraries that are required."""
    return [re.split(r"[^\w-]", requirement)[0] for requirement in requirements]


def test_version_is_a_release_and_said_in_one_place() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", mbctl.__version__)
    assert PROJECT["dynamic"] == ["version"]
    assert HATCH["version"]["path"] == "mbctl/__init__.py"


def test_version_is_the_newest_of_the_changelog() -> None:
    changelog = text_of(ROOT / "docs" / "changelog.md")
    assert re.findall(r"^## (.*)$", changelog, re.MULTILINE)[:2] == [
        "Unreleased",
        mbctl.__version__,
    ]


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_package_runs_as_a_module(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "mbctl", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    if arguments == ["--version"]:
        assert ended.stdout == f"mbctl {mbctl.__version__}\n"
    else:
        assert ended.stdout.startswith("Usage: mbctl ")


def test_public_names_are_told_and_there() -> None:
    own = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__ and name[0] != "_"
    }
    assert set(mbctl.__all__) == own | set(mbctl._HOMES)
    found: dict[str, Any] = {}
    exec("from mbctl import *", found)
    assert set(mbctl.__all__) == found.keys() - {"__builtins__"}


def test_command_is_the_command_line() -> None:
    assert PROJECT["scripts"] == {"mbctl": "mbctl.cli:main"}
    (installed,) = entry_points(group="console_scripts", name="mbctl")
    assert installed.load() is cli.main


def test_wheel_has_the_package_with_its_types_and_nothing_else() -> None:
    assert HATCH["build"]["targets"]["wheel"] == {"packages": ["mbctl"]}
    assert PACKAGE / "py.typed" in files()
    assert PROJECT["license-files"] == ["LICENSE"]
    assert ROOT / "LICENSE" in files()


def test_source_archive_has_what_the_tests_need() -> None:
    included = HATCH["build"]["targets"]["sdist"]["include"]
    assert {"mbctl", "docs", "tests", "scripts", "README.md", "LICENSE"} <= set(included)
    assert [name for name in included if not (ROOT / name).exists()] == []


def test_public_names_are_there_and_at_home() -> None:
    for name, home in mbctl._HOMES.items():
        value = getattr(mbctl, name)
        assert value.__module__ == home
        assert name in dir(mbctl)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = mbctl.Nothing


def test_every_dependency_is_explained_and_bounded() -> None:
    page = text_of(ROOT / "docs" / "decisions" / "dependencies.md")
    assert re.findall(r"^## ([\w-]+)$", page, re.MULTILINE) == names_of(PROJECT["dependencies"])
    for requirement in PROJECT["dependencies"]:
        assert ">=" in requirement, requirement
        assert ",<" in requirement, requirement


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_every_dependency_of_an_extra_is_explained(extra: str) -> None:
    page = text_of(ROOT / "docs" / "decisions" / "dependencies.md")
    for name in names_of(PROJECT["optional-dependencies"][extra]):
        assert re.search(rf"\b{name}\b", page), name


def test_license_is_the_one_that_is_claimed() -> None:
    assert PROJECT["license"] == "MIT"
    assert text_of(ROOT / "LICENSE").startswith("MIT License\n")


@pytest.mark.parametrize(
    "script", ["scripts/install-peers", "scripts/mbctl", "scripts/test", "scripts/check", ".ci/run"]
)
def test_script_can_be_run(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111 == 0o111
    assert text_of(path).startswith("#!/")
