"""What is given to users: the contents of sdist and wheel, and the one version and the Pythons they speak of.

That both also build and work where there is no compiler is tried by `make wheel`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import kache

ROOT = Path(__file__).parent.parent.parent
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = {".html", ".lua", ".py", ".pyx", ".pxi", ".pxd", ".pyi"}
IN_A_WHEEL = {".html", ".lua", ".py", ".pxd", ".pyi"}


def setup(*arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def sources(suffixes: set[str]) -> set[str]:
    """The files of the package, each by its path in it: kache/router/main.py."""
    found = {"kache/py.typed"}
    for folder in ("kache", "router", "shard"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in suffixes:
                relative = path.relative_to(ROOT).as_posix()
                found.add(relative if folder == "kache" else f"kache/{relative}")
    return found


def test_a_sdist_has_every_source_once_and_nothing_that_was_made_of_them(tmp_path: Path) -> None:
    setup("egg_info", "--egg-base", tmp_path)
    listed = (tmp_path / "kache_cluster.egg-info" / "SOURCES.txt").read_text().splitlines()
    beside = {
        "CHANGELOG.md",
        "LICENSE",
        "MANIFEST.in",
        "README.md",
        "deploy/toolchain.py",
        "deploy/translation.py",
        "pyproject.toml",
        "setup.py",
    }
    contents = [path for path in listed if ".egg-info/" not in path]
    assert len(contents) == len(set(contents))
    assert set(contents) == sources(SOURCES) | beside


def test_a_wheel_has_what_is_imported_and_what_others_compile_against(tmp_path: Path) -> None:
    setup("build_py", "--build-lib", tmp_path)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path for path in found if "__pycache__" not in path} == sources(IN_A_WHEEL)


def test_one_version() -> None:
    done = subprocess.run([sys.executable, "-m", "kache", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"kache, version {kache.__version__}\n"
    assert metadata.version("kache-cluster") == kache.__version__
    assert re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == kache.__version__


def test_the_same_pythons_everywhere() -> None:
    """The oldest and the newest are said in many places."""
    classifiers = [each.rpartition(" :: ")[2] for each in SETTINGS["project"]["classifiers"] if "Python :: 3." in each]
    oldest = classifiers[0]
    assert SETTINGS["project"]["requires-python"] == f">={oldest}"
    assert SETTINGS["tool"]["mypy"]["python_version"] == oldest
    assert SETTINGS["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    wheels = [f"cp{each.replace('.', '')}-*" for each in classifiers]
    assert SETTINGS["tool"]["cibuildwheel"]["build"] == wheels
    assert f"python{oldest}; do" in (ROOT / "Makefile").read_text()
    for page in ("README.md", "Makefile"):
        assert f"Python {oldest} or newer" in (ROOT / page).read_text(), page


@pytest.mark.parametrize("system", ["Linux", "MacOS"])
def test_the_systems_are_classified(system: str) -> None:
    assert any(each.endswith(system) for each in SETTINGS["project"]["classifiers"])
