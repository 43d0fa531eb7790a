"""Writing changed settings back into the TOML file a cluster was started with (CONFIG REWRITE).

The file keeps its comments and its order: only lines of settings whose value differs are replaced, and what the
file does not name is appended. The new file replaces the old one in one step.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from typing import Any

from kache.config.kinds import SettingError
from kache.config.settings import SETTINGS, Config

__all__ = ["rewrite"]

_DEFAULTS = Config()
_LINE = re.compile(r"^\s*([A-Za-z0-9_-]+)\s*=")


def rewrite(path: str | None, config: Config) -> str:
    """Make `path` say what `config` says of the settings that can change while the cluster runs; "" or why it cannot."""
    if path is None:
        return "The server is running without a config file"
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        _replace(path, rewritten_text(text, config))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, SettingError) as error:
        return f"the configuration file {path} cannot be rewritten: {error}"
    return ""


def _replace(path: str, text: str) -> None:
    """Put `text` where `path` is in one step; a failure leaves nothing behind."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), os.stat(path).st_mode & 0o777)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def rewritten_text(text: str, config: Config) -> str:
    """`text` of a TOML file with the live settings as in `config`."""
    named = {key.replace("_", "-"): value for key, value in tomllib.loads(text).items()}
    wanted: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        value = config.setting(name)
        before = _DEFAULTS.setting(name)
        if name in named:
            before = setting.taken(before, named[name])
        if setting.live and value != before:
            wanted[name] = value if setting.kind.merge is None else setting.show(value)
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = _LINE.match(line)
        name = match[1].replace("_", "-") if match else ""
        if match and name in wanted:
            lines[number] = f"{match[1]} = {_literal(wanted.pop(name))}"
    lines += [f"{name} = {_literal(value)}" for name, value in wanted.items()]
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    # JSON's strings, numbers and booleans are TOML's too.
    return json.dumps(value, ensure_ascii=False)
