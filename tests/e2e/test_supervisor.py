"""The supervisor over dummy children: restarts, back-off, configuration, signals, locks, and leaving nothing behind."""

from __future__ import annotations

import functools
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cluster import DEADLINE, KACHE, Cluster, alive, in_time, until
from ports import free_port

DUMMY = [sys.executable, str(Path(__file__).parent / "dummy_children.py")]
LINUX = sys.platform.startswith("linux")


def dummy(shards: int = 2, **options: Any) -> Cluster:
    return Cluster(shards, command=DUMMY, **options)


def ask(cluster: Cluster, line: str) -> str:
    """One line to the dummy router and its answer."""
    with socket.create_connection(("127.0.0.1", cluster.port), DEADLINE) as sock:
        sock.sendall(f"{line}\n".encode())
        return sock.makefile().readline().strip()


def describe(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask(cluster, "ENV"))
    return found


def up_again(cluster: Cluster, role: str, pid: int) -> bool:
    """Whether child 0 of a role serves in another process than `pid`."""
    child = cluster.child(role)
    return child["state"] == "up" and child["pid"] != pid


def test_ready_line_status_and_stop() -> None:
    with dummy(3, maxmemory="1gb") as cluster:
        assert cluster.ready_line == (
            f"Kache 0.1.0 ready on 127.0.0.1:{cluster.port}: 3 shards, maxmemory 1gb (allkeys-auto). "
            f"Stop with Ctrl-C or `kache cluster stop --port {cluster.port}`.\n"
        )
        children = cluster.status()["children"]
        assert [(c["role"], c["index"], c["state"]) for c in children] == [
            ("shard", 0, "up"), ("shard", 1, "up"), ("shard", 2, "up"), ("router", 0, "up"),
        ]  # fmt: skip
        assert "shard 2" in cluster.kache("cluster", "status").stdout
        assert cluster.kache("cluster", "stop").stdout == f"The cluster on port {cluster.port} has stopped.\n"
        assert cluster.process.wait(DEADLINE) == 0
        gone = cluster.kache("cluster", "status", check=False)
        assert (gone.returncode, gone.stderr) == (3, f"kache: No cluster runs on port {cluster.port}.\n")


def test_a_child_starts_clean() -> None:
    with dummy() as cluster:
        first = describe(cluster)
        assert (first["mask"], first["term"]) == (0, True)
        assert first["shard_states"] == {"0": "up", "1": "up"}
        cluster.status()
        cluster.kill(first["pid"])
        until(lambda: cluster.child("router")["state"] == "up" and cluster.child("router")["restarts"], "a new router")
        second = describe(cluster)
        assert second["pid"] != first["pid"]
        assert second["random"] != first["random"]


@pytest.mark.skipif(not LINUX, reason="descriptors and titles are read from /proc")
@pytest.mark.parametrize("method", ["fork", "exec"])
def test_descriptors_and_titles(method: str) -> None:
    # An executed child imports the real router and shard, a forked one runs the dummies.
    command = DUMMY if method == "fork" else KACHE
    with Cluster(2, command=command, start_method=method) as cluster:
        titles = {}
        files: list[set[str]] = []
        for child in cluster.status()["children"]:
            proc = Path(f"/proc/{child['pid']}")
            titles[(child["role"], child["index"])] = (proc / "cmdline").read_bytes().rstrip(b"\0 ").decode()
            links = {int(fd.name): os.readlink(fd) for fd in (proc / "fd").iterdir()}
            assert links[0] == "/dev/null"
            files.append({link for fd, link in links.items() if fd > 2 and link.startswith(("socket:", "pipe:"))})
        for first, second in itertools.combinations(files, 2):
            assert len(first & second) == 1, "two children share nothing but the death pipe"
        port = cluster.port
        assert titles == {
            ("shard", 0): f"kache: shard 0 :{port}",
            ("shard", 1): f"kache: shard 1 :{port}",
            ("router", 0): f"kache: router :{port}",
        }


def test_a_killed_child_is_back_within_a_second() -> None:
    with dummy() as cluster:

        def is_back(role: str) -> float:
            before = cluster.pid_of(role)
            started = time.monotonic()
            cluster.kill(before)
            until(functools.partial(up_again, cluster, role, before), "its return")
            return time.monotonic() - started

        for role in ("shard", "router"):
            in_time(functools.partial(is_back, role), 1.0)
        assert cluster.child("shard")["reason"] == "killed by SIGKILL"
        assert "shard 0" in cluster.log()
        assert "killed by SIGKILL; starting it again at once" in cluster.log()


