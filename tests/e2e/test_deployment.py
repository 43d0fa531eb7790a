"""What is in deploy/: the unit and what it is told, what the installation leaves, the image, the manifests."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import DEADLINE, KACHE, Cluster, until
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kache.config.reading import load
from kache.config.settings import SETTINGS

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
UNIT = (DEPLOY / "kache.service").read_text()
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


# systemd ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(tmp_path: Path, abstract: bool) -> None:
    path = f"@kache-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path.replace("@", "\0"))
        manager.settimeout(20)
        with Cluster(1, environment={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "30000000"}) as cluster:
            ready = manager.recv(4096).decode()
            assert ready.startswith(f"READY=1\nSTATUS=Kache 0.1.0 ready on 127.0.0.1:{cluster.port}: 1 shard")
            assert [manager.recv(4096) for _ in range(2)] == [b"WATCHDOG=1"] * 2
            # A supervisor that hangs does not feed the watchdog.
            cluster.kill(cluster.status()["pid"], signal.SIGSTOP)
            manager.settimeout(2.5)
            with pytest.raises(TimeoutError):
                while True:
                    manager.recv(4096)
            os.kill(cluster.process.pid, signal.SIGCONT)
        manager.settimeout(20)
        told = b""
        while told != b"STOPPING=1":
            told = manager.recv(4096)


def test_a_manager_that_is_gone_is_no_reason_to_fail(tmp_path: Path) -> None:
    with Cluster(1, environment={"NOTIFY_SOCKET": str(tmp_path / "none")}) as cluster:
        assert cluster.request("ping") == "PONG"


needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")


@needs_systemd
def test_the_unit_is_understood(tmp_path: Path) -> None:
    unit = tmp_path / "kache.service"
    unit.write_text(UNIT.replace("/opt/kache/bin/kache", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if "kache.service" in line]
    assert not said, said


@needs_systemd
def test_the_unit_exposes_little() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", str(DEPLOY / "kache.service")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([\d.]+) (\S+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= 1.0, done.stdout


def test_the_installation_has_all_that_the_unit_names(tmp_path: Path) -> None:
    environment = {**os.environ, "DESTDIR": str(tmp_path), "PYTHON": sys.executable}
    shutil.copytree(_a_small_environment(tmp_path), tmp_path / "opt" / "kache", symlinks=True)
    for _ in range(2):  # the second time nothing is lost
        done = subprocess.run(
            ["sh", str(DEPLOY / "install.sh"), "wheel.whl"],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        secret = tmp_path / "etc/kache/requirepass"
        assert secret.stat().st_mode & 0o777 == 0o600 and len(secret.read_text().strip()) >= 24
        assert (tmp_path / "pip.log").read_text().splitlines()[-1].endswith("--upgrade wheel.whl")
        (tmp_path / "etc/kache/kache.toml").open("a").write("timeout = 7\n")
    assert (tmp_path / "etc/kache/kache.toml").read_text().count("timeout = 7") == 2
    assert (tmp_path / "etc/systemd/system/kache.service").read_text() == UNIT
    in_force = "\n".join(line for line in UNIT.partition("[Service]")[2].splitlines() if not line.startswith("#"))
    named = set(re.findall(r"/(?:etc|opt)/\S+", in_force))
    assert named == {"/etc/kache/kache.toml", "/etc/kache/requirepass", "/opt/kache/bin/kache"}
    assert all((tmp_path / path[1:]).exists() for path in named)


def _a_small_environment(tmp_path: Path) -> Path:
    """Instead of a virtual environment one whose pip writes down what it is to install."""
    folder = tmp_path / "small" / "bin"
    folder.mkdir(parents=True)
    (folder / "pip").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/pip.log\n')
    (folder / "kache").write_text("")
    for path in folder.iterdir():
        path.chmod(0o755)
    return folder.parent


def test_the_installation_needs_root_or_a_folder() -> None:
    if os.getuid() == 0:
        pytest.skip("this is root")
    done = subprocess.run(["sh", str(DEPLOY / "install.sh")], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "run it as root" in done.stderr) == (1, True)


def test_the_unit_starts_a_cluster(tmp_path: Path) -> None:
    """Its ExecStart, with other paths."""
    (command,) = re.findall(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials/requirepass").write_text("sesame\n")
    (tmp_path / "state").mkdir()
    shutil.copy(DEPLOY / "kache.toml", tmp_path / "kache.toml")
    for text, path in (
        ("/etc/kache", tmp_path),
        ("/var/lib/kache", tmp_path / "state"),
        ("%d", tmp_path / "credentials"),
    ):
        command = command.replace(text, str(path))
    start = command.split()[1:]
    assert start[:2] == ["cluster", "start"]
    options = {start[i].removeprefix("--"): start[i + 1] for i in range(2, len(start), 2)}
    with Cluster(1, **options) as cluster:
        assert "NOAUTH" in cluster.kache("get", "k", check=False).stderr
        cluster.environment["KACHE_REQUIREPASS_FILE"] = str(tmp_path / "credentials/requirepass")
        assert cluster.kache("set", "k", "v").stdout == "OK\n"


# Docker -------------------------------------------------------------------------------------------------------------


def test_the_image_asks_whether_it_serves() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    (check,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", text, re.MULTILINE)
    command = json.loads(check)
    assert command[0] == "kache"
    with Cluster(1, environment={"KACHE_REQUIREPASS": "sesame"}) as cluster:
        assert cluster.kache(*command[1:]).returncode == 0
        cluster.kill(cluster.pid_of("router"), signal.SIGSTOP)
        assert cluster.kache(*command[1:], check=False).returncode != 0
        cluster.kill(cluster.pid_of("router"), signal.SIGKILL)
        until(lambda: cluster.kache(*command[1:], check=False).returncode == 0, "another router")


def test_the_image_is_not_roots_and_wants_a_password(tmp_path: Path) -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.findall(r"^USER (\d+)$", text, re.MULTILINE) == ["10001"]
    assert "pip wheel" in text and "KACHE_PROTECTED_MODE" not in re.findall(r"^ENV .*$", text, re.MULTILINE)[0]
    (environment,) = re.findall(r"^ENV PATH=\S+ (.*)$", text, re.MULTILINE)
    done = subprocess.run(
        [*KACHE, "cluster", "start", "--port=0"],
        env={**os.environ, **dict(pair.split("=") for pair in environment.split()), "KACHE_RUN_DIR": str(tmp_path)},
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Listening on 0.0.0.0 without a password is refused" in done.stderr


def locked(name: str) -> dict[str, tuple[str, int]]:
    """The version and the number of hashes of each distribution in deploy/`name`."""
    found = {}
    for entry in re.split(r"^(?=[A-Za-z])", (DEPLOY / name).read_text(), flags=re.MULTILINE)[1:]:
        ((distribution, version),) = re.findall(r"^(\S+?)==(\S+)", entry)
        found[canonicalize_name(distribution)] = version, len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry))
    return found


def test_the_image_takes_what_is_locked_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for name, wanted in (
        ("requirements.lock", project["project"]["dependencies"]),
        ("build.lock", project["build-system"]["requires"]),
    ):
        found = locked(name)
        assert all(hashes for _, hashes in found.values()), found
        for requirement in map(Requirement, wanted):
            version, _ = found[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"make lock: {name} has {requirement.name} {version}"
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    commands = re.findall(r"\bpip (?:wheel|install) [^&\n]*", text)
    assert len(commands) == 4
    for command in commands:
        assert any(word in command for word in ("--require-hashes", "--no-index", "--no-deps --no-build-isolation")), (
            command
        )


@pytest.mark.parametrize("name", ["compose.yaml", "compose-redis-cluster.yaml"])
def test_compose_gives_kache_no_more_than_it_needs(name: str) -> None:
    kache = yaml.safe_load((DEPLOY / name).read_text())["services"]["kache"]
    assert kache["read_only"] and kache["cap_drop"] == ["ALL"] and kache["security_opt"] == ["no-new-privileges:true"]
    ((path, _, options),) = (entry.partition(":") for entry in kache["tmpfs"])
    assert Path(path) in Path(kache["environment"]["KACHE_RUN_DIR"]).parents
    # Podman knows no owner of a tmpfs: Kache makes a folder of its own there.
    assert "mode=1777" in options.split(",")
    assert all(port.startswith("127.0.0.1:") for port in kache["ports"])


# Kubernetes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_the_manifests_are_valid(manifest: dict[str, Any]) -> None:
    import kubernetes_validate

    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_the_validator_sees_something() -> None:
    import kubernetes_validate

    wrong = json.loads(json.dumps(MANIFESTS[3]))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def of_kind(kind: str) -> dict[str, Any]:
    return next(each for each in MANIFESTS if each["kind"] == kind)


def test_the_manifests_fit_together(tmp_path: Path) -> None:
    pod = of_kind("StatefulSet")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    labels = pod["metadata"]["labels"]
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = of_kind(kind)["spec"]
        selector = spec.get("selector") or spec["podSelector"]
        assert selector.get("matchLabels", selector) == labels
    assert of_kind("StatefulSet")["spec"]["serviceName"] in {
        each["metadata"]["name"] for each in MANIFESTS if each["kind"] == "Service"
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == {each["name"] for each in pod["spec"]["volumes"]}
    assert str(pod["spec"]["securityContext"]["runAsUser"]) in (DEPLOY / "Dockerfile").read_text()
    # The settings are settings, their password is where the secret is mounted, and they leave memory for the rest.
    settings = tomllib.loads(of_kind("ConfigMap")["data"]["kache.toml"])
    assert set(settings) <= set(SETTINGS)
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert any(settings["requirepass-file"].startswith(mount) for mount in mounts)
    (tmp_path / "requirepass").write_text("sesame")
    config = load(settings | {"requirepass-file": str(tmp_path / "requirepass")}, {})
    assert config.maxmemory * 1.25 <= int(container["resources"]["limits"]["memory"].removesuffix("Gi")) << 30


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe"])
def test_the_probes_tell(probe: str, tmp_path: Path) -> None:
    command = of_kind("StatefulSet")["spec"]["template"]["spec"]["containers"][0][probe]["exec"]["command"]
    secret = tmp_path / "requirepass"
    secret.write_text("sesame\n")
    with Cluster(1, environment={"KACHE_REQUIREPASS_FILE": str(secret)}) as cluster:
        assert cluster.kache(*command[1:]).returncode == 0
        pid = cluster.pid_of("router")
    assert cluster.kache(*command[1:], check=False).returncode != 0 and pid


def test_the_health_check_means_that_every_shard_serves() -> None:
    """That of the image, which the compose file repeats: a shard that stands still is seen and named; being alive is less."""
    (text,) = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    command = json.loads(text)
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["kache"]["healthcheck"]
    assert composed["test"] == ["CMD", *command] and composed["start_period"] == "10m"
    (container,) = of_kind("StatefulSet")["spec"]["template"]["spec"]["containers"]
    with Cluster(2, environment={"KACHE_REQUIREPASS": "sesame"}, restart_unresponsive="no") as cluster:
        until(lambda: cluster.kache(*command[1:], check=False).returncode == 0, "it is healthy")
        pid = cluster.pid_of("shard", 1)
        cluster.kill(pid, signal.SIGSTOP)
        try:
            done = cluster.kache(*command[1:], check=False)
            assert done.returncode == 1 and "shard 1 " in done.stderr, done
            assert cluster.kache(*container["livenessProbe"]["exec"]["command"][1:]).returncode == 0
        finally:
            cluster.kill(pid, signal.SIGCONT)


def test_it_is_ready_by_the_metrics_port() -> None:
    """What a probe asks over HTTP is answered in tests/e2e/test_metrics.py."""
    (container,) = of_kind("StatefulSet")["spec"]["template"]["spec"]["containers"]
    asked = container["readinessProbe"]["httpGet"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    settings = tomllib.loads(of_kind("ConfigMap")["data"]["kache.toml"])
    assert (asked["path"], ports[asked["port"]]) == ("/readyz", settings["metrics-port"])
    monitor = yaml.safe_load((DEPLOY / "servicemonitor.yaml").read_text())
    service = of_kind("Service")
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
