"""No socket is open to others for an instant, whatever the umask says.

CVE-2023-45145 (the mode of the Unix socket was set behind its listening); https://nvd.nist.gov/vuln.
"""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from cluster import KACHE, Cluster, until

pytestmark = pytest.mark.once


def modes_seen(folders: list[Path], seen: dict[str, set[int]], over: threading.Event) -> None:
    """Looks at every socket and directory below the folders as often as it can."""
    while not over.is_set():
        for folder in folders:
            for directory, _names, files in os.walk(folder):
                for path in (directory, *(os.path.join(directory, name) for name in files)):
                    try:
                        found = os.lstat(path)
                    except OSError:
                        continue
                    if stat.S_ISSOCK(found.st_mode) or stat.S_ISDIR(found.st_mode):
                        seen.setdefault(path, set()).add(stat.S_IMODE(found.st_mode))


def test_from_their_first_instant_on(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir(mode=0o755)
    cluster = Cluster(
        4,
        routers=2,
        unixsocket=place / "kache.sock",
        unixsocketperm=600,
        command=["sh", "-c", 'umask 0; exec "$@"', "sh", *KACHE],
    )
    run = cluster.directory / "run"
    run.mkdir(mode=0o700)
    seen: dict[str, set[int]] = {}
    over = threading.Event()
    watcher = threading.Thread(target=modes_seen, args=([run, place], seen, over))
    watcher.start()
    try:
        with cluster:
            until(lambda: any(path.endswith("control.sock") for path in seen), "it was looked at")
            until(lambda: any(path.endswith("kache.sock") for path in seen), "it was looked at")
            for shard in range(4):
                cluster.kill(cluster.pid_of("shard", shard))
            until(lambda: all(child["state"] == "up" for child in cluster.status()["children"]), "all are back")
    finally:
        over.set()
        watcher.join()
    sockets = {path: modes for path, modes in seen.items() if path.endswith(".sock")}
    assert len(sockets) >= 6
    assert all(mode & 0o077 == 0 for modes in sockets.values() for mode in modes), sockets
    inside = {path: modes for path, modes in seen.items() if path.startswith(f"{run}{os.sep}") and path not in sockets}
    assert all(mode & 0o077 == 0 for modes in inside.values() for mode in modes), inside
