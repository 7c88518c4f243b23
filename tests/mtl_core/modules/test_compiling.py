"""Compiled modules."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.compiler import config

from mtl_core.modules.compiling import compile_parts


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No program compiled yet, and torch's own limits before and after."""
    limits = config.recompile_limit, config.accumulated_recompile_limit
    torch.compiler.reset()
    config.recompile_limit, config.accumulated_recompile_limit = 8, 256
    yield
    config.recompile_limit, config.accumulated_recompile_limit = limits
    torch.compiler.reset()


class Chain(nn.Module):
    """Layers in a row. (What only holds torch's own modules is not compiled by torch 2.11.)"""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(depth)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Counting:
    """A back end that counts the programs it is given."""

    def __init__(self) -> None:
        self.programs = 0

    def __call__(self, graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        self.programs += 1
        return graph.forward


def test_more_modules_than_torch_has_programs_for_are_compiled():
    parts = [Chain(depth) for depth in range(1, 13)]
    rows = torch.ones(2, 4)
    expected = [part(rows) for part in parts]
    backend = Counting()
    compile_parts(parts, backend=backend, fullgraph=True)
    for part, same in zip(parts, expected, strict=True):
        torch.testing.assert_close(part(rows), same)
    assert backend.programs == 12


def test_modules_of_one_structure_share_their_program():
    parts = [Chain(1) for _ in range(12)]
    backend = Counting()
    compile_parts(parts, backend=backend, fullgraph=True)
    for part in parts:
        part(torch.ones(2, 4))
    assert backend.programs == 1


def test_limits_are_never_lowered():
    config.recompile_limit, config.accumulated_recompile_limit = 1000, 2000
    compile_parts([Chain(1)], backend="eager")
    assert (config.recompile_limit, config.accumulated_recompile_limit) == (1000, 2000)
