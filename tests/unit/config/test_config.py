"""Settings: precedence, the place of a wrong value, sizes, CONFIG SET's texts, and rewriting the file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kache.config.changing import changed, redis_settings
from kache.config.client_limits import client_budget
from kache.config.document import settings_file, settings_text
from kache.config.file import rewrite, rewritten_text
from kache.config.kinds import format_size, parse_size
from kache.config.reading import load
from kache.config.settings import SETTINGS, Config, ConfigError


def file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "kache.toml"
    path.write_text(text)
    return str(path)


def test_defaults_are_values_the_settings_take() -> None:
    config = load({}, {})
    assert config == Config()
    for name, setting in SETTINGS.items():
        assert setting.read(setting.show(config.setting(name)) if name != "bind" else "127.0.0.1") == config.setting(
            name
        )
        assert setting.doc.endswith("."), name


def test_precedence(tmp_path: Path) -> None:
    path = file(tmp_path, 'port = 1\nshards = 1\nmaxmemory = "1gb"\nbind = ["127.0.0.1", "::1"]\n')
    config = load({"port": "3", "shards": None}, {"KACHE_PORT": "2", "KACHE_SHARDS": "2"}, path)
    assert (config.port, config.shards, config.maxmemory) == (3, 2, 1 << 30)
    assert config.bind == ("127.0.0.1", "::1")
    assert load({}, {"KACHE_CONFIG": path}).port == 1


@pytest.mark.parametrize(
    ("options", "environ", "text", "message"),
    [
        ({"shards": "x"}, {}, "", "shards must be a whole number, from 0 to 256, not 'x' (the option --shards)."),
        ({}, {"KACHE_PORT": "99999"}, "", "port must be a whole number, from 0 to 65535, not '99999' (the variable KACHE_PORT)."),
        ({}, {}, 'maxmemory = "many"', "maxmemory must be a size such as 1gb or 4096, from 0 to 1125899906842624, not 'many' ({path}: maxmemory)."),
        ({}, {}, "maxmemory-polcy = 1", "There is no setting 'maxmemory-polcy' ({path}). Did you mean 'maxmemory-policy'?"),
        ({}, {}, "max-strings = 99\nmax_strings = 98", "max-strings is set twice ({path})."),
        ({}, {"KACHE_SAVE": "900"}, "", "save must be pairs of seconds and changes, such as 900 1 300 10, or empty, not '900' (the variable KACHE_SAVE)."),
        ({"link_soft_bytes": "64mb"}, {}, "", "link-soft-bytes (67108864) must not be larger than link-hard-bytes (33554432)."),
        ({"max_frame_bytes": "144mb"}, {}, "", "max-frame-bytes must be a size such as 1gb or 4096, from 1024 to 149946368, not '144mb' (the option --max-frame-bytes)."),
        ({}, {}, "[a]\nb=1", "There is no setting 'a' ({path})."),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_place(
    tmp_path: Path, options: dict[str, str], environ: dict[str, str], text: str, message: str
) -> None:
    path = file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(options, environ, path)
    assert str(caught.value) == message.replace("{path}", path)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match="The configuration file /no/such cannot be read: No such file"):
        load({}, {}, "/no/such")


def test_a_secret_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        load({"requirepass": ["swordfish"]}, {})
    assert "swordfish" not in str(caught.value)


def test_config_set() -> None:
    config = changed(Config(), {"maxmemory": "100mb", "maxmemory-policy": "NoEviction"})
    assert (config.maxmemory, config.maxmemory_policy) == (100 << 20, "noeviction")
    assert redis_settings(config)["maxmemory"] == "104857600"
    for values, setting, reason in (
        ({"port": "1"}, "port", "can't set immutable config"),
        ({"maxmemory": "-1"}, "maxmemory", "argument must be a size"),
        ({"nothing": "1"}, "", "unknown"),
    ):
        with pytest.raises(ConfigError) as caught:
            changed(Config(), values)
        assert caught.value.setting == setting
        assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1k", 1000), ("1kb", 1024), ("64 MiB", 64 << 20), ("1.5gb", 3 << 29), ("1GB", 1 << 30), ("12b", 12)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "gb", "-1", "1xb", "1.5", "1.5b", "nan", "inf", "1e3", "9999999tb", "1 2", "١"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


@given(st.integers(0, 1 << 20), st.sampled_from([0, 10, 20, 30, 40]))
def test_shown_sizes_are_close(number: int, shift: int) -> None:
    size = number << shift
    assert abs(parse_size(format_size(size)) - size) <= size / 10


SIZE_OR_SHARE = "a size such as 1gb or 4096, or a whole percentage of maxmemory such as 5%, up to 100%"


@pytest.mark.parametrize(
    ("maxmemory", "text", "shown", "budget"),
    [
        ("1gb", "64mb", "67108864", 64 << 20), ("1gb", "5%", "5%", (1 << 30) // 20), ("1gb", "100%", "100%", 1 << 30),
        ("4mb", "1%", "1%", 1 << 20), ("1gb", "0%", "0", None), ("0", "50%", "50%", None), ("1gb", "0", "0", None),
    ],
)  # fmt: skip
def test_what_clients_may_cost_can_be_a_part_of_maxmemory(maxmemory: str, text: str, shown: str, budget: int) -> None:
    config = changed(Config(), {"maxmemory": maxmemory, "maxmemory-clients": text})
    assert redis_settings(config)["maxmemory-clients"] == shown
    assert client_budget(config) == (client_budget(Config()) if budget is None else budget)
    assert load({"maxmemory": maxmemory, "maxmemory_clients": text}, {}) == config


def test_a_part_is_that_of_the_limit_of_the_moment() -> None:
    config = changed(Config(), {"maxmemory-clients": "50%"})
    assert [client_budget(changed(config, {"maxmemory": size})) >> 20 for size in ("64mb", "2gb")] == [32, 1024]


@pytest.mark.parametrize("text", ["101%", "-5%", "%", "5.5%", "5%%", "many%", "-1", "2000000gb"])
def test_what_is_no_part_of_maxmemory(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(Config(), {"maxmemory-clients": text})
    assert caught.value.reason == f"argument must be {SIZE_OR_SHARE}"


def test_there_is_no_part_of_the_memory_of_nodes() -> None:
    config = load({"backend": "redis-cluster://127.0.0.1:7000"}, {})
    with pytest.raises(ConfigError) as caught:
        changed(config, {"maxmemory-clients": "5%"})
    assert caught.value.reason == "argument must be a size, since maxmemory belongs to the nodes"
    with pytest.raises(
        ConfigError, match="maxmemory-clients 5% is a part of maxmemory, which belongs to the backend's "
    ):
        load({"backend": "redis-cluster://127.0.0.1:7000", "maxmemory_clients": "5%"}, {})
    assert changed(config, {"maxmemory-clients": "8mb"}).maxmemory_clients == 8 << 20


def test_rewriting_keeps_comments_and_order(tmp_path: Path) -> None:
    path = file(tmp_path, '# mine\nport = 7000 # here\n  maxmemory="1gb"   # half of it\n\ntimeout = 5\n')
    config = changed(load({}, {}, path), {"maxmemory": "2gb", "requirepass": 'a"b\\', "timeout": "5"})
    assert rewrite(path, config) == ""
    text = Path(path).read_text()
    assert text.startswith('# mine\nport = 7000 # here\n  maxmemory="2gb"   # half of it\n\ntimeout = 5\n')
    assert load({}, {}, path) == config
    assert rewritten_text(text, config) == text


@pytest.mark.parametrize(
    ("line", "values", "new"),
    [
        ("maxmemory = 1000", {"maxmemory": "1001"}, "maxmemory = 1001"),
        ("maxmemory = '1kb' # '\"#", {"maxmemory": "1536kb"}, 'maxmemory = "1536kb" # \'"#'),
        ('requirepass = "a # b\\"" # c', {"requirepass": "x#y"}, 'requirepass = "x#y" # c'),
        ("protected_mode = true", {"protected-mode": "no"}, "protected_mode = false"),
        ('maxmemory-policy = "allkeys-lru"#!', {"maxmemory-policy": "noeviction"}, 'maxmemory-policy = "noeviction"#!'),
        ("timeout =5", {"timeout": "6"}, "timeout =6"),
        ('maxmemory-clients = "64mb"', {"maxmemory-clients": "5%"}, 'maxmemory-clients = "5%"'),
        ("maxmemory-clients = '10%' # of it", {"maxmemory-clients": "8mb"}, 'maxmemory-clients = "8mb" # of it'),
    ],
)
def test_rewriting_replaces_the_value_alone(tmp_path: Path, line: str, values: dict[str, str], new: str) -> None:
    path = file(tmp_path, f"{line}\n# end\n")
    config = changed(load({}, {}, path), values)
    assert rewrite(path, config) == ""
    assert Path(path).read_text() == f"{new}\n# end\n"
    assert load({}, {}, path) == config


def test_a_value_over_several_lines_is_not_rewritten(tmp_path: Path) -> None:
    text = 'requirepass = """\\\n  a"""\n'
    path = file(tmp_path, text)
    config = changed(load({}, {}, path), {"requirepass": "b"})
    assert "cannot be rewritten: it names a changed setting over several lines" in rewrite(path, config)
    assert Path(path).read_text() == text


def test_a_password_of_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sesame\nmore\n")
    config = load({"requirepass_file": str(secret)}, {})
    assert config.requirepass == "sesame"
    path = file(tmp_path, f'requirepass-file = "{secret}"\n')
    loaded = load({}, {}, path)
    assert rewrite(path, changed(loaded, {"timeout": "7"})) == ""
    assert "sesame" not in Path(path).read_text()
    with pytest.raises(ConfigError, match="which password is meant"):
        load({"requirepass_file": str(secret)}, {"KACHE_REQUIREPASS": "x"})
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load({"requirepass_file": str(tmp_path / "none")}, {})
    secret.write_text("\n")
    with pytest.raises(ConfigError, match="has no password in its first line"):
        load({"requirepass_file": str(secret)}, {})
    secret.write_bytes(b"\xff\n")
    with pytest.raises(ConfigError, match="it is not UTF-8"):
        load({"requirepass_file": str(secret)}, {})


def test_all_settings_as_toml(tmp_path: Path) -> None:
    assert load({}, {}, file(tmp_path, settings_text())) == Config()
    named = tomllib.loads(settings_text())
    assert set(named) == {name for name, setting in SETTINGS.items() if not setting.fixed}
    assert named["max-frame-bytes"] == "64mb" and named["bind"] == ["127.0.0.1"] and named["pin-cores"] is False
    for setting in SETTINGS.values():
        assert setting.doc.split()[0] in settings_text()


def test_the_commented_file_is_made_of_the_settings() -> None:
    made = Path(__file__).parent.parent.parent.parent / "deploy" / "kache.toml"
    assert made.read_text() == settings_file(), "run python -m kache.config.document > deploy/kache.toml"
    assert tomllib.loads(settings_file()) == {}
    assert tomllib.loads(re.sub(r"^#([a-z])", r"\1", settings_file(), flags=re.MULTILINE)).keys() == SETTINGS.keys()


def test_what_cannot_be_rewritten_is_named_and_left_as_it_was(tmp_path: Path) -> None:
    path = file(tmp_path, 'maxmemory = "many"\n')
    assert rewrite(path, Config()).startswith(f"the configuration file {path} cannot be rewritten: must be a size")
    for wrong in (tmp_path / "none", tmp_path):
        assert str(wrong) in rewrite(str(wrong), Config())
    assert rewrite(None, Config()) == "The server is running without a config file"
    assert [each.name for each in tmp_path.iterdir()] == ["kache.toml"]


def test_the_configuration_travels() -> None:
    config = load({"bind": ["127.0.0.1", "::1"], "requirepass": "x"}, {})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=Config) == config