def test_a_crash_loop_backs_off_and_shows_its_cause() -> None:
    with dummy(2, environment={"DUMMY_BROKEN": "1"}) as cluster:
        assert "shard 1 is down: exited with status 1: RuntimeError: broken on purpose" in cluster.ready_line
        until(lambda: cluster.child("shard", 1)["restarts"] >= 3, "some restarts")
        status = cluster.kache("cluster", "status", check=False)
        assert status.returncode == 1
        assert "RuntimeError: broken on purpose" in status.stdout
        assert ask(cluster, "PING") == "PONG"
        before = cluster.child("shard", 1)["restarts"]
        started = time.monotonic()
        until(lambda: cluster.child("shard", 1)["restarts"] > before + 1, "growing waits")
        assert time.monotonic() - started > 0.3
        assert describe(cluster)["shard_states"]["0"] == "up"
        assert describe(cluster)["shard_states"]["1"] != "up"


def test_a_shard_is_up_once_its_routers_are_connected_to_it() -> None:
    """Before that they would refuse its keys, although status, and a rolling restart, say that it serves."""
    with dummy(1) as cluster:
        assert ask(cluster, "APART") == "OK"
        pid = cluster.pid_of("shard")
        cluster.kill(pid)
        until(lambda: describe(cluster)["unsaid"], "the router is told that another is ready")
        assert cluster.child("shard")["state"] == "starting"
        assert ask(cluster, "TOGETHER") == "OK"
        until(lambda: up_again(cluster, "shard", pid), "it is up")


def test_configuration_outlives_a_restart() -> None:
    with dummy(maxmemory="1gb") as cluster:
        assert ask(cluster, "SET 2gb") == "OK"
        assert describe(cluster)["maxmemory"] == 2 << 30
        assert "maxmemory must be a size" in ask(cluster, "SET nonsense").replace("maxmemory  ", "maxmemory ")
        ask(cluster, "DIE")
        until(lambda: cluster.child("router")["state"] == "up" and cluster.child("router")["restarts"], "a new router")
        assert describe(cluster)["maxmemory"] == 2 << 30
        assert "exited with status 3" in cluster.log()


def test_a_change_that_is_not_acknowledged_is_told() -> None:
    with dummy() as cluster:
        stuck = cluster.pid_of("shard", 1)
        cluster.kill(stuck, signal.SIGSTOP)
        assert ask(cluster, "SET 3gb") == "shard 1 did not acknowledge in time; the change holds once it does"
        cluster.kill(stuck, signal.SIGCONT)
        assert ask(cluster, "SET 4gb") == "OK"


def test_sighup_reads_the_file_again(tmp_path: Path) -> None:
    path = tmp_path / "kache.toml"
    path.write_text('maxmemory = "1gb"\n')
    with dummy(config=path) as cluster:
        assert describe(cluster)["maxmemory"] == 1 << 30
        path.write_text('maxmemory = "5gb"\ntcp-backlog = 9\n')
        cluster.kill(cluster.status()["pid"], signal.SIGHUP)
        until(lambda: describe(cluster)["maxmemory"] == 5 << 30, "the new configuration")
        until(lambda: "a restart is needed for tcp-backlog" in cluster.log(), "the log line")
        path.write_text("maxmemory = true\n")
        cluster.kill(cluster.status()["pid"], signal.SIGHUP)
        until(
            lambda: (
                f"maxmemory must be a size such as 1gb or 4096, from 0 to 1125899906842624, not 'true' ({path}"
                in cluster.log()
            ),
            "it",
        )


def test_a_relative_directory(tmp_path: Path) -> None:
    """It is that of whoever starts the cluster, for everything in it, and still is when the settings are read again."""
    path = tmp_path / "kache.toml"
    path.write_text("")
    with dummy(dir=os.path.relpath(tmp_path), config=path, unixsocket="socket", appendonly="yes") as cluster:
        assert (tmp_path / "cluster").is_file() and (tmp_path / "socket").is_socket()
        assert cluster.status()["config"]["dir"] == str(tmp_path)
        cluster.kill(cluster.status()["pid"], signal.SIGHUP)
        until(lambda: "configuration read again" in cluster.log(), "the log line")
        assert "a restart is needed" not in cluster.log()


