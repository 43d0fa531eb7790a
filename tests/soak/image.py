"""The image of deploy/Dockerfile, really built and run: what its comments, the compose file and the manifests promise of it.

    python tests/soak/image.py [--engine podman] [--image kache] [--build] [--base python:3.12-slim]

Wants podman or docker; --build makes the image first, which takes minutes and PyPI and Debian. Exit status 1 when
something is not as promised; nothing of what it starts stays behind, the image does.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from cluster import Connection, until  # noqa: E402  # it lies beside this folder

UID = "10001"
SIZE_BAR_MIB = 150
"""Of what lies above the image of Python."""
STOP_BAR_SECONDS = 10.0
PASSWORD = secrets.token_hex(8)
COMPILERS = "gcc cc g++ cc1 clang tcc ld as make x86_64-linux-gnu-gcc-14"


class Engine:
    """podman or docker, and the image that is tried."""

    def __init__(self, program: str, image: str) -> None:
        self.program = program
        self.image = image
        self.missed: list[str] = []

    def run(self, *words: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """What the engine says to this."""
        return subprocess.run(
            [self.program, *words],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def ask(self, *words: str) -> str:
        """The same, which must not fail."""
        done = self.run(*words)
        if done.returncode:
            raise SystemExit(f"{self.program} {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def say(self, what: str, met: bool, figure: object = "") -> None:
        """One line of the report."""
        print(f"{'ok    ' if met else 'MISSED'} {what}{f': {figure}' if figure != '' else ''}", flush=True)
        if not met:
            self.missed.append(what)

    @contextmanager
    def container(self, *options: str, arguments: tuple[str, ...] = ()) -> Iterator[str]:
        """One that runs meanwhile, by its name."""
        name = f"kache-{secrets.token_hex(4)}"
        self.ask("run", "-d", "--name", name, *options, self.image, *arguments)
        try:
            yield name
        finally:
            self.run("rm", "-f", "-v", "-t", "0", name)

    def status_of(self, name: str, command: str) -> int:
        """What a command ends with inside of a container."""
        return self.run("exec", name, "sh", "-c", command).returncode


def free_port() -> int:
    """One of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def connected(engine: Engine, name: str, port: int, password: str = PASSWORD) -> Connection:
    """A connection that has logged in, once the container serves."""
    until(lambda: engine.run("exec", name, "kache", "ping").returncode == 0, "it serves", 60)
    connection = Connection(port)
    assert connection.request("AUTH", password) == "OK"
    until(lambda: not str(connection.request("EXISTS", "a", "b", "c")).startswith("LOADING"), "it has loaded", 60)
    return connection


def published(port: int, inside: int = 7379) -> tuple[str, str]:
    """A port of this machine that leads there."""
    return "-p", f"127.0.0.1:{port}:{inside}"


def as_it_lies(engine: Engine, base: str) -> None:
    """Size, user, compilers, the health check."""
    found = json.loads(engine.ask("image", "inspect", engine.image))[0]
    below = json.loads(engine.ask("image", "inspect", base))[0]["Size"]
    above = (found["Size"] - below) / 2**20
    engine.say("MiB above the image of Python", above <= SIZE_BAR_MIB, f"{above:.0f} (of {found['Size'] / 2**20:.0f})")
    engine.say("its user is a number that is not root", found["Config"]["User"] == UID, found["Config"]["User"])
    engine.say("it has a health check", "kache" in str(found.get("Healthcheck") or found["Config"].get("Healthcheck")))
    shell = ("run", "--rm", "--entrypoint", "sh", engine.image, "-c")
    compilers = engine.ask(*shell, f"for each in {COMPILERS}; do command -v $each; done; true").split()
    sources = engine.ask(
        *shell,
        "find / -xdev -name '*.pyx' -path '*kache*' -o -xdev -name cc1 -o -xdev -name '*.whl' -path '/wheels*'; true",
    )
    engine.say(
        "no compiler and no wheel inside",
        not compilers and "cc1" not in sources and "/wheels" not in sources,
        compilers or "",
    )


def refuses_without_a_password(engine: Engine) -> None:
    done = engine.run("run", "--rm", engine.image)
    said = (done.stdout + done.stderr).strip()
    engine.say("without a password it says so and ends", done.returncode == 2 and "requirepass" in said.lower(), said)
    engine.say("without a traceback", "Traceback" not in said)


