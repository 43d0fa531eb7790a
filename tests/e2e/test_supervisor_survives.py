"""What a supervisor must live through: messages of any bytes, children that refuse or hang, files that go, full disks."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cluster import DEADLINE, KACHE, Cluster, until

from kache.cluster import messages
from kache.cluster.control import MESSAGE_LIMIT, pack
from kache.cluster.logs import LINES_IN_A_WINDOW, WINDOW_SECONDS

DUMMY = [sys.executable, str(Path(__file__).parent / "dummy_children.py")]
HUGE = (0, -1, 2**31, 2**63 - 1, 2**64 - 1, -(2**63))


def ask(cluster: Cluster, line: str) -> str:
    """One line to the dummy router and its answer."""
    with socket.create_connection(("127.0.0.1", cluster.port), DEADLINE) as sock:
        sock.sendall(f"{line}\n".encode())
        return sock.makefile().readline().strip()


def admin(cluster: Cluster) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(f"{cluster.environment['KACHE_RUN_DIR']}/{cluster.port}/control.sock")
    return sock


def lives(cluster: Cluster, pid: int) -> None:
    assert cluster.status()["pid"] == pid
    assert cluster.process.poll() is None


def is_replaced(cluster: Cluster, role: str, pid: int) -> bool:
    return cluster.child(role)["pid"] not in (0, pid)


def is_in_state(cluster: Cluster, role: str, state: str) -> bool:
    return bool(cluster.child(role)["state"] == state)


def hostile_messages() -> list[bytes]:
    """Every request with numbers, texts and types that nobody means."""
    requests: list[Any] = [messages.StatusRequest, messages.ConfigRewrite]
    found = [pack(each(number)) for each in requests for number in HUGE]
    for number in HUGE:
        found += [
            pack(messages.RestartShard(number, number - (number in (0, -1)) * 7)),
            pack(messages.AskRouters(number, "x" * 1000, [b"\xff" * 1000] * 10)),
            pack(messages.ConfigSet(number, {"timeout": str(number), "nothing": "\n" * 1000})),
            pack(messages.ConfigSet(number, {"maxmemory": "9" * 100_000})),
            pack(messages.Ack(number, "x")),
            pack(messages.Answer(number, b"x", True, number)),
            pack(messages.Pong(number)),
        ]
    found += [pack(messages.ConfigSet(1, {"timeout": str(number)})) for number in (2**63, 2**64, 10**30)]
    found += [pack(messages.Ready()), pack(messages.Failed("x" * 100_000))]
    for body in (
        {"type": "ConfigSet", "id": "one", "values": 3},
        {"type": "ConfigSet", "id": 1.5, "values": {}},
        {"type": "Nonsense"},
        ["ConfigSet", 1],
        None,
        "x" * 1000,
    ):
        packed = msgspec.msgpack.encode(body)
        found.append(len(packed).to_bytes(4, "little") + packed)
    return found


def test_messages_of_any_bytes_cost_no_more_than_their_conversation() -> None:
    dice = random.Random(9)
    with Cluster(2, command=DUMMY) as cluster:
        pid = cluster.status()["pid"]
        hostile = hostile_messages()
        hostile += [bytes(dice.randbytes(dice.randrange(1, 200))) for _ in range(100)]
        hostile += [(MESSAGE_LIMIT + 1).to_bytes(4, "little"), b"\xff\xff\xff\xff", b"\x05\0\0\0ab"]
        for data in hostile:
            with admin(cluster) as sock:
                sock.sendall(data)
                if dice.random() < 0.5:
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(65536):
                        pass
        lives(cluster, pid)
        assert ask(cluster, "PING") == "PONG"
        assert "Traceback" not in cluster.log()


def test_one_who_never_reads_is_dropped() -> None:
    with Cluster(1, command=DUMMY) as cluster, admin(cluster) as sock:
        pid = cluster.status()["pid"]
        with pytest.raises(OSError):
            while True:
                sock.sendall(pack(messages.StatusRequest(1)) * 1000)
        lives(cluster, pid)


def test_a_child_that_cannot_take_a_setting_has_it_taken_back_everywhere() -> None:
    with Cluster(2, command=DUMMY, environment={"DUMMY_MOST": str(1 << 30)}) as cluster:
        assert ask(cluster, "SET 1gb") == "OK"
        refused = ask(cluster, "SET 2gb")
        assert refused.startswith("nothing was changed: shard ")
        assert "cannot take it in: too much for me" in refused
        until(lambda: f'"maxmemory": {1 << 30}' in ask(cluster, "ENV"), "the old configuration")
        assert cluster.status()["config"]["maxmemory"] == str(1 << 30)
        assert ask(cluster, "SET 512mb") == "OK"


def test_a_child_that_hangs_gets_the_setting_when_it_lives_again() -> None:
    with Cluster(2, command=DUMMY, unresponsive_seconds=1, restart_unresponsive="no") as cluster:
        cluster.status()
        router = cluster.pid_of("router")
        shard = cluster.pid_of("shard", 1)
        cluster.kill(shard, signal.SIGSTOP)
        until(lambda: cluster.child("shard", 1)["state"] == "unresponsive", "it")
        assert ask(cluster, "SET 1gb") == "OK"  # nobody waits for it: it would be told that it is late
        cluster.kill(shard, signal.SIGCONT)
        until(lambda: cluster.child("shard", 1)["state"] == "up", "it")
        assert cluster.pid_of("router") == router and cluster.pid_of("shard", 1) == shard
        assert "gives signs of life again" in cluster.log()


def test_a_signal_without_a_name_ends_a_child_only() -> None:
    with Cluster(1, command=DUMMY) as cluster:
        pid, shard = cluster.status()["pid"], cluster.pid_of("shard")
        os.kill(shard, signal.SIGRTMIN + 5)
        until(lambda: cluster.child("shard")["pid"] not in (0, shard), "its return")
        assert cluster.child("shard")["reason"] == f"killed by signal {signal.SIGRTMIN + 5}"
        lives(cluster, pid)


@pytest.mark.parametrize(("setting", "killed"), [("routers", {"router"}), ("all", {"router", "shard"}), ("no", set())])
def test_a_stopped_child_is_seen_and_what_the_setting_says_is_done(setting: str, killed: set[str]) -> None:
    # Nobody but who is stopped may be silent for as long.
    with Cluster(1, unresponsive_seconds=3, restart_unresponsive=setting) as cluster:
        for role in ("shard", "router"):
            pid = cluster.pid_of(role)
            cluster.kill(pid, signal.SIGSTOP)
            if role in killed:
                until(functools.partial(is_replaced, cluster, role, pid), "its end")
                until(functools.partial(is_in_state, cluster, role, "up"), "its return")
                assert "killed by SIGKILL: no sign of life for" in cluster.child(role)["reason"]
            else:
                until(functools.partial(is_in_state, cluster, role, "unresponsive"), "it to be seen")
                assert cluster.kache("cluster", "status", check=False).returncode == 1
                assert "no sign of life for" in cluster.kache("cluster", "status", check=False).stdout
                cluster.kill(pid, signal.SIGCONT)
                until(functools.partial(is_in_state, cluster, role, "up"), "it")
                assert cluster.pid_of(role) == pid
            assert f"{role} 0 (pid {pid}) has given no sign of life" in cluster.log()
        assert cluster.request("ping") == "PONG"


def test_a_supervisor_that_was_stopped_itself_kills_nobody() -> None:
    with Cluster(1, unresponsive_seconds=3, restart_unresponsive="all") as cluster:
        pids = {child["pid"] for child in cluster.status()["children"]}
        supervisor = cluster.status()["pid"]
        everybody = {supervisor, *pids}
        for pid in everybody:
            cluster.kill(pid, signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            cluster.process.wait(4)
        for pid in sorted(everybody, key=lambda pid: pid != supervisor):
            cluster.kill(pid, signal.SIGCONT)
        assert cluster.request("ping") == "PONG"
        assert {child["pid"] for child in cluster.status()["children"]} == pids


def lose_everything(directory: Path) -> None:
    shutil.rmtree(directory.parent)


LOSSES: list[Callable[[Path], None]] = [
    lambda directory: (directory / "shard-0.sock").unlink(),
    lambda directory: (directory / "control.sock").unlink(),
    lambda directory: directory.with_suffix(".lock").unlink(),
    shutil.rmtree,
    lose_everything,
]


@pytest.mark.parametrize("loss", range(len(LOSSES)))
def test_what_is_removed_from_the_run_directory_is_made_again(loss: int) -> None:
    with Cluster(2, routers=2) as cluster:
        status = cluster.status()
        key = cluster.keys_by_shard()[0][0]
        assert cluster.request("set", key, "kept") == "OK"
        directory = Path(status["run_dir"])
        before = {path.name for path in directory.iterdir()}
        LOSSES[loss](directory)
        until(lambda: "was lost and is there again" in cluster.log(), "it to be noticed")
        until(lambda: directory.is_dir() and {path.name for path in directory.iterdir()} == before, "all files")
        until(lambda: cluster.kache("cluster", "status", check=False).returncode == 0, "its status")
        assert cluster.status()["pid"] == status["pid"]
        assert cluster.request("get", key) == b"kept"
        for role in ("router", "shard"):
            pid = cluster.pid_of(role)
            cluster.kill(pid)
            until(functools.partial(is_replaced, cluster, role, pid), "a new one")
            until(functools.partial(is_in_state, cluster, role, "up"), "it")
            for _ in range(8):  # by both routers, with luck
                assert until(lambda: _get(cluster, key), "an answer") in ((b"kept",), (None,))
        assert cluster.kache("cluster", "stop").returncode == 0
        assert cluster.process.wait(DEADLINE) == 0


def _get(cluster: Cluster, key: str) -> tuple[Any] | None:
    try:
        return (cluster.request("get", key),)
    except Exception:
        return None


def test_what_cannot_be_made_again_is_said() -> None:
    with Cluster(1) as cluster:
        directory = Path(cluster.status()["run_dir"])
        (directory / "shard-0.sock").unlink()
        (directory / "shard-0.sock").mkdir()
        until(lambda: cluster.status()["troubles"], "it")
        shown = cluster.kache("cluster", "status", check=False)
        assert shown.returncode == 1
        assert f"{directory}/shard-0.sock" in shown.stdout
        assert f"{directory}/shard-0.sock" in cluster.log()
        assert cluster.request("ping") == "PONG"
        (directory / "shard-0.sock").rmdir()
        until(lambda: not cluster.status()["troubles"], "its end")


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="a disk that is always full")
def test_a_full_disk_under_the_log_costs_nothing(tmp_path: Path) -> None:
    with Cluster(1, logfile=FULL) as cluster:
        for role in ("shard", "router"):
            pid = cluster.pid_of(role)
            cluster.kill(pid)
            until(functools.partial(is_replaced, cluster, role, pid), "a new one")
        until(lambda: cluster.child("router")["state"] == "up", "it")
        assert cluster.request("ping") == "PONG"
        assert cluster.log() == ""
    # Everything on a full disk: standard error and output, too.
    environment = {**os.environ, "KACHE_RUN_DIR": str(tmp_path / "run")}
    with FULL.open("wb") as full:
        running = subprocess.Popen(
            [*KACHE, "cluster", "start", "--port=0", "--shards=1"],
            env=environment, stdin=subprocess.DEVNULL, stdout=full, stderr=full,
        )  # fmt: skip
        try:
            until(lambda: list((tmp_path / "run").glob("*/control.sock")), "a cluster")
            port = next((tmp_path / "run").glob("*/control.sock")).parent.name
            status = [*KACHE, "cluster", "status", "--port", port]
            until(
                lambda: subprocess.run(status, env=environment, capture_output=True, check=False).returncode == 0, "it"
            )
            running.send_signal(signal.SIGTERM)
            assert running.wait(DEADLINE) == 0
        finally:
            if running.poll() is None:
                running.kill()
                running.wait()


def floods(cluster: Cluster) -> None:
    """Each kind of stranger, many times."""
    for opening in (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"):
        for _ in range(300):
            with socket.create_connection(("127.0.0.1", cluster.port), DEADLINE) as sock:
                sock.sendall(opening)
                try:
                    while sock.recv(4096):
                        pass
                except ConnectionResetError:
                    pass


def test_strangers_do_not_fill_the_log() -> None:
    with Cluster(1, preauth_timeout_ms=10) as cluster:
        began = time.monotonic()
        floods(cluster)
        half = []
        for _ in range(300):
            sock = socket.create_connection(("127.0.0.1", cluster.port), DEADLINE)
            sock.sendall(b"*")
            half.append(sock)
        for sock in half:
            assert sock.recv(1) == b""
            sock.close()
        log = cluster.log()
        for kind in ("cross-protocol scripting", "TLS on the plain port", "no complete command"):
            # Of each kind so many in a window, one that tells how many more there were, and windows begin at any time.
            windows = int((time.monotonic() - began) // WINDOW_SECONDS) + 2
            assert 1 <= log.count(kind) <= windows * (LINES_IN_A_WINDOW + 1), kind


def test_a_restart_that_costs_data_wants_to_be_confirmed() -> None:
    with Cluster(2) as cluster:
        for arguments, holds in (([], "the shards hold"), (["--shard", "1"], "shard 1 holds")):
            refused = cluster.kache("cluster", "restart", *arguments, check=False)
            assert refused.returncode == 2
            assert refused.stderr == (
                f"kache: All data that {holds} will be forgotten, since nothing is kept on disk (appendonly no, no save "
                "points). Say --yes to restart all the same; --router restarts only the routers.\n"
            )
        assert cluster.kache("cluster", "restart", "--router").stdout == "router 0 serves again.\n"
        assert {child["restarts"] for child in cluster.status()["children"] if child["role"] == "shard"} == {0}
        for typed, status in (("n\n", 1), ("y\n", 0)):
            assert on_a_terminal(cluster, ["cluster", "restart", "--shard", "0"], typed) == status
        assert cluster.child("shard", 0)["restarts"] == 1


def on_a_terminal(cluster: Cluster, arguments: list[str], typed: str) -> int:
    """The exit status of the command line to whose question somebody types an answer."""
    ours, theirs = os.openpty()
    try:
        running = subprocess.Popen(
            [*KACHE, *arguments],
            env={**cluster.environment, "KACHE_PORT": str(cluster.port)}, stdin=theirs, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.write(ours, typed.encode())
        return running.wait(DEADLINE)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_full_directory_is_named(tmp_path: Path) -> None:
    """With room for one file more each time, whatever is the one too many."""
    base = tmp_path / "run"
    base.mkdir(mode=0o700)
    for inodes in range(2, 9):
        options = f"size=64k,nr_inodes={inodes},mode=700"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", base], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("no file system can be mounted here")
        try:
            refused = subprocess.run(
                [*DUMMY, "cluster", "start", "--port=0", "--shards=8"],
                env={**os.environ, "KACHE_RUN_DIR": str(base)}, capture_output=True, text=True, timeout=DEADLINE, check=False,
            )  # fmt: skip
            assert refused.returncode == 1
            assert f"{base}" in refused.stderr and refused.stderr.endswith("No space left on device.\n")
            assert refused.stderr.count("\n") == 1
            assert list(base.iterdir()) == []
        finally:
            subprocess.run(["umount", base], check=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="descriptors are read from /proc")
@pytest.mark.parametrize("method", ["fork", "exec"])
def test_every_process_has_only_files_of_its_own(method: str) -> None:
    close_on_exec = 0o2000000
    with Cluster(2, routers=2, start_method=method) as cluster:
        status = cluster.status()
        shared: list[set[str]] = []
        for role, pid in [("supervisor", status["pid"]), *((c["role"], c["pid"]) for c in status["children"])]:
            files = {}
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(
                    FileNotFoundError
                ):  # closed meanwhile: the connection that asked for the status
                    info = Path(f"/proc/{pid}/fdinfo/{link.name}").read_text()
                    files[int(link.name)] = os.readlink(link), int(info.split("flags:")[1].split()[0], 8)
            own = {fd: what for fd, what in files.items() if fd > 2}
            assert all(flags & close_on_exec for _, flags in own.values()), (role, own)
            # Not named: a router's spare descriptor, and what it has mapped.
            spare = (os.devnull, *(name for name, _ in own.values() if name.endswith("/page (deleted)")))
            named = [name for name, _ in own.values() if name.startswith("/") and name not in spare]
            assert named == [str(Path(status["run_dir"]).with_suffix(".lock"))] * (role == "supervisor"), (role, own)
            if role != "supervisor":
                shared.append({name for name, _ in own.values() if name.startswith(("socket:", "pipe:"))})
        for first in range(len(shared)):
            for second in range(first + 1, len(shared)):
                both = shared[first] & shared[second]
                # The death pipe, and the client port for the routers.
                assert len(both) == (2 if first >= 2 else 1), both
