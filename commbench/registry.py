"""Finds the exchanges by entry point and reads `NAME[@option=value...]` from the command line."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from commbench.errors import UserError
from commbench.schedule import ClosedForm, Schedule

GROUP = "commbench.topologies"


@dataclass(frozen=True)
class Choice:
    """An exchange with its options, as chosen by the user.

    Attributes:
        name: the entry point's name.
        options: the keyword arguments that were given, converted to the topology's types.
    """

    name: str
    options: Mapping[str, object]
    module: ModuleType

    @property
    def spec(self) -> str:
        """The text that chooses this exchange, ``parameter-server@server=dedicated``."""
        return "@".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])

    def schedule(self, rank: int, size: int) -> Schedule:
        """The schedule of one rank.

        Raises:
            UserError: the topology refuses this size or option.
        """
        try:
            schedule = self.module.schedule(rank, size, **self.options)
        except ValueError as error:
            raise UserError(f"--exchange {self.spec} on {size} ranks: {error}") from error
        assert isinstance(schedule, Schedule)
        return schedule

    def schedules(self, size: int) -> list[Schedule]:
        """The schedules of all ranks."""
        return [self.schedule(rank, size) for rank in range(size)]

    def workers(self, size: int) -> list[int]:
        """The ranks that bring a gradient; the others only serve."""
        return [rank for rank, plan in enumerate(self.schedules(size)) if plan.contributes]

    def closed_form(self, size: int) -> ClosedForm | None:
        """The topology's textbook cost, or None where it states none."""
        formula = getattr(self.module, "closed_form", None)
        cost = formula(size, **self.options) if formula else None
        assert cost is None or isinstance(cost, ClosedForm)
        return cost


def _entries() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise UserError(
                f"two installed packages both call an exchange {entry.name!r} "
                f"({other.value} and {entry.value}): uninstall one"
            )
    return found


def topology_names() -> list[str]:
    """The names of all installed exchanges; the floor and the library's own come first."""
    first = ["none", "native"]
    names = _entries()
    return [n for n in first if n in names] + sorted(n for n in names if n not in first)


def topology_options(name: str) -> dict[str, inspect.Parameter]:
    """The options an exchange takes: the keyword-only parameters of its schedule function."""
    signature = inspect.signature(_module(name).schedule, eval_str=True)
    return {
        key: parameter
        for key, parameter in signature.parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def parse_exchange(spec: str, options: Mapping[str, str] | None = None) -> Choice:
    """Read one exchange.

    Args:
        spec: ``tree``, or with options ``parameter-server@server=dedicated``.
        options: more options by name, as text; those in `spec` win.

    Raises:
        UserError: unknown exchange, unknown option or impossible value.
    """
    name, *pairs = spec.split("@")
    module = _module(name)
    given = dict(options or {})
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--exchange {spec}: {pair!r} is not of the form option=value")
        given[key] = value
    parameters = topology_options(name)
    unknown = sorted(given.keys() - parameters.keys())
    if unknown:
        allowed = f"takes {', '.join(parameters)}" if parameters else "takes no options"
        raise UserError(f"exchange {name} has no option {', '.join(unknown)}: it {allowed}")
    values = {key: _convert(name, parameters[key], value) for key, value in given.items()}
    return Choice(name, values, module)


def parse_exchanges(specs: str, options: Mapping[str, str] | None = None) -> list[Choice]:
    """Read ``a,b,c`` or ``all``; an option goes to each exchange that takes it.

    Raises:
        UserError: as `parse_exchange`, an exchange named twice, or an option that none takes.
    """
    names = topology_names() if specs == "all" else [spec.strip() for spec in specs.split(",")]
    taken = {spec: topology_options(spec.split("@")[0]).keys() for spec in names}
    for key in options or {}:
        if not any(key in keys for keys in taken.values()):
            raise UserError(f"none of the exchanges {', '.join(names)} has an option {key}")
    choices = [
        parse_exchange(spec, {k: v for k, v in (options or {}).items() if k in taken[spec]})
        for spec in names
    ]
    chosen = [choice.spec for choice in choices]
    twice = sorted({spec for spec in chosen if chosen.count(spec) > 1})
    if twice:
        raise UserError(f"--exchange {specs} names {', '.join(twice)} more than once")
    return choices


def admitted(choices: list[Choice], size: int) -> tuple[list[Choice], list[str]]:
    """Those exchanges that run on `size` ranks, and why each of the others does not."""
    fit, reasons = [], []
    for choice in choices:
        try:
            choice.schedule(0, size)
        except UserError as error:
            reasons.append(str(error))
        else:
            fit.append(choice)
    return fit, reasons


def _module(name: str) -> ModuleType:
    entries = _entries()
    if name not in entries:
        raise UserError(f"no exchange {name!r}: choose from {', '.join(topology_names())}")
    module = entries[name].load()
    assert isinstance(module, ModuleType), f"{name}: the entry point must name a module"
    return module


def _convert(name: str, parameter: inspect.Parameter, text: str) -> object:
    kind = parameter.annotation
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        if text not in choices:
            raise UserError(
                f"exchange {name}: {parameter.name}={text} is not one of {', '.join(choices)}"
            )
        return text
    try:
        return kind(text)
    except ValueError:
        raise UserError(
            f"exchange {name}: {parameter.name}={text} is not of type {kind.__name__}"
        ) from None