def serves(engine: Engine) -> None:
    """The usual way; its health; its end."""
    port = free_port()
    with engine.container(*published(port), "-e", f"KACHE_REQUIREPASS={PASSWORD}") as name:
        client = connected(engine, name, port)
        engine.say("it serves", client.request("SET", "k", "v") == "OK" and client.request("GET", "k") == b"v")
        with Connection(port) as stranger:
            engine.say("nobody without the password", str(stranger.request("GET", "k")).startswith("NOAUTH"))
        engine.say("it is not root", engine.ask("exec", name, "id", "-u") == UID)
        owners = engine.ask("exec", name, "sh", "-c", "stat -c %u /proc/[0-9]*/ | sort -u").split()
        engine.say("nor is any of its processes", owners == [UID], owners)
        first = engine.ask("exec", name, "cat", "/proc/1/cmdline").replace("\0", " ")
        engine.say("the supervisor is process 1", "kache" in first, first)
        engine.say("healthy while it serves", engine.run("healthcheck", "run", name).returncode == 0)
        shard = engine.ask("exec", name, "sh", "-c", "grep -l '^kache: shard 1 ' /proc/[0-9]*/cmdline").split("/")[2]
        engine.ask("exec", name, "sh", "-c", f"kill -STOP {shard}")
        engine.say("unhealthy while a shard stands still", engine.run("healthcheck", "run", name).returncode != 0)
        said = engine.run("exec", name, "kache", "ping", "--ready", "--timeout", "2")
        engine.say("and says which", "shard 1 " in said.stderr, said.stderr.strip())
        engine.say("but alive", engine.status_of(name, "kache ping --timeout 2") == 0)
        engine.ask("exec", name, "sh", "-c", f"kill -CONT {shard}")
        children = "for each in /proc/[0-9]*; do n=${each#/proc/}; [ $n = 1 ] || grep -q '^kache' $each/cmdline && echo $n; done"
        pids = engine.ask("exec", name, "sh", "-c", children).split()
        pids = [pid for pid in pids if pid != "1"]
        engine.ask("exec", name, "sh", "-c", f"kill -STOP {' '.join(pids)}")
        began = time.monotonic()
        engine.say("unhealthy while nobody answers", engine.status_of(name, "kache ping --timeout 2") == 1)
        engine.say("and says so within its time", time.monotonic() - began < 8, f"{time.monotonic() - began:.1f} s")
        engine.ask("exec", name, "sh", "-c", f"kill -CONT {' '.join(pids)}")
        until(lambda: engine.status_of(name, "kache ping --timeout 2") == 0, "it serves again", 30)
        client.close()
        began = time.monotonic()
        engine.ask("stop", "-t", "15", name)
        took = time.monotonic() - began
        status = engine.ask("inspect", "-f", "{{.State.ExitCode}}", name)
        engine.say(
            "SIGTERM ends it cleanly", status == "0" and took < STOP_BAR_SECONDS, f"status {status} after {took:.1f} s"
        )
    with engine.container("--entrypoint", "sleep", arguments=("60",)) as name:
        engine.say("unhealthy where nothing runs", engine.status_of(name, "kache ping --timeout 2") != 0)


def keeps(engine: Engine) -> None:
    """What is in the volume outlives the container, however it ends."""
    volume = f"kache-{secrets.token_hex(4)}"
    options = ("-v", f"{volume}:/data", "-e", "KACHE_APPENDONLY=yes", "-e", f"KACHE_REQUIREPASS={PASSWORD}")
    try:
        for number, end in enumerate(("stop", "kill", "stop")):
            port = free_port()
            with engine.container(*published(port), *options) as name:
                client = connected(engine, name, port)
                found = [client.request("GET", f"k{before}") for before in range(number)]
                engine.say(f"what was written before is there ({number})", found == [b"v"] * number, found)
                assert client.request("SET", f"k{number}", "v") == "OK"
                if end == "kill":
                    time.sleep(1.5)  # everysec
                engine.ask(end, name)
                client.close()
    finally:
        engine.run("volume", "rm", "-f", volume)


