"""Allow-lists of operators, and what is said of those that are not on them."""

import pytest
from onnx import helper

from export.operators import ALLOWED, OperatorError, check_operators, origin
from mtl_core.errors import UnknownNameError


def model(*nodes):
    return helper.make_model(helper.make_graph(list(nodes), "g", [], []))


def node(kind, domain="", **notes):
    made = helper.make_node(kind, ["a"], ["b"], domain=domain)
    for key, value in notes.items():
        entry = made.metadata_props.add()
        entry.key, entry.value = f"pkg.torch.onnx.{key}", value
    return made


def test_profiles_grow():
    assert ALLOWED["fpga"] < ALLOWED["portable"] < ALLOWED["cpu"]
    for name in ("NonZero", "Loop", "If", "Scan", "Unique", "Compress", "Einsum", "ScatterND"):
        assert name not in ALLOWED["portable"]
    assert not {"Loop", "If", "Scan"} & ALLOWED["cpu"]


def test_operators_are_counted():
    assert check_operators(model(node("Add"), node("Add"), node("Gelu")), "fpga") == {
        "Add": 2,
        "Gelu": 1,
    }


def test_the_first_that_is_not_allowed_is_named_with_all_places():
    notes = {
        "name_scopes": "['', 'network', 'network.block', 'nonzero']",
        "class_hierarchy": "['export.graph.ExportNetwork', 'a.b.Net', 'a.b.Block', 'aten.nonzero']",
    }
    found = node("NonZero", **notes)
    assert origin(found) == "network.block (Block)"
    with pytest.raises(OperatorError, match=r"NonZero is not. It comes from network\.block"):
        check_operators(model(node("Add"), found), "portable")
    assert check_operators(model(found), "cpu") == {"NonZero": 1}


def test_operators_of_other_domains_are_never_allowed():
    with pytest.raises(OperatorError, match=r"com\.microsoft\.MoE is not.*an unknown place"):
        check_operators(model(node("MoE", domain="com.microsoft")), "cpu")


def test_many_places_are_cut_short():
    text = str(OperatorError("Loop", "cpu", [f"m{i}" for i in range(9)]))
    assert "m0, m1, m2, m3 and 5 more" in text


def test_unknown_profiles():
    with pytest.raises(UnknownNameError, match="portable"):
        check_operators(model(), "portabel")
