"""The text of a module's file, executed: in the process that tries it, and then in every shard.

Not by Python's own import: shards get the text that was tried, whatever has become of the file. Code that goes wrong is
shown with its own lines in tracebacks all the same.
"""

from __future__ import annotations

import linecache
import os
import re
import sys
import threading
import types
from collections.abc import Iterable

from kache.errors import KacheError

from .declare import DECLARED, Declaration

__all__ = ["ModuleError", "execute", "module_name", "reason_of"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class ModuleError(KacheError):
    """A file that is no module of commands; the message is one sentence without its full stop."""


def module_name(path: str) -> str:
    """What a module is called: its file without folder and ``.py``. Raises ModuleError for what is no name."""
    name = os.path.basename(path).removesuffix(".py")
    if not _NAME.fullmatch(name):
        raise ModuleError(f"a module is called as its file, and '{name}' is no name of letters, digits and underscores")
    return name


def execute(name: str, path: str, source: str) -> list[Declaration]:
    """The commands that the text of a file declares. Raises ModuleError with what went wrong."""
    before = set(threading.enumerate())
    module = types.ModuleType(f"kache_module_{name}")
    module.__file__ = path
    _remember_lines(path, source)
    shadowed = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module  # dataclasses and the like look their module up
    try:
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
        _check_threads(before)
    except ModuleError:
        _put_back(module.__name__, shadowed)
        raise
    except BaseException as error:  # the file may say sys.exit()
        _put_back(module.__name__, shadowed)
        raise ModuleError(reason_of(error, path)) from error
    declared: list[Declaration] = module.__dict__.get(DECLARED, [])
    if not declared:
        _put_back(module.__name__, shadowed)
        raise ModuleError("it declares no command: put @command(…) of kache.module before a function")
    return declared


def reason_of(error: BaseException, path: str) -> str:
    """What went wrong in a file, and in which of its lines: ``line 3: ValueError: no such thing``."""
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == path else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"line {line}: {said}" if line else said


def _remember_lines(path: str, source: str) -> None:
    # Without a time of change it is not compared with the file.
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)


def _put_back(name: str, module: types.ModuleType | None) -> None:
    if module is None:
        del sys.modules[name]
    else:
        sys.modules[name] = module


def _check_threads(before: Iterable[threading.Thread]) -> None:
    started = set(threading.enumerate()) - set(before)
    if started:
        names = ", ".join(sorted(thread.name for thread in started))
        raise ModuleError(f"it starts a thread ({names}), which would keep its shard from working")
