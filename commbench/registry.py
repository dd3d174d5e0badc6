"""Finds the exchanges by entry point and reads them from the command line.

`NAME[@option=value...]` is one exchange for buffers of every size, `tree:64K:ring` one by size. In
place of a name, the path of an MSCCL file ``algo.xml`` makes an exchange of what it holds; `specs`
tells how a path is written that has one of these characters.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

from commbench import spec as spec_text
from commbench.errors import UserError
from commbench.groups import Groups
from commbench.load import by_library, workers_of
from commbench.msccl import read
from commbench.schedule import ClosedForm, Grid, Schedule, Terms
from commbench.units import Bytes

GROUP = "commbench.topologies"


@dataclass(frozen=True)
class Choice:
    """An exchange with its options, as chosen by the user; or one that depends on the buffer.

    What is run is always one of its `parts`: resolve it by `for_bytes` first.

    Attributes:
        name: the entry point's name, or the path of an MSCCL file.
        options: the keyword arguments that were given, converted to the topology's types.
        smaller: what sums buffers up to so many bytes in its stead, by increasing size.
    """

    name: str
    options: Mapping[str, object]
    module: ModuleType | SimpleNamespace
    smaller: tuple[tuple[Bytes, Choice], ...] = ()

    @property
    def spec(self) -> str:
        """The text that chooses this exchange: ``parameter-server@server=dedicated``."""
        own = spec_text.join(self.name, self.options)
        return ":".join([*(f"{choice.spec}:{limit}" for limit, choice in self.smaller), own])

    @property
    def plain(self) -> bool:
        """Whether it has a schedule, and buffers of all sizes are summed alike."""
        return not (self.smaller or self.asynchronous or hasattr(self.module, "choose"))

    @property
    def asynchronous(self) -> bool:
        """Whether it follows no schedule: what is sent when depends on who comes first."""
        return hasattr(self.module, "synchronous")

    def scheduled(self, size: int) -> Choice:
        """The exchange that moves in every step what this one does, on a schedule; else itself.

        Raises:
            UserError: the asynchronous exchange refuses this size or option.
        """
        if not self.asynchronous:
            return self
        with self._refusals(size):
            return parse_exchange(self.module.synchronous(size, **self.options))

    def value(self, option: str) -> object:
        """An option's value, given or default."""
        return self.options.get(option, topology_options(self.name)[option].default)

    def for_bytes(self, nbytes: int, size: int) -> Choice:
        """The plain exchange for buffers of `nbytes` on `size` ranks; a plain one is its own."""
        if self.plain:
            return self
        fitting = (choice for limit, choice in self.smaller if nbytes <= limit)
        return next(fitting, self._largest(size)).for_bytes(nbytes, size)

    def parts(self, size: int) -> list[Choice]:
        """All plain exchanges that `for_bytes` can give on `size` ranks."""
        if self.plain:
            return [self]
        choices = [*(choice for _, choice in self.smaller), self._largest(size)]
        return list({part.spec: part for one in choices for part in one.parts(size)}.values())

    def placed(self, nodes: Sequence[int]) -> Choice:
        """The same with ``node`` replaced by the ranks of each; `nodes` as of `Job.nodes`."""
        options = {
            key: value.placed(nodes) if isinstance(value, Groups) else value
            for key, value in self.options.items()
        }
        smaller = tuple((limit, choice.placed(nodes)) for limit, choice in self.smaller)
        return replace(self, options=options, smaller=smaller)

    def _largest(self, size: int) -> Choice:
        """What sums buffers above all of `smaller`."""
        if self.asynchronous:
            raise UserError(
                f"--exchange {self.spec}: an asynchronous exchange follows no schedule that could "
                "be proved, counted or timed alone: only `commbench train` runs it"
            )
        if not hasattr(self.module, "choose"):
            return replace(self, smaller=())
        with self._refusals(size):
            return parse_exchange(self.module.choose(size, **self.options))

    def schedule(self, rank: int, size: int) -> Schedule:
        """The schedule of one rank; only of a plain exchange.

        Raises:
            UserError: the topology refuses this size or option.
        """
        assert self.plain, f"{self.spec} has a schedule only for a size: use for_bytes"
        with self._refusals(size):
            schedule = self.module.schedule(rank, size, **self.options)
        assert isinstance(schedule, Schedule)
        return schedule

    def schedules(self, size: int) -> list[Schedule]:
        """The schedules of all ranks."""
        return [self.schedule(rank, size) for rank in range(size)]

    def workers(self, size: int) -> list[int]:
        """The ranks that bring a gradient; the others only serve.

        Raises:
            UserError: the parts of a choice by size do not have the same workers.
        """
        return self.same_workers({part.spec: part.schedules(size) for part in self.parts(size)})

    def same_workers(self, parts: Mapping[str, Sequence[Schedule]]) -> list[int]:
        """As `workers`, of schedules that are made already: all ranks', by the part's spec."""
        workers = {spec: workers_of(schedules) for spec, schedules in parts.items()}
        first, *others = workers
        for other in others:
            if workers[other] != workers[first]:
                raise UserError(
                    f"--exchange {self.spec}: {first} and {other} do not have the same "
                    "workers, and a rank either has data or not: use a server in both or neither"
                )
        return workers[first]

    def closed_form(self, size: int) -> ClosedForm | None:
        """The topology's textbook cost, or None where it states none."""
        formula = getattr(self.module, "closed_form", None)
        cost = formula(size, **self.options) if formula else None
        assert cost is None or isinstance(cost, ClosedForm)
        return cost

    def terms(self, size: int) -> Terms | None:
        """What the topology's formula says it takes on links all alike; None without one."""
        formula = getattr(self.module, "terms", None)
        with self._refusals(size):
            terms = formula(size, **self.options) if formula else None
        assert terms is None or isinstance(terms, Terms)
        return terms

    def symmetry(self, size: int) -> Grid:
        """Which ranks are alike; where the topology does not tell, none is like another."""
        formula = getattr(self.module, "symmetry", None)
        with self._refusals(size):
            grid = formula(size, **self.options) if formula else None
        assert grid is None or isinstance(grid, Grid)
        return grid or Grid((size,), (size,))

    @contextmanager
    def _refusals(self, size: int) -> Iterator[None]:
        """What a topology does not admit is the user's error."""
        try:
            yield
        except ValueError as error:
            raise UserError(f"--exchange {self.spec} on {size} ranks: {error}") from error


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
    """The options an exchange takes: the keyword-only parameters of its one function.

    That is `schedule`; or `choose`, or `synchronous`, of an exchange without a schedule of its own.
    """
    module = _module(name)
    names = (one for one in ("choose", "synchronous", "schedule") if hasattr(module, one))
    return spec_text.keyword_options(getattr(module, next(names)))


