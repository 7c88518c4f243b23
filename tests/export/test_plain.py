"""Einsum by other means equals einsum, or is left alone."""

import pytest
import torch

from export.plain import PlainOperations, product


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bi,eio->beo", [(2, 3), (4, 3, 5)]),
        ("bei,eio->beo", [(2, 4, 3), (4, 3, 5)]),
        ("be,bed->bd", [(2, 4), (2, 4, 5)]),
        ("bted, te -> btd", [(2, 3, 4, 5), (3, 4)]),
        ("i,j->ij", [(2,), (3,)]),
        ("bnd,bmd->bnm", [(2, 3, 4), (2, 5, 4)]),
        ("ab,bc->ca", [(2, 3), (3, 4)]),
    ],
)
def test_products(equation, shapes):
    left, right = (torch.randn(shape) for shape in shapes)
    expected = torch.einsum(equation, left, right)
    torch.testing.assert_close(product(equation, left, right), expected)
    with PlainOperations():
        torch.testing.assert_close(torch.einsum(equation, left, right), expected)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("...i,ij->...j", [(2, 3), (3, 4)]),
        ("ij,jk", [(2, 3), (3, 4)]),
        ("ii,ij->j", [(3, 3), (3, 4)]),
        ("ijk,j->i", [(2, 3, 4), (3,)]),
    ],
)
def test_other_equations_are_left_alone(equation, shapes):
    left, right = (torch.randn(shape) for shape in shapes)
    assert product(equation, left, right) is None
    expected = torch.einsum(equation, left, right)
    with PlainOperations():
        assert torch.equal(torch.einsum(equation, left, right), expected)
        assert torch.einsum("ij->ji", torch.ones(2, 3)).shape == (3, 2)


@pytest.mark.parametrize("size", [1, (1, 1), (2, 1)])
def test_pooling_of_a_whole_map(size):
    images = torch.randn(2, 3, 4, 5)
    pool = torch.nn.AdaptiveAvgPool2d(size)
    expected = pool(images)
    with PlainOperations():
        torch.testing.assert_close(pool(images), expected)
