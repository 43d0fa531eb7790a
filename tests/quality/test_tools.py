"""Format, lint, types and the freshness of what is installed, as tests: so that one command checks everything."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import kache

ROOT = Path(__file__).parent.parent.parent
PACKAGES = {"kache": ROOT / "kache", "kache.router": ROOT / "router", "kache.shard": ROOT / "shard"}
EXTENSION_MODULES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
EXTENSIONS = {entry["name"]: entry["sources"][0] for entry in EXTENSION_MODULES}


def run(*arguments: str, cwd: Path = ROOT) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_format() -> None:
    run("ruff", "format", "--check", ".")


def test_lint() -> None:
    run("ruff", "check", ".")


def test_types(tmp_path: Path) -> None:
    # Laid out as it is installed: mypy cannot follow the finder of an editable installation.
    for package, folder in PACKAGES.items():
        shutil.copytree(folder, tmp_path / package.replace(".", "/"), dirs_exist_ok=True)
    run("mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", "kache", cwd=tmp_path)


@pytest.mark.parametrize("name", EXTENSIONS)
def test_compiled_module_is_newer_than_its_sources(name: str) -> None:
    built = Path(str(importlib.import_module(name).__file__))
    source = ROOT / EXTENSIONS[name]
    sources = [source, *included(source), *(ROOT / "kache").glob("*.pxd")]
    newest = max(sources, key=lambda path: path.stat().st_mtime)
    assert built.suffix == ".so", f"{name} is not compiled"
    assert built.stat().st_mtime >= newest.stat().st_mtime, f"{name} is older than {newest.name}: install it again"


@pytest.mark.parametrize("name", EXTENSIONS)
def test_a_source_distribution_has_every_included_file(name: str) -> None:
    entry = next(entry for entry in EXTENSION_MODULES if entry["name"] == name)
    wanted = sorted(str(path.relative_to(ROOT)) for path in included(ROOT / EXTENSIONS[name]))
    assert entry.get("depends", []) == wanted, f"pyproject.toml: the `depends` of {name}"


def included(source: Path) -> set[Path]:
    """The files that `source` includes, and those that they include."""
    found: set[Path] = set()
    for line in source.read_text().splitlines():
        if line.startswith("include "):
            path = source.parent / line.split(" ", 1)[1].strip("\"'")
            found |= {path} | included(path)
    return found


def test_installed_python_is_this_source() -> None:
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            relative = path.relative_to(folder)
            installed = Path(os.path.dirname(str(importlib.import_module(package).__file__))) / relative
            assert installed.read_bytes() == path.read_bytes(), f"{path} is not what is installed: install it again"


def test_marked_as_typed() -> None:
    folder = Path(os.path.dirname(str(kache.__file__)))
    assert (folder / "py.typed").exists()
    assert (folder / "_wire.pyi").exists()
    assert (folder / "_reactor.pxd").exists()
