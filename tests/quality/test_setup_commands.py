"""`make start` and `make test` where something is missing: one sentence that says how to get it, never a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
OF_MAKE = {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "ARGS", "PYTHON", "VENV"}


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a copy of this environment with these changes, as if no make had started the tests."""
    around = {name: value for name, value in os.environ.items() if name not in OF_MAKE} | environment
    return subprocess.run(list(map(str, command)), cwd=ROOT, env=around, capture_output=True, text=True, check=False)


def lack(function: str, prepare: str = "pass", **environment: str) -> str:
    """What a function of deploy/toolchain.py says."""
    program = (
        f"import sys; sys.path.insert(0, {str(DEPLOY)!r}); import toolchain; {prepare}; print(toolchain.{function}())"
    )
    done = run(sys.executable, "-c", program, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def is_a_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text and "Traceback" not in text


def test_nothing_is_missing_here() -> None:
    assert lack("missing_compiler") == lack("missing_venv") == ""


def test_no_compiler(tmp_path: Path) -> None:
    said = lack("missing_compiler", PATH=str(tmp_path), CC="cc")
    assert said.startswith("Kache compiles its data path, and there is no C compiler (cc): ")
    assert is_a_sentence(said)


def test_no_headers() -> None:
    said = lack("missing_compiler", "toolchain.sysconfig.get_path = lambda name: '/nowhere'")
    assert "Python.h of Python 3." in said
    assert is_a_sentence(said)


def test_a_compiler_without_its_own_headers(tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'x.c:1:10: fatal error: stdio.h: No such file or directory' >&2\nexit 1\n")
    compiler.chmod(0o755)
    said = lack("missing_compiler", CC=str(compiler))
    assert f"{compiler} does not work (x.c:1:10: fatal error: stdio.h: No such file or directory): " in said
    assert is_a_sentence(said)


def test_no_venv_module() -> None:
    said = lack("missing_venv", "sys.modules['ensurepip'] = None")
    assert said.startswith(f"{sys.executable} has no venv module: ")
    assert is_a_sentence(said)


@pytest.mark.parametrize(
    ("system", "manager", "packages"),
    [
        ("linux", "apt-get", "apt-get install gcc libc6-dev python3-dev"),
        ("linux", "dnf", "dnf install gcc python3-devel"),
        ("darwin", "", "xcode-select --install"),
        ("linux", "", "install gcc"),
    ],
)
def test_the_package_is_that_of_the_system(system: str, manager: str, packages: str) -> None:
    found = f"toolchain.shutil.which = lambda name, path=None: name == {manager!r}"
    prepare = f"toolchain.sysconfig.get_config_vars(); sys.platform = {system!r}; {found}"
    assert packages in lack("missing_compiler", prepare)


def test_a_build_without_a_compiler_ends_with_the_sentence(tmp_path: Path) -> None:
    done = run(
        sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", tmp_path, "--build-temp", tmp_path,
        PATH=str(tmp_path), CC="cc",
    )  # fmt: skip
    assert done.returncode == 1
    assert is_a_sentence(done.stderr.strip())


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
class TestMake:
    @pytest.mark.parametrize("command", ["start", "test", "wheel"])
    def test_no_python_that_is_new_enough(self, command: str) -> None:
        done = run("make", command, "PYTHON=python-of-nobody")
        assert done.returncode == 2
        first, _, rest = done.stderr.partition("\n")
        assert first.startswith("Kache needs Python 3.11 or newer; python-of-nobody is missing or older: get one")
        assert rest.startswith("make: ***")

    def test_help_names_every_command(self) -> None:
        done = run("make", "help")
        assert all(f"make {command} " in done.stdout for command in ("start", "test", "wheel"))

    def test_an_environment_without_a_compiler_is_not_begun(self, tmp_path: Path) -> None:
        place = tmp_path / "environment"
        done = run(sys.executable, DEPLOY / "environment.py", place, PATH=str(tmp_path), CC="cc")
        assert done.returncode == 1
        assert is_a_sentence(done.stderr.strip())
        assert not place.exists()

    def test_an_environment_that_is_up_to_date_is_left_alone(self, tmp_path: Path) -> None:
        program = (
            f"import sys; sys.path.insert(0, {str(DEPLOY)!r}); import environment; print(environment.fingerprint([]))"
        )
        (tmp_path / "installed").write_text(run(sys.executable, "-c", program).stdout.strip())
        done = run(sys.executable, DEPLOY / "environment.py", tmp_path, PATH=str(tmp_path), CC="cc")
        assert (done.returncode, done.stderr) == (0, "")
        assert [path.name for path in tmp_path.iterdir()] == ["installed"]
