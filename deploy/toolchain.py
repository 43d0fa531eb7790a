"""What compiling Kache needs on this machine, and how to get it: every lack is one sentence.

Used by setup.py before it compiles and by deploy/environment.py before it installs; uses nothing but Python's library.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile

__all__ = ["missing_compiler", "missing_venv"]

COMPILER = {
    "apt-get": "apt-get install gcc libc6-dev python3-dev",
    "dnf": "dnf install gcc python3-devel",
    "zypper": "zypper install gcc python3-devel",
    "pacman": "pacman -S gcc",
    "apk": "apk add gcc musl-dev python3-dev",
    "darwin": "xcode-select --install",
}
HEADERS = {
    "apt-get": "apt-get install python3-dev",
    "dnf": "dnf install python3-devel",
    "zypper": "zypper install python3-devel",
    "pacman": "pacman -S python",
    "apk": "apk add python3-dev",
    "darwin": "xcode-select --install",
}
VENV = {"apt-get": "apt-get install python3-venv"}


def missing_venv() -> str:
    """Why this Python cannot make an environment, or an empty string."""
    try:
        import ensurepip  # noqa: F401  # Debian leaves it out of its Python
        import venv  # noqa: F401
    except ImportError:
        return f"{sys.executable} has no venv module: {_get(VENV, 'install the venv and ensurepip of Python')}."
    return ""


def missing_compiler() -> str:
    """Why a C file that includes Python.h cannot be compiled here, or an empty string."""
    why = "Kache compiles its data path"
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if not shutil.which(command[0]):
        return f"{why}, and there is no C compiler ({command[0]}): {_get(COMPILER, 'install gcc')}."
    folders = sorted({sysconfig.get_path("include"), sysconfig.get_path("platinclude")})
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if not any(os.path.exists(os.path.join(folder, "Python.h")) for folder in folders):
        return f"{why}, and Python.h of Python {version} is missing: {_get(HEADERS, 'install the headers of Python')}."
    flags = [*shlex.split(os.environ.get("CFLAGS", "")), *(f"-I{folder}" for folder in folders)]
    if said := _try_to_compile([*command, *flags]):
        return (
            f"{why}, and {command[0]} does not work ({said}): {_get(COMPILER, 'install the headers of C and Python')}."
        )
    return ""


def _get(commands: dict[str, str], otherwise: str) -> str:
    """How to get what is missing: the command of this system."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"
    found = [sys.platform] if sys.platform in commands else [name for name in commands if shutil.which(name, path=path)]
    return f"get it with `{commands[found[0]]}`" if found else otherwise


def _try_to_compile(command: list[str]) -> str:
    """The compiler's complaint about a file that includes Python.h, or an empty string."""
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "try.c")
        with open(source, "w") as file:
            file.write("#include <Python.h>\n")
        done = subprocess.run(
            [*command, "-c", source, "-o", f"{source}.o"], capture_output=True, text=True, check=False
        )
    if not done.returncode:
        return ""
    lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
    return next((line for line in lines if "error" in line), lines[-1]).strip().rstrip(".")
