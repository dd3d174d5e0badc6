"""How a model is trained: learning-rate schedules, the optimizer, and published settings by name.

`groups` and `optimizers` import torch and are imported by the trainer alone.
"""

from commbench.workloads.recipes.reading import load_recipe, recipe_names
from commbench.workloads.recipes.recipe import Plan, Recipe

__all__ = ["Plan", "Recipe", "load_recipe", "recipe_names"]
