"""The compiled modules under AddressSanitizer and UBSan: their unit tests, TLS, broken requests, mutated pipelines.

    python tests/soak/sanitized.py [--seconds 600] [--within 280] [--strict] [--keep DIRECTORY] [--only build|tls|mutations|security|unit …]

Builds a copy of the sources with gcc's sanitizers (into DIRECTORY, where what has not changed is not built again; else into a
temporary one) and runs the tests of this folder on it. A report of a sanitizer ends the process that it is about, which
fails what asked it; all reports are printed. Ends with 1 for a report, with 77 where gcc has no sanitizers. A failure without
a report is printed, and counts with `--strict` alone: everything is some times slower here, and what waits until a deadline
may miss it, while the tests themselves have passed on the usual build.
`--within` so many seconds: the unit tests come last, and what they have not done by then is left out, as is said.

Leaks are not looked for: Python does not give everything back at its end. Memory that grows is the subject of kills.py.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import tied

ROOT = Path(__file__).parent.parent.parent
SKIPPED = 77
PARTS = ("build", "tls", "mutations", "security", "unit")

UNIT = ("tests/unit/wire", "tests/unit/router", "tests/unit/shard", "tests/unit/log", "tests/unit/acl")
"""What calls compiled code directly."""
TOO_SLOW = ("tests/unit/shard/test_locks.py::test_expiry_changes_a_watched_key_unless_it_had_expired_before",)
"""What needs to be at some place within milliseconds."""
NOT_HERE = (
    "tests/unit/shard/test_allocation_failures.py",  # brings a malloc of its own
    "tests/unit/log/test_log_tools.py",  # runs programs of the installed package
)
TLS = (
    "tests/e2e/test_tls.py",
    "-k",
    "garbage or broken or killed or leaves or cut or sixty or half_close or key_updates",
)
SECURITY = tuple(
    f"tests/security/test_{name}.py"
    for name in ("crafted_values", "hostile_arguments", "vanishing_clients", "empty_requests", "poisoned_arithmetic", "globs",
                 "malformed_rules", "checked_keys", "script_escapes")
)  # fmt: skip
"""What breaks others by strings, numbers, values and lifetimes."""
FLAGS = "-O0 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize=vptr"
"""Not optimised: the checks are most of what is run, and optimising them takes three times as long as compiling them."""


def library(name: str) -> str:
    """gcc's own path of a sanitizer's library, "" where it has none."""
    try:
        done = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    path = done.stdout.strip()
    return os.path.realpath(path) if os.path.isabs(path) and os.path.exists(path) else ""


def build(directory: Path, seconds: float | None) -> bool:
    """A copy of the sources with sanitized modules in `directory`; False when that takes longer than so many seconds."""
    for name in ("kache", "router", "shard", "deploy"):
        _copy(ROOT / name, directory / name)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        _copy(ROOT / name, directory / name)
    environment = {**os.environ, "KACHE_SANITIZE": FLAGS}
    environment.pop("CFLAGS", None)
    code = run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], environment, seconds, directory)
    if code is None:
        return False
    if code:
        raise SystemExit("sanitized: it cannot be built")
    for built in directory.rglob("*.so"):
        if b"__asan_report" not in built.read_bytes():
            raise SystemExit(f"sanitized: {built.name} was not built with the sanitizers")
    return True


def _copy(source: Path, target: Path) -> None:
    """Copies what is newer; built modules stay behind, and links stay links."""
    if source.is_symlink():
        if not target.is_symlink():
            target.symlink_to(os.readlink(source))
    elif source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for each in source.iterdir():
            if each.suffix != ".so" and each.name != "__pycache__":
                _copy(each, target / each.name)
    elif not target.exists() or source.stat().st_mtime != target.stat().st_mtime:
        shutil.copy2(source, target)


def environment_of(directory: Path, reports: Path) -> dict[str, str]:
    """With which everything runs on the copy."""
    options = f"log_path={reports}/report:halt_on_error=1"
    return {
        **os.environ,
        "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
        "PYTHONPATH": str(directory),
        "PYTHONMALLOC": "malloc",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ASAN_OPTIONS": f"detect_leaks=0:allocator_may_return_null=1:{options}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:{options}",
    }


def run(
    program: Sequence[str], environment: dict[str, str], seconds: float | None, directory: Path = ROOT
) -> int | None:
    """Its exit status; None when it was ended after so many seconds."""
    process = tied.started(program, by=signal.SIGTERM, cwd=directory, env=environment, start_new_session=True)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def shown(reports: Path) -> int:
    """Prints what the sanitizers have reported; how many processes did."""
    found = sorted(reports.glob("report*"))
    for path in found[:10]:
        print(f"--- {path.name}\n" + path.read_text(errors="replace")[:6000], flush=True)
    return len(found)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="of mutated pipelines")
    parser.add_argument("--within", type=float, help="seconds, all in all")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=[])
    parser.add_argument("--workers", default="2")
    parser.add_argument("--strict", action="store_true")
    chosen = parser.parse_args()
    if not library("libasan.so") or not library("libubsan.so"):
        print("sanitized: skipped, since this gcc has no libasan and libubsan (Debian: apt-get install gcc)")
        return SKIPPED
    wanted = chosen.only or PARTS
    end = None if chosen.within is None else time.monotonic() + chosen.within
    with tempfile.TemporaryDirectory(prefix="kache-sanitized-") as temporary:
        directory = chosen.keep or Path(temporary, "copy")
        reports = Path(temporary, "reports")
        reports.mkdir()
        directory.mkdir(parents=True, exist_ok=True)
        failed = []
        if "build" in wanted:
            began = time.monotonic()
            if not build(directory, chosen.within):
                print("sanitized: nothing was tried, since it was not built in the time allowed")
                return 0
            print(f"sanitized: built in {time.monotonic() - began:.0f} s", flush=True)
        environment = environment_of(directory.resolve(), reports)
        left_out = [f"--ignore={path}" for path in NOT_HERE] + [f"--deselect={test}" for test in TOO_SLOW]
        pytest = [str(Path(sys.executable).with_name("pytest")), "-q", "-p", "no:cacheprovider", "--timeout=240",
                  "--numprocesses", chosen.workers, "--dist", "loadfile"]  # fmt: skip
        programs = {
            "tls": [*pytest, *TLS],
            "mutations": [sys.executable, "tests/soak/mutations.py", "--seconds", str(chosen.seconds), "--routers", "1",
                          "--shards", "2"],
            "security": [*pytest, *SECURITY],
            "unit": [*pytest, *UNIT, *left_out],
        }  # fmt: skip
        for name, program in programs.items():
            if name in wanted:
                began = time.monotonic()
                left = None if end is None else max(end - began, 1.0)
                code = run(program, environment, left)
                how = f"ended with {code}" if code is not None else "ran as far as the time allowed: ended"
                print(f"sanitized: {name} {how} after {time.monotonic() - began:.0f} s", flush=True)
                failed += [name] if code else []
        reported = shown(reports)
        print(f"sanitized: {reported} reports; failed: {', '.join(failed) or 'nothing'}")
        return 1 if reported or (failed and chosen.strict) else 0


if __name__ == "__main__":
    sys.exit(main())
