"""What of a command nobody may see, by the column of the table."""

from __future__ import annotations

import pytest

from kache.commands import TABLE
from kache.commands.redact import REDACTED, has_secret, redacted
from kache.commands.row import check_row, in_group, row

X = REDACTED.decode()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("auth S", f"auth {X}"),
        ("AUTH ada S", f"AUTH {X} {X}"),
        ("auth ada S more", f"auth {X} {X} {X}"),
        ("hello 3 auth ada S setname me", f"hello 3 auth {X} {X} setname me"),
        ("HELLO 3 SETNAME auth AUTH ada S", f"HELLO 3 SETNAME auth {X} {X} {X}"),
        ("hello 3 auth a S AUTH b S", f"hello 3 auth {X} {X} AUTH {X} {X}"),
        ("hello 3 auth S", f"hello 3 auth {X}"),
        ("acl setuser ada on >S ~*", f"acl setuser ada {X} {X} {X}"),
        ("ACL SetUser ada", "ACL SetUser ada"),
        ("acl deluser ada", "acl deluser ada"),
        ("config set RequirePass S", f"config set RequirePass {X}"),
        ("CONFIG SET maxmemory 1gb requirepass S", f"CONFIG SET maxmemory 1gb requirepass {X}"),
        ("config set maxmemory requirepass S", f"config set maxmemory requirepass {X}"),
        ("config set requirepas S", f"config set requirepas {X}"),
        ("config set masterauth S", f"config set masterauth {X}"),
        ("config set hz 10 tls-key-file-pass S", f"config set hz 10 tls-key-file-pass {X}"),
        ("config set maxmemory 1gb", "config set maxmemory 1gb"),
        ("config get requirepass", "config get requirepass"),
        ("acl dryrun ada config set requirepass S", f"acl dryrun ada config set requirepass {X}"),
        ("acl dryrun ada acl dryrun ada auth S", f"acl dryrun ada acl dryrun ada auth {X}"),
        ("command getkeys hello 3 auth a S", f"command getkeys hello 3 auth {X} {X}"),
        ("migrate h 1 k 0 100 AUTH S", f"migrate h 1 k 0 100 AUTH {X}"),
        ("migrate h 1 k 0 100 AUTH2 ada S", f"migrate h 1 k 0 100 AUTH2 {X} {X}"),
        ("set auth S", "set auth S"),
        ("acl", "acl"),
        ("", ""),
    ],
)  # fmt: skip
def test_what_is_shown(line: str, shown: str) -> None:
    words = line.encode().split()
    assert list(redacted(words)) == shown.encode().split()
    assert has_secret(words) == (line != shown)


def test_bytes_that_are_no_text_are_secret_names_too() -> None:
    assert redacted([b"config", b"set", b"\xff\xfe", b"S"])[3] == REDACTED


def test_the_table_says_which_commands() -> None:
    found = {each.name for each in TABLE if each.secret}
    assert found == {
        "auth", "hello", "acl|setuser", "acl|dryrun", "config|set", "command|getkeys", "command|getkeysandflags"
    }  # fmt: skip


@pytest.mark.parametrize("notation", ["x", "AUTH", "auth>1/2", "settings", "AUTH>1"])
def test_a_notation_that_says_nothing_is_refused(notation: str) -> None:
    with pytest.raises(ValueError, match="bad secret"):
        row("x", "", 1, "", "", "1", "O(1)", "X.", route="local", cluster="local", secret=notation)


def test_no_shard_is_told_a_secret() -> None:
    (seen,) = in_group("string", row("x", "key", 2, "", "RO", "1", "O(1)", "X.", cluster="native", secret="1"))
    with pytest.raises(ValueError, match="shards would see"):
        check_row(seen)
    (within,) = in_group(
        "server", row("x|y", "", 3, "", "", "1", "O(1)", "X.", route="local", cluster="local", secret="1")
    )
    with pytest.raises(ValueError, match="within its name"):
        check_row(within)
