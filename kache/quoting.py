"""Bytes for people: as they could be typed, with what cannot be printed escaped."""

from __future__ import annotations

__all__ = ["name_text", "quoted"]

_ESCAPES = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 92: "\\\\"}


def quoted(data: bytes) -> str:
    """`data` in double quotes, as it could be typed."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "".join(chr(byte) if byte < 128 else f"\0{byte:02x}" for byte in data)
        return '"' + "".join(_escaped(char) for char in text).replace("\\x00", "\\x") + '"'
    return '"' + "".join(_escaped(char) for char in text) + '"'


def name_text(key: bytes) -> str:
    """A key as a table shows it: in quotes only if it has a space, or what cannot be printed."""
    text = quoted(key)
    return text if " " in text or "\\" in text or not key else text[1:-1]


def _escaped(char: str) -> str:
    code = ord(char)
    return _ESCAPES.get(code) or (char if char.isprintable() else "".join(f"\\x{b:02x}" for b in char.encode()))
