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

from kache.config.settings import SETTINGS, Config
from kache.errors import KacheError

__all__ = ["ConfigFileError", "rewrite"]

_DEFAULTS = Config()
_LINE = re.compile(r"^\s*([A-Za-z0-9_-]+)\s*=")


class ConfigFileError(KacheError):
    """The file cannot be rewritten; the message says why."""


def rewrite(path: str, config: Config) -> None:
    """Make `path` say what `config` says of the settings that can change while the cluster runs."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        rewritten = rewritten_text(text, config)
        temporary = f"{path}.{os.getpid()}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), os.stat(path).st_mode & 0o777)
            file.write(rewritten)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigFileError(f"the configuration file {path} cannot be rewritten: {error}") from None


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
