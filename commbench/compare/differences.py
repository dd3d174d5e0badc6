"""In what two runs differ, and whether their times can be compared all the same.

| what differs | then |
|-|-|
| the exchange, where results go, how progress is shown | that is what a comparison is for |
| any other option; ranks, model, data, batch | refused: not the exchange alone |
| processor, cores, devices, MPI library, ranks a host | refused: times of other machines |
| host, versions, revision, variables, the transport found | told: it may matter |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from commbench.errors import UserError

COMPARED = frozenset({"exchange", "exchanges"})
# Sizes and iterations of sweeps: what both have is compared, and intervals tell of how many.
NEUTRAL = {
    "train": frozenset(
        {"output", "results", "progress", "trace", "trace_steps", "mllog", "tensorboard"}
        | {"timeout_s"}
    ),
    "sweep": frozenset({"output", "results", "sizes_bytes", "iterations", "timeout_s"}),
}
_TASK = ("ranks", "model", "adapted", "parameters", "data", "global_batch", "precision", "dtype")
_MACHINE = ("cpu_model", "cpu_count", "mpi_library")
_TOLD = ("host", "commbench_version", "git_revision", "transport")
# These name the job, not what it runs on.
_JOB_NAMES = ("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_START_TIME", "SLURM_JOB_END_TIME")


@dataclass(frozen=True)
class Difference:
    """Something in which two runs differ.

    Attributes:
        kind: "option", "task", "machine" or "environment".
        name: of the option, attribute, package or variable.
        first, second: its values; "" of what is not set.
        refused: whether times cannot be compared because of it.
    """

    kind: str
    name: str
    first: str
    second: str
    refused: bool

    def text(self) -> str:
        """``lr: 0.01 and 0.02``."""
        return f"{self.name}: {self.first or 'not set'} and {self.second or 'not set'}"


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """All differences of two runs of one kind, by `attributes` of the run files.

    What one version of commbench does not know is as good as not set.
    """
    neutral = COMPARED | NEUTRAL.get(str(first.get("kind")), frozenset({"output", "results"}))
    found = _unlike("option", first["options"], second["options"], neutral, refused=True)
    told = {difference.name for difference in found}
    tasks = _unlike("task", _chosen(first, _TASK), _chosen(second, _TASK), told, refused=True)
    machines = _unlike("machine", _machine(first), _machine(second), set(), refused=True)
    environment = _unlike(
        "environment", _environment(first), _environment(second), set(), refused=False
    )
    return [*found, *tasks, *machines, *environment]


def refuse(found: list[Difference], first: str, second: str, told: str = "--force") -> None:
    """Refuse to compare two files that differ in more than the exchange.

    Raises:
        UserError: they do; it lists in what, and says how to compare them all the same.
    """
    reasons = [difference.text() for difference in found if difference.refused]
    if reasons:
        raise UserError(
            f"{second} differs from {first} in more than the exchange ({'; '.join(reasons)}): make "
            f"runs that do not, or compare them all the same with {told}"
        )


def _chosen(root: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: root[name] for name in names if name in root}


def _machine(root: Mapping[str, Any]) -> dict[str, Any]:
    ranks = sorted(Counter(root.get("hosts", ())).values(), reverse=True)
    devices = sorted({str(device).split(":")[0] for device in root.get("devices", ())})
    return {
        **_chosen(root, _MACHINE),
        "ranks of each host": "+".join(map(str, ranks)),
        "devices": ", ".join(devices),
    }


def _environment(root: Mapping[str, Any]) -> dict[str, Any]:
    variables = {k: v for k, v in root.get("environment", {}).items() if k not in _JOB_NAMES}
    return {**_chosen(root, _TOLD), **root.get("versions", {}), **variables}


def _unlike(
    kind: str,
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    leave_out: frozenset[str] | set[str],
    *,
    refused: bool,
) -> list[Difference]:
    names = [name for name in {**first, **second} if name not in leave_out]
    pairs = ((name, _text(first.get(name)), _text(second.get(name))) for name in names)
    return [Difference(kind, name, a, b, refused) for name, a, b in pairs if a != b]


def _text(value: Any) -> str:
    if value is None or value is False:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