def test_a_folder_that_is_called_cluster_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    with dummy(dir=tmp_path) as cluster:
        assert ask(cluster, "SET 4gb") == "OK"
    assert [path.name for path in tmp_path.iterdir()] == ["cluster"]


def test_rolling_restart() -> None:
    with dummy() as cluster:
        before = {(c["role"], c["index"]): c["pid"] for c in cluster.status()["children"]}
        out = cluster.kache("cluster", "restart", "--shard", 1, "--yes").stdout
        assert out == "shard 1 serves again.\n"
        after = {(c["role"], c["index"]): c["pid"] for c in cluster.status()["children"]}
        assert [place for place in before if before[place] != after[place]] == [("shard", 1)]
        assert cluster.kache("cluster", "restart", "--yes").stdout.splitlines()[-1] == "router 0 serves again."
        assert cluster.child("shard", 1)["reason"] == "restarted on request"
        failed = cluster.kache("cluster", "restart", "--shard", 7, check=False)
        assert (failed.returncode, failed.stderr) == (1, "kache: There is no shard 7; the cluster has 2.\n")


def test_a_second_cluster_on_the_port_is_refused() -> None:
    with dummy() as cluster:
        second = cluster.kache("cluster", "start", "--port", cluster.port, check=False)
        pid = cluster.status()["pid"]
        assert (second.returncode, second.stderr) == (
            1,
            f"kache: Port {cluster.port} already has a cluster: pid {pid}.\n",
        )
        assert ask(cluster, "PING") == "PONG"


