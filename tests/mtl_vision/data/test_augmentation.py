"""Settings are checked, and the literature's are what the papers say."""

import pytest

from mtl_core.errors import ArgumentError
from mtl_vision.data.augmentation import RECIPE_SIZES, RECIPES, Augmentation


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scale", (0.0, 1.0)),
        ("scale", (2.0, 1.0)),
        ("scale_choices", (0.0,)),
        ("rotate", -1.0),
        ("rotate", 181.0),
        ("flip", 1.5),
        ("color", -0.1),
        ("dominance", 0.0),
        ("border", "black"),
    ],
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(ArgumentError, match=field):
        Augmentation(**{field: value})


def test_recipes():
    assert RECIPES.keys() == RECIPE_SIZES.keys()
    assert all(recipe.flip == 0.5 for recipe in RECIPES.values())
    assert RECIPES["survey", "nyud"].scale_choices == (1.0, 1.2, 1.5)
    assert RECIPES["survey", "pascal"].rotate == 20
    for dataset in ("pascal", "nyud"):
        assert RECIPES["atrc", dataset].scale == (0.5, 2.0)
        assert RECIPES["atrc", dataset].dominance == 0.75
        assert RECIPES["survey", dataset].border == "zero"
