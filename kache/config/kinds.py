"""Kinds of settings: how the text of a value is read, checked and shown. The settings themselves are in `kache.config.settings`.

Pure functions; everything a person can get wrong raises `SettingError` with one sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from kache.config.client_limits import merge_limits, parse_limits, show_limits
from kache.config.events import parse_events
from kache.errors import KacheError

__all__ = [
    "Kind",
    "Setting",
    "SettingError",
    "exact_size",
    "format_address",
    "format_size",
    "nearest",
    "nearest_word",
    "parse_size",
]

_UNITS: Final = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1024,
    "kib": 1024,
    "m": 1000**2,
    "mb": 1024**2,
    "mib": 1024**2,
    "g": 1000**3,
    "gb": 1024**3,
    "gib": 1024**3,
    "t": 1000**4,
    "tb": 1024**4,
    "tib": 1024**4,
}
"""Redis's rule: `1k` is 1000 bytes, `1kb` is 1024."""


class SettingError(KacheError):
    """A value that a setting cannot take; the message is one sentence and says what it can be."""


def parse_size(text: str) -> int:
    """Bytes meant by `text`, such as ``1gb``, ``64 MiB`` or ``4096``; raises ValueError."""
    lowered = text.strip().lower()
    digits = lowered.rstrip("bkmgti ")
    unit = lowered[len(digits) :].strip()
    if unit not in _UNITS or not digits.isascii():
        raise ValueError(text)
    if "." in digits and _UNITS[unit] == 1:
        raise ValueError(text)  # half a byte: a unit was forgotten
    number = float(digits) if "." in digits else int(digits)
    if not 0 <= number * _UNITS[unit] < 2**63:
        raise ValueError(text)
    return int(number * _UNITS[unit])


def format_size(size: int) -> str:
    """`size` bytes for people, in the largest unit that keeps it exact or to one decimal: ``1gb``, ``1.5mb``."""
    for unit, scale in (("tb", 1024**4), ("gb", 1024**3), ("mb", 1024**2), ("kb", 1024)):
        if size >= scale:
            return f"{size // scale}{unit}" if size % scale == 0 else f"{size / scale:.1f}{unit}"
    return f"{size}b"


def exact_size(size: int) -> str:
    """`size` bytes in the largest unit that is exact, as a setting takes it: ``64mb``, ``1536kb``, ``1000``."""
    for unit, scale in (("tb", 1024**4), ("gb", 1024**3), ("mb", 1024**2), ("kb", 1024)):
        if size and size % scale == 0:
            return f"{size // scale}{unit}"
    return str(size)


def format_address(host: str, port: int) -> str:
    """``127.0.0.1:7379``, or ``[::1]:7379`` where the host has colons of its own."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def nearest(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?``, with its leading space, or nothing when no known word is near."""
    found = nearest_word(word, known)
    return f" Did you mean '{found}'?" if found else ""


