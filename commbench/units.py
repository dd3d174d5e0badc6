"""Numbers as people write them: bytes, where K, M and G are powers of 1024, times, and ranges."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from commbench.errors import UserError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Bytes(int):
    """A number of bytes that is read from and written as ``4096``, ``64K``, ``1.5M`` or ``1G``.

    Raises:
        ValueError: text that is not of this form.
    """

    def __new__(cls, value: str | int) -> Bytes:
        """Read text; take a number as it is."""
        if isinstance(value, int):
            return super().__new__(cls, value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)(?:i?B)?", value, re.IGNORECASE)
        if not match:
            raise ValueError(f"{value!r} is not a size such as 4096, 4K, 1.5M or 1G")
        number = float(match[1]) * _UNITS[match[2].upper()]
        if number >= 1 << 63:
            raise ValueError(f"{value} is more than any machine can address")
        return super().__new__(cls, int(number))

    def __str__(self) -> str:
        """The shortest form that is read back as the same number."""
        for unit in ("G", "M", "K"):
            if self and self % _UNITS[unit] == 0:
                return f"{self // _UNITS[unit]}{unit}"
        return int.__repr__(self)

    def __format__(self, spec: str) -> str:
        """As text, unless a number's format is asked for."""
        return super().__format__(spec) if spec else str(self)


class Staleness(float):
    """A number of steps, 0 or more, or ``inf`` for no bound.

    Raises:
        ValueError: text that is not of this form.
    """

    def __new__(cls, value: str | float) -> Staleness:
        """Read text; take a number as it is."""
        if isinstance(value, str) and not re.fullmatch(r"\d+|inf", value):
            raise ValueError(f"{value!r} is not a number of steps such as 0 or 2, or inf")
        return super().__new__(cls, value)

    def __str__(self) -> str:
        """The form that is read back as the same bound."""
        return "inf" if math.isinf(self) else str(int(self))

    def __format__(self, spec: str) -> str:
        """As text, unless a number's format is asked for."""
        return super().__format__(spec) if spec else str(self)


@dataclass(frozen=True)
class Measure:
    """A quantity that is written with its unit, ``1.5 us``.

    Attributes:
        units: what each is in base units.
        allowed: the form, for a complaint.
    """

    units: Mapping[str, Fraction]
    allowed: str

    def read(self, text: str) -> float | None:
        """In base units; None for text that is not of this form, or not above 0."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?) ?(\D+)", text)
        if not match or match[2] not in self.units or not float(match[1]):
            return None
        return float(Fraction(match[1]) * self.units[match[2]])

    def text(self, value: float, unit: str) -> str:
        """A value in base units as `read` takes it, to four digits."""
        return f"{value / float(self.units[unit]):.4g} {unit}"


TIME = Measure(
    {unit: Fraction(1, 1000**power) for power, unit in enumerate(("s", "ms", "us", "ns"))},
    'a time such as "1.5 us"',
)
RATE = Measure(
    {
        f"{prefix}{unit}/s": 1000**power * size
        for unit, size in (("bit", Fraction(1, 8)), ("B", Fraction(1)))
        for power, prefix in enumerate(("", "k", "M", "G"))
    },
    'a rate in bits or bytes such as "50 Gbit/s" or "6 GB/s"',
)


def seconds_given(name: str, text: str) -> float:
    """The number of seconds in an environment variable.

    Raises:
        UserError: it is none.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(f"{name}={text}: give a number of seconds, 0 or more")
    return seconds


@dataclass(frozen=True)
class Window:
    """Some steps of a run: `first` to `last`, counted from 1, both included."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read ``11:20``.

        Raises:
            UserError: it is not of this form.
        """
        first, _, last = text.partition(":")
        right = re.fullmatch(r"[0-9]{1,18}:[0-9]{1,18}", text)
        if not (right and 1 <= int(first) <= int(last)):
            raise UserError(
                f"--trace-steps {text}: give the first and the last step, such as 11:20"
            )
        return cls(int(first), int(last))

    def within(self, steps: int) -> Window:
        """The part that a run of so many steps has; of a shorter run, as many of its last ones."""
        missing = max(0, self.last - steps)
        return Window(max(1, self.first - missing), min(self.last, steps))
