"""The import rule: imports run one way, and only the modules that own I/O import asyncio, socket or threading."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted(
    path.relative_to(ROOT) for folder in ("kache", "router", "shard") for path in (ROOT / folder).rglob("*.p[yx]*")
    if path.suffix in (".py", ".pyx", ".pxi", ".pxd")
)  # fmt: skip
IMPORT = re.compile(r"^\s*(?:from\s+(\S+)\s+c?import\s+(.+)|c?import\s+(.+))$")

IO_MODULES = {"asyncio", "socket", "threading", "selectors", "uvloop"}
OWNERS_OF_IO = {
    "kache/_reactor.pyx",  # descriptors under the loop
    "kache/aclient.py",
    "kache/admins.py",
    "kache/client.py",
    "kache/children.py",
    "kache/cli/cluster.py",
    "kache/cli/connection.py",
    "kache/control.py",
    "kache/listeners.py",
    "kache/place.py",
    "kache/loadgen.py",
    "kache/loadworker.py",
    "kache/supervisor.py",
    "router/_mux.pyx",
    "router/main.py",
    "router/router.pxi",
    "shard/cleanup.py",
    "shard/main.py",
}
PARTS_OF_THE_CLI = {"cli", "__main__.py", "loadgen.py"}
LOWEST = {"kache/errors.py", "kache/slots.py", "kache/replies.py", "kache/linkproto.py", "kache/settings.py"}
MAY_IMPORT_LOWEST = {"kache._doubles", "kache.errors", "kache.settings", "kache._wire", "kache.replies"}
"""What the lowest modules may import of this package."""


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, relative) of every import in a Python or Cython file, those for type checking left out."""
    text = (ROOT / path).read_text()
    if path.suffix == ".py":
        yield from _python_imports(ast.parse(text))
        return
    for line in text.splitlines():
        match = IMPORT.match(line.split("#")[0])
        if match:
            if match[1]:
                yield match[1], match[1].startswith(".")
            else:
                yield from ((name.split(" as ")[0].strip(), False) for name in match[3].split(","))


def _python_imports(node: ast.AST) -> Iterator[tuple[str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, False) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = child.module or ""
            yield module, child.level > 0
            yield from ((f"{module}.{alias.name}", child.level > 0) for alias in child.names)
        yield from _python_imports(child)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_import_rule(path: Path) -> None:
    folder = path.parts[0]
    for module, relative in imports(path):
        if relative:
            continue
        for other in ("router", "shard"):
            if folder == other:
                assert not module.startswith(f"kache.{other}"), f"{module}: siblings are imported relatively"
            else:
                assert not module.startswith(f"kache.{other}"), f"{module}: {folder} must not import {other}"
        if module.partition(".")[0] in IO_MODULES:
            assert str(path) in OWNERS_OF_IO, f"{module}: only modules that own I/O import it"
        if str(path) in LOWEST and module.startswith("kache."):
            assert any(module.startswith(allowed) for allowed in MAY_IMPORT_LOWEST), f"{module} lies above"
        if f"{module}.".startswith("kache.cli."):
            assert path.parts[1] in PARTS_OF_THE_CLI, "only the command line imports kache.cli"


def test_the_rule_sees_something() -> None:
    assert len(SOURCES) > 40
    assert ("kache.errors", False) in list(imports(Path("kache/_wire.pyx")))
