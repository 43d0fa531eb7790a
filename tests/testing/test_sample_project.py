"""The plugin as others use it: the tests of a project that has installed it, alone and with eight workers at once.

`make wheel` runs the same project on a wheel.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import alive, until

SAMPLE = Path(__file__).parent.parent / "sample_project"
SECONDS = 240


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, away from this repository's settings."""
    return Path(shutil.copytree(SAMPLE, tmp_path / "project"))


def environment(base: Path) -> dict[str, str]:
    """Clusters keep their sockets below `base`, and what is temporary beside it: nothing may be left in either."""
    temporary = base.parent / "temporary"
    temporary.mkdir(exist_ok=True)
    return {**os.environ, "KACHE_RUN_DIR": str(base), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}


def left(base: Path) -> list[str]:
    """Files of clusters of that environment."""
    return [path.name for path in (*base.iterdir(), *base.parent.glob("temporary/kache-*"))]


def pytest_of(project: Path, base: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=project,
        env=environment(base),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def supervisors(base: Path) -> list[int]:
    """Pids of the clusters that have a lock below `base`."""
    return [int(path.read_text().split()[1]) for path in base.glob("*.lock") if path.read_text().startswith("pid ")]


@pytest.mark.parametrize("workers", [(), ("-n", "8")], ids=["alone", "eight-workers"])
def test_the_sample_project(project: Path, tmp_path: Path, workers: tuple[str, ...]) -> None:
    done = pytest_of(project, tmp_path / "run", "-q", *workers)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^15 passed", done.stdout, re.MULTILINE), done.stdout
    assert not left(tmp_path / "run")


def test_nothing_is_left_when_pytest_is_killed(project: Path, tmp_path: Path) -> None:
    (project / "test_endless.py").write_text(
        "import pytest, time\n"
        "@pytest.mark.kache(appendonly=True)\n"
        "def test_endless(kache, kache_cluster):\n"
        "    kache.set('key', 'value')\n"
        "    kache_cluster.fault.stop(shard=0)\n"
        "    print('here', flush=True)\n"
        "    time.sleep(600)\n"
    )
    base = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "test_endless.py"],
        cwd=project,
        env=environment(base),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert until(lambda: "here" in process.stdout.readline(), "the test is running")
        pids = supervisors(base)
        assert len(pids) == 1
        assert list(tmp_path.glob("temporary/kache-test-*/epoch-1/shard-0000/*.log"))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    until(lambda: not alive(pids[0]), "the end of the cluster")
    until(lambda: not left(base), "the end of its files")


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("shard=4", "No such option '--shard'"),
        ("maxmemory='much'", "maxmemory must be a size"),
        ("4", "settings of @pytest.mark.kache are named"),
    ],
)
def test_a_mark_that_cannot_be_meant(project: Path, tmp_path: Path, mark: str, said: str) -> None:
    (project / "test_wrong.py").write_text(
        f"import pytest\n@pytest.mark.kache({mark})\ndef test_wrong(kache):\n    pass\n"
    )
    done = pytest_of(project, tmp_path / "run", "-q", "test_wrong.py")
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_failed_test_shows_the_log_of_its_cluster(project: Path, tmp_path: Path) -> None:
    (project / "test_fails.py").write_text(
        "def test_fails(kache, kache_cluster):\n    kache_cluster.fault.kill(shard=1)\n    assert kache.get('a')\n"
    )
    done = pytest_of(project, tmp_path / "run", "-q", "test_fails.py")
    assert "log of the Kache cluster" in done.stdout
    assert "shard 1" in done.stdout and "killed by SIGKILL" in done.stdout
