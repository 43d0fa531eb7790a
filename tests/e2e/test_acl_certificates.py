"""Certificates as users: whose name a certificate bears is that user from the first command on, if it is enabled."""

from __future__ import annotations

import pytest
from authority import TlsCluster

pytestmark = pytest.mark.once


def test_the_common_name_is_the_user() -> None:
    with TlsCluster(2, tls_auth_clients="yes", tls_auth_clients_user="CN") as cluster:
        with cluster.connect() as admin:
            admin.request("acl", "setuser", "shop", "on", "resetpass", "+acl|whoami", "+get", "~shop:*")
            admin.request("acl", "setuser", "closed", "off", "+acl|whoami")
        found = {}
        for name in ("shop", "closed", "nobody"):
            certificate = cluster.authority.issue(name, "client.example", common_name=name)
            with cluster.secure(cluster.authority.context(certificate)) as client:
                found[name] = client.request("acl", "whoami")
                if name == "shop":
                    assert client.request("get", "shop:1") is None
                    assert "NOPERM" in str(client.request("get", "other"))
        assert found == {"shop": b"shop", "closed": b"default", "nobody": b"default"}
        with cluster.connect() as stranger:
            assert "WRONGPASS" in str(stranger.request("auth", "shop", ""))
