r"""How exchanges are written in a line: ``,`` parts several, ``:`` sizes, ``@`` options.

A backslash takes a character's special meaning: ``old\,ring\@4.xml`` is the file
``old,ring@4.xml``.
"""

import re

RULE = "in a path, write a backslash before each comma, @, : and backslash"


def split(text: str, separator: str) -> list[str]:
    """Cut where the separator stands without a backslash; backslashes stay."""
    parts = [""]
    for token in re.findall(r"\\.|.", text, re.DOTALL):
        if token == separator:
            parts.append("")
        else:
            parts[-1] += token
    return parts


def escape(name: str) -> str:
    """Write a path so that `unescape` gives it back and `split` leaves it whole."""
    return re.sub(r"([\\,@:])", r"\\\1", name)


def unescape(name: str) -> str:
    """What stands there, without the backslashes."""
    return re.sub(r"\\(.)", r"\1", name, flags=re.DOTALL)
