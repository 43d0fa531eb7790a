"""The passphrase of the TLS key, and the key, are shown nowhere; only those who serve TLS have read it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from authority import Authority, TlsCluster
from cluster import KACHE, until
from cryptography.hazmat.primitives import serialization

pytestmark = pytest.mark.once

CANARY = "canary-passphrase-71c2"


def encrypt(authority: Authority) -> bytes:
    """Makes the server's key one with a passphrase; what of it is secret, as it lies in a process' memory."""
    key = serialization.load_pem_private_key(authority.key_file.read_bytes(), None)
    authority.key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(CANARY.encode()),
        )
    )
    return authority.key_file.read_bytes().splitlines()[1]


@pytest.mark.parametrize("way", ["option", "variable", "file"])
def test_the_passphrase_is_not_shown(way: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    secret = encrypt(authority)
    options: dict[str, object] = {"loglevel": "debug"}
    environment = {"KACHE_TLS_KEY_FILE_PASS": CANARY} if way == "variable" else {}
    if way == "option":
        options["tls_key_file_pass"] = CANARY
    elif way == "file":
        (tmp_path / "pass").write_text(CANARY + "\n")
        options["tls_key_file_pass_file"] = tmp_path / "pass"
    with TlsCluster(2, routers=2, authority=authority, environment=environment, **options) as cluster:
        pids = [cluster.process.pid, *(child["pid"] for child in cluster.status()["children"])]
        shown = [str(cluster.kache("cluster", "reload").stdout)]
        with cluster.secure() as connection:
            for words in (("config", "get", "*"), ("info", "everything"), ("client", "list"), ("slowlog", "get", "-1")):
                shown.append(str(connection.request(*words)))
            refused = connection.request("config", "set", "tls-key-file-pass", CANARY + "x")
            shown.append(str(refused).replace(CANARY + "x", ""))
            assert connection.request("config", "get", "tls-key-file-pass") == []
        authority.key_file.write_bytes(b"broken")
        shown.append(cluster.kache("cluster", "reload", check=False).stderr)
        for words in (("cluster", "status", "--json"), ("cluster", "status")):
            done = subprocess.run(
                [*KACHE, *words, f"--port={cluster.port}"],
                env=cluster.environment, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            shown += [done.stdout, done.stderr]
        shown.append(cluster.log())
        until(lambda: all(CANARY not in Path(f"/proc/{pid}/cmdline").read_text() for pid in pids), "titles are set")
        assert [text for text in shown if CANARY in text or secret.decode() in text] == []
