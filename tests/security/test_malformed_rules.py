"""Rules of users that are none: refused in a sentence, and nothing ends.

CVE-2024-31227 and CVE-2024-51741 (malformed selectors ended the process); https://nvd.nist.gov/vuln.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, Connection

from kache.errors import CommandError

PARTS = (
    b"on", b"off", b"(", b")", b"((", b"))", b"(+get", b"~a*)", b"(+get ~a*)", b"()", b"( )", b"(()", b"%", b"%R", b"%R~", b"%RW~x",
    b"%X~a", b"~", b"~" + b"*" * 200, b"~[", b"~[a-", b"~\\", b"&", b"&[", b"+", b"-", b"+@", b"+@nosuch", b"+|", b"+get|",
    b"+config|", b"+config|get|x", b"+select|0", b"-select|0", b"+@all", b"-@all", b">", b"<", b"#", b"!", b"#" + b"f" * 64,
    b"#" + b"F" * 64, b"!" + b"0" * 64, b"limit:", b"limit:clients=", b"limit:x=1", b"reset", b"\xff\xfe", b"", b" ", b"+\0get",
    b"allkeys", b"~after", b"sanitize-payload", b"clearselectors", b"resetlimits", b"db=1", b"~" + b"x" * 5000,
)  # fmt: skip
SEED = 31


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rules")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Cluster]:
    (folder / "users.acl").write_text("user default on nopass ~* &* +@all\n")
    (folder / "users.acl").chmod(0o600)
    with Cluster(1, routers=2, aclfile=folder / "users.acl") as running:
        before = running.status()
        yield running
        after = running.status()
        assert [child["pid"] for child in after["children"]] == [child["pid"] for child in before["children"]]
        assert "Traceback" not in running.log()


@pytest.fixture
def admin(cluster: Cluster) -> Iterator[Connection]:
    with cluster.connect() as connection:
        yield connection


def test_random_rules_make_a_user_or_a_sentence(admin: Connection) -> None:
    dice = random.Random(SEED)
    refused = 0
    for _ in range(400):
        rules = [dice.choice(PARTS) for _ in range(dice.randrange(1, 6))]
        before = admin.request("acl", "list")
        reply = admin.request("acl", "setuser", "ada", *rules)
        if reply != "OK":
            assert isinstance(reply, CommandError) and reply.message.startswith("ERR "), rules
            assert admin.request("acl", "list") == before, rules  # all or nothing
            refused += 1
            continue
        # What is listed is read again as the same user.
        line = next(line for line in admin.request("acl", "list") if line.startswith(b"user ada "))
        described = line.split(b" ")[2:]
        assert admin.request("acl", "setuser", "bob", "reset", *described) == "OK", line
        copy = next(line for line in admin.request("acl", "list") if line.startswith(b"user bob "))
        assert copy.split(b" ")[2:] == described
    assert 50 < refused < 400


def test_random_files_are_read_or_refused_as_a_whole(admin: Connection, folder: Path) -> None:
    dice = random.Random(SEED)
    path = folder / "users.acl"
    whole = b"user default on nopass ~* &* +@all\nuser eve on nopass +get (+set ~e*)\n"
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 4)):
            at = dice.randrange(len(data))
            data[at : at + dice.randrange(4)] = dice.choice(
                (b"", b"\0", b"(", b")", b"\n", b"\xff", b"~", b" user ", b"*")
            )
        path.write_bytes(data)
        before = admin.request("acl", "list")
        reply = admin.request("acl", "load")
        if reply != "OK":
            assert isinstance(reply, CommandError), bytes(data)
            assert admin.request("acl", "list") == before
        elif admin.request("acl", "whoami") != b"default" or b"nopass" not in admin.request("acl", "list")[0]:
            break  # by chance it is another world now, in which there is nothing more to ask
        path.write_bytes(whole)
        if admin.request("acl", "load") != "OK":
            break
