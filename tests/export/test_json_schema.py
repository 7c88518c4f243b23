"""The small validator: what it accepts, and where it finds the fault."""

import pytest

from export.json_schema import violation

SCHEMA = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]+$"},
        "sizes": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/size"}},
        "mode": {"enum": ["a", "b"]},
        "share": {"type": ["number", "null"], "minimum": 0},
        "flag": {"const": True},
        "map": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "integer"}},
    },
    "$defs": {"size": {"type": "integer"}},
}


@pytest.mark.parametrize(
    "value",
    [
        {"name": "x"},
        {"name": "x", "sizes": [1, 2], "mode": "b", "share": None, "flag": True, "map": {"k": 3}},
        {"name": "x", "share": 0.5},
    ],
)
def test_valid_values_pass(value):
    assert violation(value, SCHEMA) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "it must be of type object"),
        ({}, "it must hold 'name'"),
        ({"name": "X"}, "name must match"),
        ({"name": "x", "sizes": []}, "sizes must hold at least 1 entry"),
        ({"name": "x", "sizes": [1, "2"]}, r"sizes\[1\] must be of type integer, found '2'"),
        ({"name": "x", "sizes": [True]}, r"sizes\[0\] must be of type integer, found True"),
        ({"name": "x", "mode": "c"}, "mode must be one of 'a', 'b'"),
        ({"name": "x", "share": -1}, "share must be at least 0"),
        ({"name": "x", "flag": False}, "flag must be True"),
        ({"name": "x", "map": {"k": "v"}}, "map.k must be of type integer"),
        ({"name": "x", "other": 1}, "nothing but name, sizes.*found 'other'"),
    ],
)
def test_faults_are_named_with_their_place(value, message):
    import re

    assert re.search(message, violation(value, SCHEMA))


def test_unknown_keywords_are_refused_rather_than_ignored():
    with pytest.raises(KeyError, match="maxItems"):
        violation([], {"maxItems": 3})
