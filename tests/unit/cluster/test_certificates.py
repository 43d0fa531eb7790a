"""What is wrong with a certificate is one sentence, at once; and whom a client's certificate stands for."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest
from authority import Authority

from kache.cluster.certificates import CertificateError, checked_in_a_child, fingerprint, loaded, say_expiry
from kache.config.reading import load
from kache.config.settings import Config, ConfigError
from kache.router.tls import names


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def config_of(authority: Authority, **changes: Any) -> Config:
    settings = {
        "tls_port": 1234,
        "tls_cert_file": str(authority.cert_file),
        "tls_key_file": str(authority.key_file),
        "tls_auth_clients": "no",
        **changes,
    }
    return msgspec.structs.replace(Config(), **settings)


def refusal(config: Config) -> str:
    with pytest.raises(CertificateError) as caught:
        loaded(config)
    assert checked_in_a_child(config) == str(caught.value)
    return str(caught.value)


def test_a_good_one(authority: Authority) -> None:
    found = loaded(config_of(authority))
    assert len(found.serial) > 8 and found.expires > 2e9
    assert checked_in_a_child(config_of(authority)) == ""
    assert found.context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert found.context.options & ssl.OP_NO_RENEGOTIATION and found.context.options & ssl.OP_NO_COMPRESSION
    assert found.context.keylog_filename is None
    assert found.context.verify_mode == ssl.CERT_NONE


def test_no_key_log_by_environment(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert loaded(config_of(authority)).context.keylog_filename is None
    assert not (tmp_path / "keys").exists()


def test_relative_files_lie_in_dir(authority: Authority) -> None:
    folder = str(authority.directory)
    loaded(config_of(authority, dir=folder, tls_cert_file="server.pem", tls_key_file="server.key"))


def test_broken_files(authority: Authority, tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    assert none in refusal(config_of(authority, tls_cert_file=none))
    assert none in refusal(config_of(authority, tls_key_file=none))
    text = tmp_path / "text"
    text.write_text("hello")
    text.chmod(0o600)
    assert "cannot be used" in refusal(config_of(authority, tls_cert_file=str(text)))
    assert "cannot be used" in refusal(config_of(authority, tls_key_file=str(text)))
    assert "no certificates" in refusal(config_of(authority, tls_auth_clients="yes", tls_ca_cert_file=str(text)))
    assert "no directory" in refusal(config_of(authority, tls_auth_clients="yes", tls_ca_cert_dir=str(text)))
    other, _ = authority.issue("other", "localhost")
    assert "is not the key of the certificate" in refusal(config_of(authority, tls_cert_file=str(other)))


def test_dates(authority: Authority) -> None:
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    for name, begin, end, word in (
        ("old", now - 9 * day, now - day, "expired"),
        ("new", now + day, now + 9 * day, "not yet"),
    ):
        cert, key = authority.issue(name, "localhost", not_before=begin, not_after=end)
        assert word in refusal(config_of(authority, tls_cert_file=str(cert), tls_key_file=str(key)))


def test_keys_that_others_can_read(authority: Authority) -> None:
    authority.key_file.chmod(0o644)
    assert "by everybody" in refusal(config_of(authority))
    authority.key_file.chmod(0o640)
    loaded(config_of(authority))


def test_encrypted_keys(authority: Authority) -> None:
    from cryptography.hazmat.primitives import serialization

    plain = serialization.load_pem_private_key(authority.key_file.read_bytes(), None)
    sealed = plain.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"open sesame"),
    )
    authority.key_file.write_bytes(sealed)
    loaded(config_of(authority, tls_key_file_pass="open sesame"))
    assert "is encrypted, and tls-key-file-pass is not set" in refusal(config_of(authority))
    wrong = refusal(config_of(authority, tls_key_file_pass="wrong secret"))
    assert "is not its passphrase" in wrong and "wrong secret" not in wrong


def test_rules(authority: Authority) -> None:
    assert "ROT13" in refusal(config_of(authority, tls_ciphers="ROT13"))
    only = loaded(config_of(authority, tls_protocols="TLSv1.3")).context
    assert only.minimum_version == ssl.TLSVersion.TLSv1_3
    older = loaded(config_of(authority, tls_protocols='"TLSv1.2"')).context
    assert older.maximum_version == ssl.TLSVersion.TLSv1_2
    tickets = loaded(config_of(authority, tls_session_caching=False)).context
    assert tickets.num_tickets == 0 and tickets.options & ssl.OP_NO_TICKET


def test_what_belongs_together() -> None:
    with pytest.raises(ConfigError, match="tls-cert-file is not set"):
        load({"tls_port": 7380}, {})
    files = {"tls_port": 7380, "tls_cert_file": "a", "tls_key_file": "b"}
    with pytest.raises(ConfigError, match="tls-ca-cert-file"):
        load(files, {})
    with pytest.raises(ConfigError, match="both 7379"):
        load({**files, "tls_port": 7379, "tls_auth_clients": "no"}, {})
    with pytest.raises(ConfigError, match="can be TLSv1"):
        load({**files, "tls_auth_clients": "no", "tls_protocols": "TLSv1.1 TLSv1.2"}, {})
    load({**files, "tls_auth_clients": "no", "tls_protocols": "TLSv1.3"}, {})


def test_the_passphrase_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("open sesame\n")
    config = load({"tls_key_file_pass_file": str(tmp_path / "pass")}, {})
    assert config.tls_key_file_pass == "open sesame"
    with pytest.raises(ConfigError, match="both set"):
        load({"tls_key_file_pass_file": str(tmp_path / "pass"), "tls_key_file_pass": "x"}, {})


def test_replaced_files_are_noticed(authority: Authority) -> None:
    config = config_of(authority)
    before = fingerprint(config)
    assert fingerprint(config) == before
    authority.issue("server", "localhost")
    assert fingerprint(config) != before
    authority.cert_file.unlink()
    fingerprint(config)


def test_expiry_is_said_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def log(text: str, *values: object) -> None:
        said.append(text % values)

    now = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    expires = int(now + 20 * 86400)
    told: set[int] = set()
    for day in range(21):
        now = 1_000_000.0 + day * 86400
        for _ in range(3):
            told = say_expiry(expires, told, log)
    assert said == ["the TLS certificate expires in 14 days", "the TLS certificate expires in 24 hours"]


@pytest.mark.parametrize(
    ("certificate", "which", "expected"),
    [
        ({"subject": ((("commonName", "alice"),),)}, "cn", ["alice"]),
        ({"subject": ((("organizationName", "x"),), (("commonName", "alice"),))}, "cn", ["alice"]),
        ({"subject": ((("commonName", "alice"),), (("commonName", "admin"),))}, "cn", []),
        ({"subject": ((("commonName", "admin\x00.evil"),),)}, "cn", []),
        ({"subject": ((("commonName", "admin\n"),),)}, "cn", []),
        ({"subject": ((("commonName", ""),),)}, "cn", []),
        ({"subject": ()}, "cn", []),
        ({}, "uri", []),
        ({"subjectAltName": (("DNS", "alice"), ("URI", "urn:a"), ("URI", "urn:b"))}, "uri", ["urn:a", "urn:b"]),
        ({"subjectAltName": (("URI", "urn:a\x7f"),)}, "uri", []),
        ({"subject": ((("commonName", "alice"),),)}, "uri", []),
    ],
)
def test_names_of_users(certificate: dict[str, Any], which: str, expected: list[str]) -> None:
    assert names(certificate, which) == expected
