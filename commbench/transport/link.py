"""Speeds of links as people write them: ``100mbit``, ``10gbit``, ``100mbit,50us``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from commbench.errors import UserError

_BITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


class Rate(int):
    """Bits a second, read from and written as ``100mbit``; as `tc` has it, powers of 1000.

    Raises:
        ValueError: text that is not of this form, or no speed at all.
    """

    def __new__(cls, value: str | int) -> Rate:
        """Read text; take a number as bits a second."""
        if isinstance(value, int):
            return super().__new__(cls, value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(bit|kbit|mbit|gbit)", value.strip().lower())
        number = float(match[1]) * _BITS[match[2]] if match else 0.0
        bits = round(number) if math.isfinite(number) else 0
        if bits < 8:
            raise ValueError(f"{value!r} is not a speed such as 100mbit or 10gbit (bits a second)")
        return super().__new__(cls, bits)

    def __str__(self) -> str:
        """The shortest form that is read back as the same speed."""
        for unit in ("gbit", "mbit", "kbit"):
            if self % _BITS[unit] == 0:
                return f"{self // _BITS[unit]}{unit}"
        return f"{int(self)}bit"

    @property
    def bytes_per_s(self) -> float:
        """The same in bytes a second."""
        return int(self) / 8


@dataclass(frozen=True)
class Link:
    """A rank's own link, the same both ways: how much it carries, and how late it arrives."""

    rate: Rate
    latency_s: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Link:
        """Read ``100mbit`` or ``100mbit,50us``.

        Raises:
            UserError: it is not of this form.
        """
        speed, comma, delay = text.partition(",")
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ns|us|ms|s)", delay.strip().lower())
        try:
            rate = Rate(speed)
        except ValueError as error:
            raise UserError(f"--link {text}: {error}") from None
        if comma and not match:
            raise UserError(
                f"--link {text}: {delay.strip()!r} is not a time such as 50us; "
                "give RATE or RATE,LATENCY, such as 100mbit,50us"
            )
        return cls(rate, float(match[1]) * _SECONDS[match[2]] if match else 0.0)
