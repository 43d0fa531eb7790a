"""Format, lint, types and the freshness of what is installed, as tests: so that one command checks everything."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from Cython.Build.Dependencies import create_dependency_tree

import kache

ROOT = Path(__file__).parent.parent.parent
FOLDERS = ("kache", "router", "shard")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.pyx"))
"""The sources of the compiled modules, each next to where its module is imported from."""


def run(*arguments: str, cwd: Path = ROOT) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_format() -> None:
    run("ruff", "format", "--check", ".")


def test_lint() -> None:
    run("ruff", "check", ".")


def test_types() -> None:
    run("mypy", "-p", "kache")


def module_of(source: Path) -> str:
    """The name under which a compiled module is imported."""
    parts = source.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "kache" else ("kache", *parts))


@pytest.mark.parametrize("source", SOURCES, ids=module_of)
def test_compiled_module_is_newer_than_its_sources(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    name = module_of(source)
    built = Path(str(importlib.import_module(name).__file__))
    # By the name under which it is compiled: below the root there is another path to it.
    parts = create_dependency_tree().all_dependencies(f"{name.replace('.', '/')}.pyx")
    # Cython's own declarations are none of ours; the environment they lie in may be below the root.
    sources = [path for path in (ROOT / part for part in parts) if any(ROOT / each in path.parents for each in FOLDERS)]
    newest = max([*sources, ROOT / "setup.py"], key=lambda path: path.stat().st_mtime)
    assert source.resolve() in {path.resolve() for path in sources}
    assert built.suffix == ".so", f"{name} is not compiled"
    assert built.stat().st_mtime >= newest.stat().st_mtime, f"{name} is older than {newest.name}: install it again"


def packages() -> list[Path]:
    """The folders that are packages."""
    return sorted(path.parent for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py"))


@pytest.mark.parametrize("folder", packages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_header_of_a_folder_names_its_modules(folder: Path) -> None:
    modules = {path.stem for path in folder.glob("*.py*") if path.suffix in (".py", ".pyx")} - {"__init__", "__main__"}
    folders = {path.parent.name for path in folder.glob("*/__init__.py")}
    header = (folder / "__init__.py").read_text().split('"""')[1]
    words = set(re.findall(r"\w+", header))
    assert modules | folders <= words, f"not named: {sorted((modules | folders) - words)}"


def test_installed_python_is_this_source() -> None:
    installed = Path(str(kache.__file__)).parent
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            relative = path.relative_to(ROOT / "kache" if folder == "kache" else ROOT)
            assert (installed / relative).read_bytes() == path.read_bytes(), (
                f"{path} is not installed: install it again"
            )


def test_every_package_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        module_of(path).removesuffix(".__init__") for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py")
    }
    assert found == set(settings["packages"])


def test_marked_as_typed() -> None:
    folder = Path(str(kache.__file__)).parent
    assert (folder / "py.typed").exists()
    assert (folder / "wire" / "codec.pyi").exists()
    assert (folder / "wire" / "reactor.pxd").exists()
