"""Programs that keep something in Redis, unchanged in front of a real cluster: Django, Celery, kombu, rq.

The programs are those of `tests/clients`, which have never heard of a cluster; with `backend-transactions split`, since they
write several keys in one MULTI.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from six_nodes import KINDS, PATIENT, six_nodes

from kache.testing.cluster import LocalCluster

PROGRAMS = Path(__file__).parent.parent / "clients"
INSTALL_SECONDS = 180
RUN_SECONDS = 240


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of Kache in front of a cluster."""
    with (
        six_nodes(KINDS[0], replicas=0) as nodes,
        LocalCluster(shards=0, backend=nodes.url, backend_transactions="split", **PATIENT) as front,
    ):
        yield front.port


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment with what the programs use."""
    folder = tmp_path_factory.mktemp("libraries")
    requirements = ["celery>=5.4", "kombu[redis]>=5.4", "rq>=1.16,<2"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), *requirements]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.mark.slow
@pytest.mark.parametrize("program", ["django_cache.py", "celery_results.py", "kombu_queues.py", "rq_jobs.py"])
def test_a_program_that_knows_no_cluster(program: str, port: int, libraries: dict[str, str], tmp_path: Path) -> None:
    with redis.Redis(port=port) as client:
        client.flushall()
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / program), str(port)],
        env=libraries, cwd=tmp_path, capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
