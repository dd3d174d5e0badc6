"""`NAME@option=value`: how exchanges and models are named together with their options."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from commbench.errors import UserError


def split(flag: str, spec: str) -> tuple[str, dict[str, str]]:
    """The name in `spec` and its options as text; `flag` is where it was given.

    Raises:
        UserError: a part without an equals sign.
    """
    name, *pairs = spec.split("@")
    given = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"{flag} {spec}: {pair!r} is not of the form option=value")
        given[key] = value
    return name, given


def join(name: str, options: Mapping[str, object]) -> str:
    """The inverse of `split`."""
    return "@".join([name, *(f"{key}={value}" for key, value in options.items())])


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
    except ValueError:
        raise UserError(f"{what}: {parameter.name}={text} is not of type {kind.__name__}") from None
