import numpy as np
import pytest
from fpga_toys import images, random_vit

from export.fpga import vit as floats
from export.fpga.csim import sqnr
from export.fpga.design import Widths, design, factor
from export.fpga.formats import FormatError
from export.fpga.integer.encoder import encode
from export.fpga.single import design_layer, random_mixture
from mtl_core.errors import ArgumentError


def decibels(widths, seed=0):
    vit = random_vit(seed)
    made = design(vit, ("left", "right"), widths, images(4))
    exact, found = [], []
    for pixels in floats.patches(images(2, seed=9), vit.patch):
        tokens, _ = encode(pixels, made.encoder, "right")
        found.append(made.output.value(tokens))
        exact.append(floats.forward(pixels, vit, "right")[0])
    return sqnr(np.stack(exact), np.stack(found))


@pytest.mark.parametrize(("act", "weight", "bound"), [(24, 16, 55), (18, 12, 48), (16, 8, 28)])
def test_integers_are_as_close_as_their_widths_allow(act, weight, bound):
    assert decibels(Widths(act, weight)) > bound


@pytest.mark.parametrize(
    ("sizes", "act", "weight", "bound"),
    [((50, 64, 64, 8, 2), 16, 8, 28), ((129, 192, 384, 16, 2), 18, 12, 48)],
)
def test_truncated_weights_fail_the_bound(sizes, act, weight, bound):
    source, tokens = random_mixture(*sizes, seed=0)
    exact, _ = floats.mixture(tokens, tokens, source, "task0", lambda _, t: t)
    found = {}
    for rounding in ("nearest", "truncate"):
        layer = design_layer(source, tokens, Widths(act, weight, rounding=rounding))
        out, _ = layer.run(tokens, "task0")
        found[rounding] = sqnr(exact, layer.out.value(out))
    assert found["truncate"] < bound < found["nearest"] - 10


def test_every_tensor_has_its_own_format_and_headroom():
    made = design(random_vit(), ("left",), Widths(18, 12), images(2))
    kinds = {entry["kind"] for entry in made.formats.values()}
    assert kinds == {"activation", "weight", "vector"}
    for name, entry in made.formats.items():
        if entry["largest"]:
            least = 1.99 if entry["kind"] == "activation" else 0.99
            assert entry["headroom"] > least, name
    weights = [e["I"] for e in made.formats.values() if e["kind"] == "weight"]
    assert max(weights) <= 1  # ranges decide, not habit


def test_given_integer_bits_are_kept_or_refused():
    made = design(random_vit(), ("left",), Widths(24, 16, 8, 2), images(2))
    held = {(e["W"], e["I"]) for e in made.formats.values() if e["kind"] == "activation"}
    assert held == {(24, 8)}
    with pytest.raises(FormatError, match="overflows"):
        design(random_vit(), ("left",), Widths(24, 16, 1, 2), images(2))


def test_what_cannot_be_exact_is_refused():
    with pytest.raises(FormatError, match="exact sums"):
        design(random_vit(), ("left",), Widths(32, 16), images(1))
    with pytest.raises(ArgumentError, match="4 to 16"):
        Widths(18, 20)
    with pytest.raises(ArgumentError, match="8 to 32"):
        Widths(4, 4)
    with pytest.raises(FormatError, match=r"constant scale = 2\.5 does not fit ufixed<21,2>|4"):
        factor("scale", 4.5)
