"""Programs that start servers (bench/, tests/soak) end them, whatever ends the program."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import alive, until

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import sys, time
sys.path[:0] = [{tests!r}, {bench!r}]
from cluster import Cluster
from contenders import Kache, Redis
try:
    contenders = [Kache(1), Redis()]
    with Cluster(1) as cluster:
        for each in contenders:
            each.start()
        pids = [member.pid for each in contenders for member in each.members()]
        print(*pids, *cluster._pids, cluster.process.pid, flush=True)
        print(cluster.directory, *[each.directory for each in contenders], flush=True)
        time.sleep(600)
finally:
    for each in contenders:
        each.stop()
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_a_program_ends_what_it_started(how: signal.Signals, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(tests=str(ROOT / "tests"), bench=str(ROOT / "bench")))
    running = subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout is not None
        pids = [int(pid) for pid in running.stdout.readline().split()]
        folders = [Path(name) for name in running.stdout.readline().split()]
        assert len(pids) >= 8 and all(map(alive, pids)), pids
        running.send_signal(how)
        _, said = running.communicate(timeout=60)
    finally:
        running.kill()
        running.wait()
    until(lambda: not any(map(alive, pids)), "the end of all of them")
    if how is signal.SIGKILL:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)  # nobody was left to do it
    else:
        assert not any(map(Path.exists, folders))
        assert how is signal.SIGINT or said == f"{program}: ended by {how.name}\n"


def test_all_programs_start_servers_so() -> None:
    """Another way to start one would leave it behind."""
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in (ROOT / "bench", ROOT / "tests" / "soak")
        for path in sorted(folder.rglob("*.py"))
        for line in path.read_text().splitlines()
        if re.search(r"\bPopen\(|create_subprocess_|os\.spawn", line)
    ]
    assert not found