def parse_exchange(spec: str, options: Mapping[str, str] | None = None) -> Choice:
    """Read one exchange.

    Args:
        spec: ``tree``, or with options ``parameter-server@server=dedicated``, or by size
            ``tree:64K:ring``: a tree for buffers up to and including 64 KiB, a ring for longer.
        options: more options by name, as text; those in `spec` win. By size, each goes to the
            exchanges that take it.

    Raises:
        UserError: unknown exchange, unknown option or impossible value.
    """
    if len(spec_text.cut(spec, ":")) > 1:
        return _parse_by_size(spec, options or {})
    name, own = spec_text.split("--exchange", spec)
    module = _module(name)
    given = {**(options or {}), **own}
    values = spec_text.convert(f"exchange {name}", topology_options(name), given)
    return Choice(name, values, module)


def parse_exchanges(specs: str, options: Mapping[str, str] | None = None) -> list[Choice]:
    """Read ``a,b,c`` or ``all``; an option goes to each exchange that takes it.

    Raises:
        UserError: as `parse_exchange`, an exchange named twice, or an option that none takes.
    """
    names = (
        topology_names() if specs == "all" else [spec.strip() for spec in spec_text.cut(specs, ",")]
    )
    choices = _parse_each(names, options or {})
    _refuse_twins(choices, specs)
    return choices


def place_all(choices: Sequence[Choice], nodes: Sequence[int]) -> list[Choice]:
    """Put the ranks of each node in the place of ``node``; `nodes` as of `Job.nodes`.

    Raises:
        UserError: two of them come to the same.
    """
    placed = [choice.placed(nodes) for choice in choices]
    _refuse_twins(placed, ",".join(choice.spec for choice in choices))
    return placed


