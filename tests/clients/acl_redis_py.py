"""redis-py's calls about users. Run: python acl_redis_py.py PORT PROTOCOL."""

from __future__ import annotations

import sys

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def main() -> None:
    port, protocol = int(sys.argv[1]), int(sys.argv[2])
    admin = redis.Redis(port=port, protocol=protocol, decode_responses=True)
    try:
        users(admin, port, protocol)
    finally:
        admin.acl_deluser("web", "jobs")
        admin.acl_log_reset()
        admin.delete("cache:1", "other")
    print(f"redis-py {redis.__version__}: users fine")


def users(admin: redis.Redis, port: int, protocol: int) -> None:
    assert "read" in admin.acl_cat() and "get" in admin.acl_cat("read")
    assert len(admin.acl_genpass()) == 64 and len(admin.acl_genpass(16)) == 4
    assert admin.acl_whoami() == "default"
    assert admin.acl_setuser(
        "web",
        enabled=True,
        passwords=["+secret"],
        categories=["+@read", "+@write", "-@dangerous"],
        commands=["+acl|whoami", "+multi", "+exec", "+client|setinfo"],
        keys=["cache:*"],
        channels=["news:*"],
        selectors=[("+get", "%R~public:*")],
    )
    assert admin.acl_setuser("jobs", nopass=True, enabled=True)
    assert {"default", "jobs", "web"} <= set(admin.acl_users())
    assert any(line.startswith("user web on #") for line in admin.acl_list())
    told = admin.acl_getuser("web")
    assert told["enabled"] and "on" in told["flags"] and len(told["passwords"]) == 1, told
    assert told["keys"] in (["~cache:*"], "~cache:*") and told["channels"] in (["&news:*"], "&news:*"), told
    assert admin.acl_getuser("nobody") is None
    assert admin.acl_dryrun("web", "GET", "cache:1") in ("OK", True)
    assert "no permissions" in admin.acl_dryrun("web", "GET", "other")
    with redis.Redis(port=port, protocol=protocol, username="web", password="secret", decode_responses=True) as web:
        assert web.acl_whoami() == "web" and web.set("cache:1", "x") and web.get("cache:1") == "x"
        with web.pipeline() as pipeline:
            assert pipeline.set("cache:1", "y").get("cache:1").execute() == [True, "y"]
        refused(lambda: web.get("other"))
        refused(web.flushall)
    # It takes a wrong password for a connection that broke, and would try again.
    once = Retry(NoBackoff(), 0)
    refused(
        lambda: redis.Redis(port=port, username="web", password="wrong", retry=once).ping(), redis.AuthenticationError
    )
    log = {
        entry["reason"]: entry for entry in admin.acl_log(10)
    }  # in whatever order: routers note the same millisecond
    assert set(log) == {"auth", "command", "key"}, log
    assert log["key"]["object"] == "other" and log["key"]["username"] == "web"
    client = log["key"]["client-info"]  # which redis-py reads for RESP2 only
    assert client["user"] == "web" if isinstance(client, dict) else " user=web " in client
    assert admin.acl_log_reset() and admin.acl_log() == []
    assert admin.acl_deluser("jobs", "nobody") == 1
    refused(admin.acl_load, redis.ResponseError)
    refused(admin.acl_save, redis.ResponseError)


def refused(call: object, error: type[Exception] = redis.exceptions.NoPermissionError) -> None:
    """The call must be refused in this way."""
    try:
        call()  # type: ignore[operator]  # each is a bound method
    except error:
        return
    raise AssertionError(f"it was not refused with {error.__name__}")


main()