def nearest_word(word: str, known: Iterable[str]) -> str:
    """The known word that was meant: one that begins so, or differs by one slip in four letters at most; or nothing."""
    word = word.replace("_", "-").lower()
    bare = word.replace("-", "")
    longer = sorted((each for each in known if len(word) >= 3 and each.replace("-", "").startswith(bare)), key=len)
    if longer:
        return longer[0]
    near = [(slips(word, each), each) for each in known if abs(len(each) - len(word)) <= max(1, len(word) // 4)]
    fewest, found = min(near, default=(len(word), ""), key=lambda pair: pair[0])
    return found if fewest <= max(1, len(word) // 4) and len(word) > 1 else ""


def slips(typed: str, meant: str) -> int:
    """How many letters were left out, added, mistaken or exchanged with their neighbour."""
    before: list[int] = []
    row = list(range(len(meant) + 1))
    for i, letter in enumerate(typed, 1):
        above, before, row = before, row, [i]
        for j, wanted in enumerate(meant, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == meant[j - 2] and typed[i - 2] == wanted:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]


@dataclass(frozen=True, slots=True)
class Kind:
    """How values of one sort are read from text and shown as text."""

    name: str
    wants: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str]
    number: bool = False
    """Whether it has bounds: no number of a setting may be more than those who use it can count to."""
    low: int | None = None
    high: int | None = None
    """Bounds for a setting that names none of its own. Their reason is beside the kind."""
    may_be_empty: bool = False
    """Of a list."""
    merge: Callable[[Any, Any], Any] | None = None
    """For kinds whose text may name a part only: the value made of the one before and what was named."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known about one setting beside its name, type and default, which the field of `Config` says.

    `live` settings can be changed while the cluster runs. `redis` is the name under which CONFIG GET and SET know it
    where that differs from the setting's own. A `fixed` one is shown but is not for the user to choose. A `secret`
    one is never shown in a log or in a status.
    """

    kind: Kind
    doc: str
    live: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    fixed: bool = False
    secret: bool = False
    redis: str = ""

    def __post_init__(self) -> None:
        if self.kind.number:
            for bound in ("low", "high"):
                if getattr(self, bound) is None:
                    object.__setattr__(self, bound, getattr(self.kind, bound))
                if getattr(self, bound) is None:
                    raise TypeError(f"a setting without a {bound}: {self.doc}")

    def read(self, raw: object) -> Any:
        """The value meant by `raw` (text, or a TOML value); raises SettingError saying what is wanted."""
        if self.kind.name == "list":
            parts = raw if isinstance(raw, list | tuple) else str(raw).replace(",", " ").split()
            try:
                if not (parts or self.kind.may_be_empty) or not all(
                    isinstance(part, str) and _parse_text(part) for part in parts
                ):
                    raise ValueError(raw)
            except ValueError:
                raise SettingError(f"must be {self.kind.wants}") from None
            return tuple(parts)
        if self.kind.name == "mode" and not isinstance(raw, str):
            # A number of TOML is decimal, or has lost that it was not.
            raise SettingError(f"must be {self.kind.wants}, as text")
        if isinstance(raw, bool):
            raw = "yes" if raw else "no"
        if not isinstance(raw, str | int | float):
            raise SettingError(f"must be {self.wanted()}")
        try:
            value = self.kind.parse(str(raw).strip() if self.kind.name != "text" else str(raw))
        except ValueError:
            raise SettingError(f"must be {self.wanted()}") from None
        if self.choices and value not in self.choices:
            raise SettingError(f"must be {self.wanted()}")
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:
            raise SettingError(f"must be {self.wanted()}")
        return value

    def taken(self, value: Any, raw: object) -> Any:
        """What becomes of `value` when `raw` is taken in; raises SettingError as `read`."""
        return self.read(raw) if self.kind.merge is None else self.kind.merge(value, self.read(raw))

    def is_already(self, value: Any, raw: str) -> bool:
        """Whether `raw` means the value that the setting has."""
        try:
            return bool(self.read(raw) == value)
        except SettingError:
            return False

    def wanted(self) -> str:
        """What a value of this setting must be, to follow the words "must be"."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if not self.kind.number:
            return self.kind.wants
        return f"{self.kind.wants}, from {self.kind.show(self.low)} to {self.kind.show(self.high)}"

    def show(self, value: Any) -> str:
        """The text of `value` as CONFIG GET answers it."""
        return self.kind.show(value)


def _parse_bool(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("yes", "true", "on", "1"):
        return True
    if lowered in ("no", "false", "off", "0"):
        return False
    raise ValueError(text)


def _parse_text(text: str) -> str:
    """What can be a path and a variable: the system ends both at a NUL, and whatever is no text cannot be sent on."""
    if "\0" in text or len(text.encode()) > LONGEST_TEXT:
        raise ValueError(text[:20])
    return text


def _parse_word(text: str) -> str:
    return text.lower()


def _parse_integer(text: str) -> int:
    if not text.isascii() or "_" in text:
        raise ValueError(text)
    return int(text)


def _parse_save(text: str) -> str:
    """Save points in one form, ``900 1 300 10``; they may be separated by commas, or each written in quotes."""
    words = text.replace('"', " ").replace(",", " ").split()
    numbers = [_parse_integer(word) for word in words]
    if len(numbers) % 2 or any(not 1 <= number <= C_INT for number in numbers):
        raise ValueError(text)
    return " ".join(map(str, numbers))


def _parse_size_or_share(text: str) -> int:
    """Bytes, or a percentage as a negative number."""
    value = -_parse_integer(text[:-1]) if text.endswith("%") else parse_size(text)
    if not -100 <= value <= PEBIBYTE or text.startswith("-"):
        raise ValueError(text)
    return value


def _show_size_or_share(value: int) -> str:
    return f"{-value}%" if value < 0 else str(value)


def _parse_mode(text: str) -> int:
    if not text.isdigit():
        raise ValueError(text)
    return int(text, 8)


def _show_mode(value: int) -> str:
    return f"{value:o}"


def _show_bool(value: bool) -> str:
    return "yes" if value else "no"


def _show_list(value: tuple[str, ...]) -> str:
    return " ".join(value)


LONGEST_TEXT: Final = 4095
"""Bytes of a text: the longest path."""

C_INT: Final = 2**31 - 1
PEBIBYTE: Final = 2**50
"""Of a size: more than a machine has, and a thousand of them can still be added in 64 bits."""
DAY: Final = 24 * 60 * 60

# A count, and a time that a real server also has: what fits a C int on every machine, as there. Times in seconds become
# milliseconds, which a router keeps in 64 bits.
COUNT: Final = Kind("count", "a whole number", _parse_integer, str, number=True, low=0, high=C_INT)
SECONDS: Final = Kind("s", "a whole number of seconds", _parse_integer, str, number=True, low=0, high=C_INT)
MINUTES: Final = Kind("minutes", "a whole number of minutes", _parse_integer, str, number=True, low=0, high=C_INT)
SIZE: Final = Kind("size", "a size such as 1gb or 4096", parse_size, str, number=True, low=0, high=PEBIBYTE)
SIZE_OR_SHARE: Final = Kind(
    "size or share",
    "a size such as 1gb or 4096, or a whole percentage of maxmemory such as 5%, up to 100%",
    _parse_size_or_share,
    _show_size_or_share,
)
# A day: longer than anybody waits, and as nanoseconds it fits 64 bits a hundred thousand times.
MILLISECONDS: Final = Kind(
    "ms", "a whole number of milliseconds", _parse_integer, str, number=True, low=0, high=DAY * 1000
)
MICROSECONDS: Final = Kind(
    "us", "a whole number of microseconds", _parse_integer, str, number=True, low=0, high=DAY * 1000000
)
MODE: Final = Kind("mode", "an octal mode such as 770", _parse_mode, _show_mode)
YES_NO: Final = Kind("bool", "yes or no", _parse_bool, _show_bool)
WORD: Final = Kind("choice", "a word", _parse_word, str)
TEXT: Final = Kind("text", f"text of at most {LONGEST_TEXT} bytes", _parse_text, str)
SAVE_POINTS: Final = Kind(
    "save points", "pairs of seconds and changes, such as 900 1 300 10, or empty", _parse_save, str
)
LIMITS: Final = Kind(
    "limits",
    "classes with their limits, such as normal 0 0 0 pubsub 32mb 8mb 60",
    parse_limits,
    show_limits,
    merge=merge_limits,
)
EVENTS: Final = Kind(
    "events",
    "letters of classes of events, of Ag$lshzxetdnKEm, or empty",
    parse_events,
    str,
)
FILES: Final = Kind("list", "paths of files", str, _show_list, may_be_empty=True)
ADDRESSES: Final = Kind("list", "one or more addresses", str, _show_list)
