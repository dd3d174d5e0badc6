"""How a model is trained: learning-rate schedules, the optimizer, and published settings by name.

`sgd` imports torch and is imported by the trainer alone.
"""

from commbench.workloads.recipes.recipe import Plan, Recipe, load_recipe, recipe_names

__all__ = ["Plan", "Recipe", "load_recipe", "recipe_names"]
