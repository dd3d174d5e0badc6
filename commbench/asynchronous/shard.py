"""A server's part of the model: its weights, the gradient to apply, and the optimizer's state."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from commbench.arrays import Array, Arrays, to_torch
from commbench.workloads.recipes import Plan, Recipe
from commbench.workloads.recipes.groups import parameter_groups
from commbench.workloads.recipes.optimizers import make_optimizer, take_step


class Shard:
    """Elements ``[start, stop)`` of the model's flat weights.

    Attributes:
        weights, gradient: ``(stop - start,)`` float32, on the model's device.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        parameters: Sequence[torch.nn.Parameter],
        bounds: tuple[int, int],
        *,
        arrays: Arrays,
        recipe: Recipe,
        plan: Plan,
        share: float,
        synchronize: Callable[[], None],
    ) -> None:
        """Copy the weights out of the model.

        Args:
            model: with the weights to start from.
            parameters: of the model, in their order in the flat buffer.
            bounds: start and stop.
            arrays: the array library of the model's device.
            recipe: the optimizer's settings.
            plan: the learning rate of every step.
            share: of a global batch in one update; weight decay is scaled by it.
            synchronize: waits for torch on that device.
        """
        start, stop = bounds
        self.weights: Array = arrays.wire_empty(stop - start)
        self.gradient: Array = arrays.wire_empty(stop - start)
        self._arrays = arrays
        self._plan = plan
        self._synchronize = synchronize
        weights, gradient = to_torch(self.weights), to_torch(self.gradient)
        pieces: dict[int, torch.nn.Parameter] = {}
        place = 0
        for parameter in parameters:
            first, last = max(place, start), min(place + parameter.numel(), stop)
            if first < last:
                source = parameter.detach().reshape(-1)[first - place : last - place]
                piece = torch.nn.Parameter(weights[first - start : last - start])
                piece.data.copy_(source)
                piece.grad = gradient[first - start : last - start]
                pieces[id(parameter)] = piece
            place += parameter.numel()
        groups = [
            {**group, "params": [pieces[id(p)] for p in group["params"] if id(p) in pieces]}
            for group in parameter_groups(model, recipe, share)
        ]
        # The steps are element by element, so the bits do not depend on where shards are cut.
        filled = [group for group in groups if group["params"]]
        self._optimizer = make_optimizer(
            filled or [{"params": [torch.nn.Parameter(weights)]}], plan
        )
        synchronize()

    def take(self, bounds: tuple[int, int], data: Array, *, first: bool) -> None:
        """Add received elements to those of the gradient, or put the first in their place."""
        into = self.gradient[slice(*bounds)]
        if first:
            self._arrays.assign(into, data)
        else:
            self._arrays.add(into, data)

    def update(self, step: int) -> None:
        """Apply the gradient, at the learning rate of a step."""
        self._arrays.synchronize()
        take_step(self._optimizer, self._plan, step)
        self._synchronize()