def test_a_port_in_use_names_its_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        environment = {**os.environ, "KACHE_RUN_DIR": str(tmp_path / "run")}
        refused = subprocess.run(
            [*DUMMY, "cluster", "start", f"--port={port}"],
            env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
    assert refused.returncode == 1
    holder = f" by {Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})" if LINUX else ""
    assert refused.stderr == f"kache: Port {port} on 127.0.0.1 is in use{holder}.\n"
    assert list((tmp_path / "run").iterdir()) == []


def test_a_killed_supervisor_takes_its_children_along_and_can_be_started_again() -> None:
    def gone_and_back() -> float:
        with dummy(start_method="fork", port=free_port()) as cluster:
            status = cluster.status()
            children = [child["pid"] for child in status["children"]]
            cluster.kill(children[0], signal.SIGSTOP)  # even a stopped one must go
            started = time.monotonic()
            cluster.kill(status["pid"])
            cluster.process.wait()
            again = dummy(port=cluster.port, environment={"KACHE_RUN_DIR": cluster.environment["KACHE_RUN_DIR"]})
            with again:
                assert again.port == cluster.port
                assert ask(again, "PING") == "PONG"
                for pid in children:
                    until(lambda pid=pid: not alive(pid), "the end of an orphan")
            return time.monotonic() - started

    in_time(gone_and_back, 4.0)


def test_ends_with_the_program_that_started_it() -> None:
    with dummy() as cluster:
        os.close(cluster._tie)
        cluster._tie = None
        assert cluster.process.wait(DEADLINE) == 0
        assert "the end of the program that started it" in cluster.log()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it(number: signal.Signals) -> None:
    with dummy() as cluster:
        cluster.process.send_signal(number)
        assert cluster.process.wait(DEADLINE) == 0
        assert f"stopping after {number.name}" in cluster.log()
        assert "Traceback" not in cluster.log()


def test_a_stuck_child_does_not_hold_up_the_end() -> None:
    def end() -> float:
        with dummy(drain_seconds=1) as cluster:
            cluster.kill(cluster.pid_of("shard", 0), signal.SIGSTOP)
            started = time.monotonic()
            cluster.process.send_signal(signal.SIGTERM)
            assert cluster.process.wait(DEADLINE) == 0
            assert "shard 0 did not end in time and is killed" in cluster.log()
            return time.monotonic() - started

    in_time(end, 5.0)


def test_detached_with_a_shard_that_is_down(tmp_path: Path) -> None:
    """It serves what it can, and who started it learns from the exit status that this is not all."""
    port = free_port()
    environment = {**os.environ, "KACHE_RUN_DIR": str(tmp_path / "run"), "DUMMY_BROKEN": "1"}
    reader, tie = os.pipe()
    try:
        done = subprocess.run(
            [*DUMMY, "cluster", "start", "--detach", f"--port={port}", "--shards=2", f"--dir={tmp_path}", f"--exit-with-fd={reader}"],
            env=environment, capture_output=True, text=True, timeout=DEADLINE, pass_fds=(reader,), check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"kache: Kache 0.1.0 partly ready on 127.0.0.1:{port}: 2 shards, no maxmemory.")
        assert "shard 1 is down: exited with status 1: RuntimeError: broken on purpose." in done.stderr
        pid = int(done.stderr.split("Its pid is ")[1].split(",")[0])
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as client:
            client.sendall(b"PING\n")
            assert client.recv(100) == b"PONG\n"
    finally:
        os.close(reader)
        os.close(tie)
    until(lambda: not alive(pid), "the end of the supervisor")


def test_detached(tmp_path: Path) -> None:
    port = free_port()
    environment = {**os.environ, "KACHE_RUN_DIR": str(tmp_path / "run")}
    arguments = ["cluster", "start", "--detach", f"--port={port}", "--shards=1", f"--dir={tmp_path}"]
    reader, tie = os.pipe()
    try:
        done = subprocess.run(
            [*DUMMY, *arguments, f"--exit-with-fd={reader}"],
            env=environment, capture_output=True, text=True, timeout=DEADLINE, pass_fds=(reader,), check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"ready on 127.0.0.1:{port}: 1 shard, no maxmemory." in done.stdout
        pid = int(done.stdout.split("Its pid is ")[1].split(",")[0])
        log = tmp_path / f"kache-{port}.log"
        assert str(log) in done.stdout
        again = subprocess.run(
            [*DUMMY, *arguments], env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert (again.returncode, again.stderr) == (1, f"kache: Port {port} already has a cluster: pid {pid}.\n")
        stopped = subprocess.run(
            [*KACHE, "cluster", "stop", f"--port={port}"], env=environment, capture_output=True, text=True, timeout=DEADLINE,
            check=False,
        )  # fmt: skip
        assert stopped.returncode == 0, stopped.stderr
        until(lambda: not alive(pid), "the end of the supervisor")
        assert "stopped" in log.read_text()
    finally:
        os.close(reader)
        os.close(tie)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_is_ended_while_starting_leaves_nothing(tmp_path: Path, number: int) -> None:
    """At the first sight of its files; the rest of the start was not begun then."""
    base = tmp_path / "run"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KACHE_")}
    for _ in range(3):
        process = subprocess.Popen(
            [*DUMMY, "cluster", "start", "--port=0", "--shards=1"],
            env=environment | {"KACHE_RUN_DIR": str(base)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        limit = time.monotonic() + DEADLINE
        while not (base.exists() and any(base.iterdir())):
            assert process.poll() is None and time.monotonic() < limit
        process.send_signal(number)
        said = process.communicate(timeout=DEADLINE)[1]
        assert process.returncode == 0 and "Traceback" not in said, said
        assert not list(base.iterdir())


def test_the_run_directory_is_private(tmp_path: Path) -> None:
    with dummy() as cluster:
        run_dir = Path(cluster.status()["run_dir"])
        for path in (run_dir.parent, run_dir):
            assert path.stat().st_mode & 0o777 == 0o700
        for path in run_dir.iterdir():
            assert path.stat().st_mode & 0o077 == 0
    open_to_all = tmp_path / "run"
    open_to_all.mkdir(mode=0o755)
    for base, message in (
        (open_to_all, f"kache: The directory {open_to_all} is open to others; make it private with chmod 700.\n"),
        (tmp_path / ("x" * 100), f"kache: The run directory {tmp_path / ('x' * 100)} is too long a path for a Unix socket.\n"),
    ):  # fmt: skip
        done = subprocess.run(
            [*DUMMY, "cluster", "start", "--port=0"], env={**os.environ, "KACHE_RUN_DIR": str(base)},
            capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (1, message)


def test_json_log() -> None:
    with dummy(logformat="json") as cluster:
        cluster.kill(cluster.pid_of("shard", 0))
        until(lambda: "killed by SIGKILL" in cluster.log(), "the log line")
        start, *events = map(json.loads, cluster.log().splitlines())
        assert start["level"] == "notice" and " starts as pid " in start["message"]
        event = events[0]
        assert event["process"] == "supervisor"
        assert event["level"] == "warning"
