"""Bounds of numbers, and the parameters of a real server that mean nothing here."""

from __future__ import annotations

import pytest

from kache.config.changing import changed, redis_settings
from kache.config.foreign import ALIASES, FOREIGN
from kache.config.kinds import YES_NO, Kind, Setting, SettingError
from kache.config.settings import SETTINGS, Config, ConfigError


def test_a_number_without_bounds_is_no_setting() -> None:
    boundless = Kind("count", "a number", int, str, number=True)
    with pytest.raises(TypeError, match="a setting without a high: Which"):
        Setting(boundless, "Which.", low=0)
    assert Setting(YES_NO, "Whether.").high is None


def test_every_number_has_bounds_within_which_nobody_overflows() -> None:
    """Routers and shards keep what they multiply in 64 bits: seconds as milliseconds, microseconds as nanoseconds."""
    scale = {"s": 1000, "us": 1000, "size": 1024, "count": 2**31, "ms": 1000, "minutes": 60000}
    for name, setting in SETTINGS.items():
        if setting.kind.number:
            assert setting.low is not None and setting.high is not None, name
            assert setting.low <= setting.high and setting.high * scale[setting.kind.name] < 2**63, name
    assert (SETTINGS["lfu-decay-time"].high or 2**32) < 2**32


def test_what_is_so_already_is_taken() -> None:
    for name, foreign in FOREIGN.items():
        assert foreign.taken(foreign.value) == foreign.value, name
    assert not set(FOREIGN) & (set(SETTINGS) | set(ALIASES))
    assert set(ALIASES.values()) <= set(SETTINGS)


def test_what_means_nothing_is_kept_and_shown() -> None:
    config = changed(Config(), {"Lazyfree-Lazy-Expire": "NO", "hash-max-ziplist-entries": "7", "appendonly": "no"})
    shown = redis_settings(config)
    assert shown["lazyfree-lazy-expire"] == "no"
    assert shown["hash-max-listpack-entries"] == shown["hash-max-ziplist-entries"] == "7"
    assert redis_settings(Config())["lazyfree-lazy-expire"] == "yes"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        (
            "cluster-enabled",
            "yes",
            "argument can only be 'no', since clients see one node, behind which the shards are",
        ),
        (
            "tls-replication",
            "yes",
            "argument can only be 'no', since Kache speaks TLS with clients alone",
        ),
        ("databases", "17", "argument can only be '16' for now"),
        ("active-expire-effort", "11", "argument must be a whole number, from 1 to 10"),
        ("oom-score-adj", "perhaps", "argument must be one of no, yes, relative, absolute"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason(name: str, text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(Config(), {name: text})
    assert (caught.value.setting, caught.value.reason) == (name, reason)


@pytest.mark.parametrize("text", ["a\0b", "x" * 5000, "\udcff"])
def test_text_that_could_not_be_sent_on(text: str) -> None:
    for name in ("requirepass", "logfile"):
        with pytest.raises(SettingError, match="must be text of at most 4095 bytes"):
            SETTINGS[name].read(text)
    with pytest.raises(SettingError, match="must be one or more addresses"):
        SETTINGS["bind"].read([text])


def test_a_value_as_long_as_a_message_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        changed(Config(), {"maxmemory": "9" * 1000000})
    assert len(str(caught.value)) < 300
    with pytest.raises(ConfigError) as caught:
        changed(Config(), {"requirepass": "swordfish\0"})
    assert "swordfish" not in str(caught.value)


def test_only_loopback_without_a_password() -> None:
    for hosts in ("127.0.0.1 ::1 localhost", "127.8.9.10"):
        changed(Config(bind=tuple(hosts.split())), {"timeout": "1"})
    for host in ("0.0.0.0", "::", "*", "10.0.0.1", "example.org"):
        exposed = Config(bind=("127.0.0.1", host))
        with pytest.raises(ConfigError, match=r"Listening on .* without a password is refused"):
            changed(exposed, {"timeout": "1"})
        changed(exposed, {"requirepass": "x"})
        changed(exposed, {"protected-mode": "no"})
