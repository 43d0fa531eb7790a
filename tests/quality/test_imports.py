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
    if ".p" in path.suffix and path.suffix in (".py", ".pyx", ".pxi", ".pxd")
)  # fmt: skip
IMPORT = re.compile(r"^\s*(?:from\s+(\S+)\s+c?import\s+(.+)|c?import\s+(.+))$")

IO_MODULES = {"asyncio", "socket", "threading", "selectors", "uvloop"}
OWNERS_OF_IO = {
    "kache/wire/reactor.pyx",  # descriptors under the loop
    "kache/cli/bench.py",
    "kache/cli/cluster.py",
    "kache/cli/connection.py",
    "kache/client/async_pubsub.py",
    "kache/client/asynchronous.py",
    "kache/client/blocking.py",
    "kache/client/near.py",
    "kache/client/pubsub.py",
    "kache/cluster/admins.py",
    "kache/cluster/children.py",
    "kache/cluster/control.py",
    "kache/cluster/listeners.py",
    "kache/cluster/modules.py",
    "kache/cluster/resources.py",
    "kache/cluster/service_manager.py",
    "kache/cluster/supervisor.py",
    "kache/cluster/writing.py",
    "kache/load/generator.py",
    "kache/load/worker.py",
    "kache/metrics/main.py",
    "kache/metrics/pages.py",
    "kache/metrics/server.py",
    "kache/metrics/source.py",
    "kache/module/source.py",  # asks which threads there are
    "kache/testing/director.py",
    "router/accounts.py",  # a wrong password is answered late
    "kache/backend/conversation.py",
    "router/cluster/asking.py",  # a connection of its own for a question
    "router/cluster/blocking.py",
    "router/cluster/commands.py",  # asks several nodes at once
    "router/cluster/director.py",
    "router/cluster/exclusive.py",
    "router/cluster/scan.py",  # waits between two tries
    "router/cluster/sets.py",  # asks several nodes at once
    "router/cluster/subscriber.py",
    "router/cluster/waiting.py",  # asks several nodes at once
    "router/commands/hotkeys.py",  # asks all shards at once
    "router/commands/persistence.py",  # waits between two looks
    "router/commands/readiness.py",  # asks all shards at once
    "router/commands/statistics.py",  # asks all shards at once
    "router/commands/tracking.py",  # tells other routers, and does not wait for it
    "router/main.py",
    "router/mux/multiplexer.pyx",
    "router/mux/router.pxi",
    "shard/log/beginning.py",
    "shard/log/pace.py",
    "shard/log/persistence.py",
    "shard/log/writer.pyx",
    "shard/main.py",
    "shard/service/cleanup.py",
    "shard/service/keeping.py",
    "shard/service/loading.py",
    "shard/service/watchdog.py",  # asks which thread it is in
}

MAY_IMPORT = {
    "ground": {"wire"},  # the slot hash and the doubles of replies are compiled
    "wire": {"ground"},
    "commands": {"ground", "config"},  # which settings are secret
    "module": {"ground", "commands"},
    "acl": {"ground", "commands", "config"},  # sizes, as settings have them
    "backend": {"ground", "wire"},
    "config": {"ground", "backend"},
    "client": {"ground", "config"},
    "cluster": {"ground", "wire", "acl", "backend", "config"},
    "load": {"ground", "client"},
    "metrics": {"ground", "acl", "client", "cluster", "config"},
    "testing": {"ground", "client", "cluster"},
    "cli": {"ground", "wire", "backend", "commands", "config", "client", "cluster", "load"},
    "router": {"ground", "wire", "backend", "commands", "acl", "module", "config", "cluster"},
    "shard": {"ground", "wire", "commands", "acl", "module", "config", "cluster"},
}
"""Which household uses which. `ground` is what lies directly in kache/."""

DOORS = {"kache/__init__.py", "kache/__main__.py"}
"""They lead to the clients and to the command line, and import what they are asked for."""


def household(path: Path) -> str:
    """The part of the house that a source file belongs to."""
    if path.parts[0] != "kache":
        return path.parts[0]
    return path.parts[1] if len(path.parts) > 2 else "ground"


def household_of_module(module: str) -> str | None:
    """The same for the name of a module; None for what is not of this house."""
    parts = module.split(".")
    if parts[0] != "kache" or len(parts) == 1:
        return None
    if parts[1] in ("router", "shard"):
        return parts[1]
    return parts[1] if (ROOT / "kache" / parts[1]).is_dir() else "ground"


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
    here = household(path)
    for module, relative in imports(path):
        if relative:
            continue
        there = household_of_module(module)
        if there is not None and str(path) not in DOORS:
            assert here not in ("router", "shard") or there != here, f"{module}: siblings are imported relatively"
            assert there in MAY_IMPORT[here] | {here}, f"{module}: {here} must not import {there}"
        if module.partition(".")[0] in IO_MODULES:
            assert str(path) in OWNERS_OF_IO, f"{module}: only modules that own I/O import it"


def test_the_rule_sees_something() -> None:
    assert len(SOURCES) > 100
    assert {household(path) for path in SOURCES} == set(MAY_IMPORT)
    assert ("kache.errors", False) in list(imports(Path("kache/wire/codec.pyx")))
