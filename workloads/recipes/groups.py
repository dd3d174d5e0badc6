"""The parameters of a model by what a recipe does to them: weights, biases, normalisation."""

from __future__ import annotations

from typing import Any

from torch import nn

from commbench.workloads.recipes.recipe import Recipe

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def parameter_groups(
    model: nn.Module, recipe: Recipe, decay_share: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer, each with all that the recipe says of it.

    A bias is a parameter whose last name is `bias`; the scale and shift of batch normalisation are
    told apart where the recipe has multipliers for them, and are a weight and a bias by Caffe's
    rule. Within a group the model's order is kept.

    Args:
        model: all its parameters get into a group.
        recipe: the multipliers.
        decay_share: scales the weight decay.

    Returns:
        Of each group that is not empty: `params`, `kind` ("weight", "bias", "norm"), `lr_mult`, and
        `weight_decay` with its multiplier.
    """
    kinds: dict[tuple[str, float, float], list[nn.Parameter]] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(module_name, recurse=False):
            bias = name.rpartition(".")[2] == "bias"
            norm = isinstance(module, _NORMS)
            lr_mult = recipe.bias_lr_multiplier if bias else 1.0
            decay_mult = recipe.bias_decay_multiplier if bias else 1.0
            if norm and recipe.norm_lr_multiplier is not None:
                lr_mult = recipe.norm_lr_multiplier
            if norm and recipe.norm_decay_multiplier is not None:
                decay_mult = recipe.norm_decay_multiplier
            kind = "norm" if norm else "bias" if bias else "weight"
            kinds.setdefault((kind, lr_mult, decay_mult), []).append(parameter)
    return [
        {
            "params": parameters,
            "kind": kind,
            "lr_mult": lr_mult,
            "weight_decay": recipe.weight_decay * decay_mult * decay_share,
        }
        for (kind, lr_mult, decay_mult), parameters in kinds.items()
    ]
