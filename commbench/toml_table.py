"""A TOML table read key by key: every complaint names the file, the key and what is allowed."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from commbench.errors import UserError
from commbench.units import Measure


def read_toml(path: Path, what: str) -> Table:
    """The top table of a TOML file; `what` it holds, for the complaint.

    Raises:
        UserError: if the file cannot be read or is not TOML.
    """
    try:
        with path.open("rb") as file:
            return Table(str(path), "", tomllib.load(file))
    except OSError as error:
        raise UserError(f"cannot read {what} {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a TOML file: {error}") from error


class Table:
    """Hands out checked values and remembers which keys were asked for, so strangers show up."""

    def __init__(self, file: str, prefix: str, values: dict[str, Any]) -> None:
        """Wraps `values`, found in `file` under keys that start with `prefix`."""
        self._file = file
        self._prefix = prefix
        self._values = values
        self._asked: list[str] = []

    def change(self, key: str, text: str) -> None:
        """Set a key, ``schedule.kind`` for one of a table inside, before anything is read.

        Args:
            key: of any level; what is no key is complained of when all are read.
            text: the value as in TOML, quotes of a string left out; "" to drop the key.

        Raises:
            UserError: where the key belongs to something that is not a table, or there is nothing
                to drop.
        """
        *outer, last = key.split(".")
        values = self._values
        for name in outer:
            values = values.setdefault(name, {})
            if not isinstance(values, dict):
                raise UserError(f"{self._file}: cannot change {key}: {name} is not a table")
        if text:
            values[last] = _parsed(text)
        elif values.pop(last, None) is None:
            raise UserError(f"{self._file}: cannot drop {key}: there is no such key")

    def text(self, key: str, *, default: str | None = None) -> str:
        """A string."""
        value = self._take(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def choice(self, key: str, choices: Sequence[str], *, default: str | None = None) -> str:
        """One of `choices`."""
        value = self._take(key, default)
        if value not in choices:
            raise self._wrong(key, value, "one of " + ", ".join(choices))
        return str(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def whole(self, key: str, *, at_least: int, default: int | None = None) -> int:
        """An integer."""
        value = self._take(key, default)
        if not _is_whole(value) or value < at_least:
            raise self._wrong(key, value, f"a whole number, {at_least} or more")
        return int(value)

    def number(
        self,
        key: str,
        *,
        above: float = -math.inf,
        at_least: float = -math.inf,
        below: float = math.inf,
        default: float | None = None,
    ) -> float:
        """A finite number within bounds."""
        value = self._take(key, default)
        if not (_is_number(value) and above < value < below and value >= at_least):
            bounds = {"above": above, "at least": at_least, "below": below}
            allowed = [f"{word} {bound:g}" for word, bound in bounds.items() if abs(bound) < 1e308]
            raise self._wrong(key, value, " ".join(["a number", " and ".join(allowed)]).strip())
        return float(value)

    def measure(self, key: str, measure: Measure) -> float:
        """A number with its unit, such as "50 Gbit/s"; in the measure's base unit."""
        value = self._take(key, None)
        number = measure.read(value) if isinstance(value, str) else None
        if number is None:
            raise self._wrong(key, value, measure.allowed)
        return number

    def length(self, key: str, *, default: Fraction | None = None) -> Fraction:
        """A positive number of epochs or iterations, exactly as written."""
        value = self._take(key, default)
        if not isinstance(value, Fraction) and not (_is_number(value) and 0 < value < math.inf):
            raise self._wrong(key, value, "a number above 0")
        return Fraction(str(value))

    def increasing(self, key: str, *, below: Fraction) -> tuple[Fraction, ...]:
        """A list of positive numbers, each larger than the last, below the run's length."""
        value = self._take(key, None)
        right = isinstance(value, list) and value and all(_is_number(item) for item in value)
        if not right or any(not a < b < below for a, b in zip([0, *value], value, strict=False)):
            allowed = f"a list of increasing numbers above 0 and below {float(below):g}"
            raise self._wrong(key, value, allowed)
        return tuple(Fraction(str(item)) for item in value)

    def positive(self, key: str, *, count: int) -> tuple[float, ...]:
        """A list of `count` positive numbers."""
        value = self._take(key, None)
        right = isinstance(value, list) and len(value) == count
        if not right or any(not _is_number(item) or not 0 < item < math.inf for item in value):
            raise self._wrong(key, value, f"a list of {count} numbers above 0")
        return tuple(map(float, value))

    def words(self, key: str, choices: Sequence[str] | None = None) -> tuple[str, ...]:
        """A list of strings, of `choices` if there are any; empty where the key is missing."""
        value = self._take(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, value, "a list of strings")
        if choices and not set(value) <= set(choices):
            raise self._wrong(key, value, "a list of " + ", ".join(choices))
        return tuple(value)

    def wholes(self, key: str, *, at_least: int) -> tuple[int, ...]:
        """A list of one or more integers."""
        value = self._take(key, None)
        right = isinstance(value, list) and value
        if not right or any(not _is_whole(item) or item < at_least for item in value):
            raise self._wrong(key, value, f"a list of whole numbers, each {at_least} or more")
        return tuple(value)

    def names(self) -> list[str]:
        """All keys there are, for a table in which the writer chooses them."""
        return list(self._values)

    def has(self, key: str) -> bool:
        """Whether an optional key is there."""
        self._asked.append(key)
        return key in self._values

    def table(self, key: str) -> Table:
        """A table inside this one."""
        value = self._take(key, None)
        if not isinstance(value, dict):
            raise self._wrong(key, value, "a table")
        return Table(self._file, f"{self._prefix}{key}.", value)

    def is_text(self, key: str) -> bool:
        """Whether a key is there and holds a string."""
        return isinstance(self._values.get(key), str)

    def refusal(self, key: str, allowed: str) -> UserError:
        """The error for a key that does not go with the others."""
        return self._wrong(key, self._values.get(key), allowed)

    def finish(self) -> None:
        """Complains of keys that nobody asked for.

        Raises:
            UserError: naming the first such key and the keys allowed beside it.
        """
        for key in self._values:
            if key not in self._asked:
                allowed = ", ".join(self._prefix + name for name in sorted(set(self._asked)))
                raise UserError(f"{self._file}: unknown key {self._prefix}{key}: use {allowed}")

    def _take(self, key: str, default: object) -> Any:
        self._asked.append(key)
        if key in self._values:
            return self._values[key]
        if default is None:
            raise UserError(f"{self._file}: key {self._prefix}{key} is missing")
        return default

    def _wrong(self, key: str, value: object, allowed: str) -> UserError:
        return UserError(f"{self._file}: {self._prefix}{key} = {value!r}: must be {allowed}")


def _parsed(text: str) -> Any:
    """A value of TOML, or the text itself where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or isinstance(value, float)