def admitted(choices: list[Choice], size: int) -> tuple[list[Choice], list[str]]:
    """Those exchanges that run on `size` ranks, and why each of the others does not."""
    fit, reasons = [], []
    for choice in choices:
        try:
            for part in choice.parts(size):
                part.schedule(0, size)
        except UserError as error:
            reasons.append(str(error))
        else:
            fit.append(choice)
    return fit, reasons


def without_library(choices: list[Choice], size: int) -> tuple[list[Choice], list[str]]:
    """Those exchanges in which the MPI library's own all-reduce has no part, and why not others."""
    fit, reasons = [], []
    for choice in choices:
        if any(by_library(part.schedules(size)) for part in choice.parts(size)):
            reasons.append(f"--exchange {choice.spec} sums by the MPI library, past emulated links")
        else:
            fit.append(choice)
    return fit, reasons


def _refuse_twins(choices: Sequence[Choice], specs: str) -> None:
    chosen = [choice.spec for choice in choices]
    twice = sorted({spec for spec in chosen if chosen.count(spec) > 1})
    if twice:
        raise UserError(f"--exchange {specs} names {', '.join(twice)} more than once")


def _parse_by_size(spec: str, options: Mapping[str, str]) -> Choice:
    names, sizes = spec_text.cut(spec, ":")[::2], spec_text.cut(spec, ":")[1::2]
    if len(names) == len(sizes) or "" in names:
        raise UserError(
            f"--exchange {spec}: write NAME:SIZE:NAME, such as tree:64K:halving-doubling:1M:ring; "
            "the last one sums all longer buffers"
            + (f" ({spec_text.RULE})" if ".xml" in spec else "")
        )
    try:
        limits = [Bytes(text) for text in sizes]
    except ValueError as error:
        raise UserError(f"--exchange {spec}: {error}") from None
    for low, high in pairwise(limits):
        if high <= low:
            raise UserError(f"--exchange {spec}: the sizes must increase, not {low} then {high}")
    parts = _parse_each(names, options)
    for part in parts:
        if part.asynchronous:
            raise UserError(
                f"--exchange {spec}: {part.spec} is asynchronous, and no part of a choice by size"
            )
    *smaller, largest = parts
    return replace(largest, smaller=tuple(zip(limits, smaller, strict=True)))


def _parse_each(specs: list[str], options: Mapping[str, str]) -> list[Choice]:
    """Read several, each with those of the options that it takes."""
    taken = [
        {
            key
            for part in spec_text.cut(spec, ":")[::2]
            for key in topology_options(spec_text.unescape(spec_text.cut(part, "@")[0]))
        }
        for spec in specs
    ]
    for key in options:
        if not any(key in keys for keys in taken):
            raise UserError(f"none of the exchanges {', '.join(specs)} has an option {key}")
    return [
        parse_exchange(spec, {k: v for k, v in options.items() if k in keys})
        for spec, keys in zip(specs, taken, strict=True)
    ]


def _module(name: str) -> ModuleType | SimpleNamespace:
    if name.endswith(".xml"):
        return _from_file(name)
    entries = _entries()
    if name not in entries:
        raise UserError(
            f"no exchange {name!r}: choose from {', '.join(topology_names())}, or give the path of "
            f"an MSCCL file, algo.xml ({spec_text.RULE})"
        )
    module = entries[name].load()
    assert isinstance(module, ModuleType), f"{name}: the entry point must name a module"
    return module


def _from_file(path: str) -> SimpleNamespace:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot read the exchange {path}: {error.strerror} ({spec_text.RULE})"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read the exchange {path}: not UTF-8 text") from error
    schedules = _schedules(text, path)

    def schedule(rank: int, size: int) -> Schedule:
        if size != len(schedules):
            raise ValueError(f"the file is for ngpus={len(schedules)}")
        return schedules[rank]

    return SimpleNamespace(schedule=schedule)


@functools.lru_cache(maxsize=8)
def _schedules(text: str, path: str) -> list[Schedule]:
    """What a file holds; one name on the command line is looked up several times."""
    return read(text, path)
