"""``python -m kache.client.stubs > kache/client/recorded.pyi``: the methods of pipelines, for type checkers.

At run time a pipeline finds the method of that name in `Commands` (`kache.client.pipeline`). Every one records the command and
returns the pipeline, with the parameters that it has in the client: so the stub is made of the source of `Commands`, and
a test says when it is to be made anew.
"""

from __future__ import annotations

import ast
from pathlib import Path

__all__ = ["recorded_stub"]

HERE = Path(__file__).parent
LEFT_OUT = ("scan_iter",)
HEAD = '''"""The methods of pipelines. Made of `Commands` by ``python -m kache.client.stubs``; do not edit it."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Self, overload

from kache.client.arguments import Time
from kache.client.codec import Argument
from kache.client.commands import Key

class RecordedCommands:
'''


def recorded_stub() -> str:
    """The text of ``recorded.pyi``, not formatted."""
    tree = ast.parse((HERE / "commands.py").read_text())
    commands = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Commands")
    lines = [HEAD.rstrip("\n")]
    overloaded: set[str] = set()
    for node in commands.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.name not in LEFT_OUT:
            if "self._wait(" in ast.unparse(node):
                continue  # no pipeline waits
            if node.decorator_list:
                overloaded.add(node.name)
                lines.append("    @overload")
            elif node.name in overloaded:
                continue  # the one that does it; its overloads say all
            lines.append(f"    def {node.name}({ast.unparse(node.args)}) -> Self: ...")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(recorded_stub(), end="")