def says_its_figures(engine: Engine) -> None:
    port, metrics = free_port(), free_port()
    settings = {"METRICS_PORT": "9121", "METRICS_BIND": "0.0.0.0", "METRICS_INSECURE": "yes", "REQUIREPASS": PASSWORD}
    options = [word for name, value in settings.items() for word in ("-e", f"KACHE_{name}={value}")]
    with engine.container(*published(port), *published(metrics, 9121), *options) as name:
        connected(engine, name, port).close()
        engine.say("metrics: ready", fetched(metrics, "/readyz")[0] == 200, fetched(metrics, "/readyz"))
        status, body = fetched(metrics, "/metrics", f"default:{PASSWORD}")
        engine.say("metrics: figures", status == 200 and "redis_up 1" in body, status)
        console = fetched(metrics, "/api/keys?pattern=*")[0]
        engine.say("metrics: no keys without the password", console in (401, 403), console)


def fetched(port: int, path: str, user: str = "") -> tuple[int, str]:
    """The status and the body."""
    import base64

    headers = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()} if user else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def takes_secrets(engine: Engine, folder: Path) -> None:
    """A password in a file, as secrets are: root's, readable."""
    secret = folder / "requirepass"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o444)
    port = free_port()
    mounted = ("-v", f"{secret}:/run/secrets/requirepass:ro", "-e", "KACHE_REQUIREPASS_FILE=/run/secrets/requirepass")
    with engine.container(*published(port), *mounted) as name:
        client = connected(engine, name, port)
        engine.say("a password in a file", client.request("SET", "k", "v") == "OK")
        client.close()


def as_on_kubernetes(engine: Engine, folder: Path) -> None:
    """What the manifest runs it with: nothing can be written but in /run/kache and /data, no capability, its settings."""
    manifests = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))
    settings = next(each for each in manifests if each["kind"] == "ConfigMap")["data"]["kache.toml"]
    pod = next(each for each in manifests if each["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    kache = pod["containers"][0]
    (folder / "kache.toml").write_text(settings)
    (folder / "kache.toml").chmod(0o444)
    options = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", f"{UID}:{UID}"]
    if os.path.basename(engine.program) == "podman":
        options.append("--read-only-tmpfs=false")
    options += ["--tmpfs", "/run/kache:size=16m,mode=0777", "-v", f"{folder / 'kache.toml'}:/etc/kache/kache.toml:ro"]
    options += ["-v", f"{folder / 'requirepass'}:/run/secrets/kache/requirepass:ro"]
    for each in kache["env"]:
        options += ["-e", f"{each['name']}={each['value']}"]
    port, metrics = free_port(), free_port()
    with engine.container(
        *published(port), *published(metrics, 9121), *options, arguments=tuple(kache["args"])
    ) as name:
        client = connected(engine, name, port)
        engine.say("as the manifest has it: serves", client.request("SET", "k", "v") == "OK")
        client.close()
        engine.say(
            "as the manifest has it: nothing can be written",
            engine.status_of(name, "touch /home/kache/x /tmp/x /x") != 0,
        )
        for probe in ("startupProbe", "livenessProbe"):
            ran = engine.run("exec", name, *kache[probe]["exec"]["command"])
            engine.say(f"as the manifest has it: {probe}", ran.returncode == 0, ran.stderr.strip())
        engine.say(
            "as the manifest has it: readinessProbe",
            fetched(metrics, kache["readinessProbe"]["httpGet"]["path"])[0] == 200,
        )
        engine.ask("stop", "-t", str(pod["terminationGracePeriodSeconds"]), name)
        engine.say("as the manifest has it: ends", engine.ask("inspect", "-f", "{{.State.ExitCode}}", name) == "0")


def main() -> int:
    """Everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", default="podman")
    parser.add_argument("--image", default="kache")
    parser.add_argument("--base", default="python:3.12-slim")
    parser.add_argument("--build", action="store_true")
    asked = parser.parse_args()
    engine = Engine(asked.engine, asked.image)
    if asked.build:
        command = [asked.engine, "build", "-f", "deploy/Dockerfile", "-t", asked.image, "."]
        subprocess.run(command, cwd=ROOT, check=True, timeout=1800)
    as_it_lies(engine, asked.base)
    refuses_without_a_password(engine)
    serves(engine)
    keeps(engine)
    says_its_figures(engine)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        takes_secrets(engine, Path(folder))
        as_on_kubernetes(engine, Path(folder))
    print(f"{len(engine.missed)} missed")
    return 1 if engine.missed else 0


if __name__ == "__main__":
    sys.exit(main())
