r"""`NAME@option=value`: how exchanges and models are named together with their options.

``,`` parts several, ``:`` sizes, ``@`` options. A backslash takes a character's special meaning:
``old\,ring\@4.xml`` is the file ``old,ring@4.xml``.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from commbench.errors import UserError

RULE = "in a path, write a backslash before each comma, @, : and backslash"


def cut(text: str, separator: str) -> list[str]:
    """Cut where the separator stands without a backslash; backslashes stay."""
    parts = [""]
    for token in re.findall(r"\\.|.", text, re.DOTALL):
        if token == separator:
            parts.append("")
        else:
            parts[-1] += token
    return parts


def escape(name: str) -> str:
    """Write a path so that `unescape` gives it back and `cut` leaves it whole."""
    return re.sub(r"([\\,@:])", r"\\\1", name)


def unescape(name: str) -> str:
    """What stands there, without the backslashes."""
    return re.sub(r"\\(.)", r"\1", name, flags=re.DOTALL)


def split(flag: str, spec: str) -> tuple[str, dict[str, str]]:
    """The name in `spec` and its options as text; `flag` is where it was given.

    Raises:
        UserError: a part without an equals sign.
    """
    name, *pairs = cut(spec, "@")
    given = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"{flag} {spec}: {pair!r} is not of the form option=value")
        given[key] = value
    return unescape(name), given


def join(name: str, options: Mapping[str, object]) -> str:
    """The inverse of `split`."""
    return "@".join([escape(name), *(f"{key}={value}" for key, value in options.items())])


def keyword_options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a function, with their types as objects."""
    return {
        key: parameter
        for key, parameter in inspect.signature(function, eval_str=True).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def convert(
    what: str, parameters: Mapping[str, inspect.Parameter], given: Mapping[str, str]
) -> dict[str, object]:
    """Turns options from text into the types of the parameters that they are meant for.

    Args:
        what: whose options they are, such as "exchange ring", for the errors.
        parameters: those there are; of a type that is made from a text, or a Literal.
        given: some of them, as text.

    Raises:
        UserError: unknown option or impossible value.
    """
    unknown = sorted(given.keys() - parameters.keys())
    if unknown:
        allowed = f"takes {', '.join(parameters)}" if parameters else "takes no options"
        raise UserError(f"{what} has no option {', '.join(unknown)}: it {allowed}")
    return {key: _convert(what, parameters[key], text) for key, text in given.items()}


def _convert(what: str, parameter: inspect.Parameter, text: str) -> object:
    kind = parameter.annotation
    if typing.get_origin(kind) is typing.Literal:
        choices = {str(choice): choice for choice in typing.get_args(kind)}
        if text not in choices:
            raise UserError(f"{what}: {parameter.name}={text} is not one of {', '.join(choices)}")
        return choices[text]
    try:
        return kind(text)
    except ValueError as error:
        # What int and float have to say is not for users.
        told = f" is not of type {kind.__name__}" if kind in (int, float) else f": {error}"
        raise UserError(f"{what}: {parameter.name}={text}{told}") from None
