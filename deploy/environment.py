"""The environment that `make start` and `make test` run in: made, filled and brought up to date, only as far as needed.

    python3 deploy/environment.py DIRECTORY [EXTRA ...]

Kache is installed there from this folder, editable: a changed Python file needs nothing, a changed source of a compiled
module one installation, which compiles that module. What Kache is built with (setuptools, Cython) is in there, too. Says what it does; what is missing is one sentence, status 1.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolchain import missing_compiler, missing_venv

ROOT = Path(__file__).resolve().parent.parent
COMPILED = (".pyx", ".pxi", ".pxd")


def fingerprint(extras: list[str]) -> str:
    """Changes with whatever an installation depends on: the Python, the extras, the settings, every compiled source."""
    found = hashlib.blake2b(repr((ROOT, sys.version, sorted(extras))).encode())
    parts = [path for folder in ("kache", "router", "shard") for path in (ROOT / folder).rglob("*.p*")]
    for path in [ROOT / "pyproject.toml", ROOT / "setup.py", *sorted(parts)]:
        if path.suffix in COMPILED or path.parent == ROOT:
            found.update(f"{path} {path.stat().st_mtime_ns}\n".encode())
        elif path.name == "__init__.py":  # a package that has come or gone
            found.update(f"{path}\n".encode())
    return found.hexdigest()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(*command: str | Path) -> None:
    """Quiet as long as it goes well."""
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        failed(command, done.stdout)


def failed(command: tuple[str | Path, ...], said: str) -> None:
    say(said.rstrip())
    raise SystemExit(f"`{' '.join(map(str, command))}` failed; what it said is above.")


def make(place: Path) -> None:
    """An empty environment of this Python."""
    say(f"Making an environment of Python {sys.version.split()[0]} in {os.path.relpath(place)} ...")
    # Of the Python that this one was made from: an environment must not depend on another one.
    python = Path(getattr(sys, "_base_executable", sys.executable))
    run(python, "-m", "venv", "--clear", place)


def install(place: Path, extras: list[str]) -> None:
    """Kache and what it needs, into the environment: what it needs is fetched while the modules are compiled."""
    say(f"Installing Kache{' and what its tests need' if 'test' in extras else ''}, compiling what has changed ...")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = settings["project"]
    needed = [*project["dependencies"], *(each for name in extras for each in project["optional-dependencies"][name])]
    python = place / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    # Not isolated: an environment of its own for every build would be filled with Cython anew each time.
    run(*pip, *settings["build-system"]["requires"])
    with beside(*pip, "--no-build-isolation", "--no-deps", "-e", "."):
        run(*pip, *needed)


@contextmanager
def beside(*command: str | Path) -> Iterator[None]:
    """Runs the command while the block runs, and as long as it takes."""
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=said, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield
        except BaseException:
            process.terminate()
            raise
        if process.wait():
            said.seek(0)
            failed(command, said.read())


def main(place: Path, extras: list[str]) -> None:
    """Bring the environment up to date; returns at once where it is."""
    stamp = place / "-".join(["installed", *extras])
    wanted = fingerprint(extras)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if missing := missing_venv() or missing_compiler():
        raise SystemExit(missing)
    owner = place / "python"
    if not owner.exists() or owner.read_text() != sys.version:
        make(place)
        owner.write_text(sys.version)
    install(place, extras)
    stamp.write_text(wanted)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
