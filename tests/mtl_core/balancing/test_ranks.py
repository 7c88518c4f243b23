"""One process; `tests/test_ddp.py` covers two."""

import torch
from toys import toy_module, toy_samples

from mtl_core.balancing.ranks import mean_gradients, share_labels, sum_over_ranks, world_size
from mtl_core.data.batch import collate


def test_one_process_changes_nothing():
    assert world_size() == 1
    tensor = torch.randn(3)
    assert sum_over_ranks(tensor) is tensor
    parameter = torch.nn.Parameter(torch.ones(2))
    mean_gradients([parameter])
    assert parameter.grad is None


def test_shares_are_one_and_losses_as_given():
    module, batch = toy_module(), collate(toy_samples(8))
    step = module.compute_losses(batch, module.network.run(batch["inputs"]), 0)
    means, shares = share_labels(step, module.entries, torch.device("cpu"))
    assert means == step.values
    assert shares == dict.fromkeys(module.entries, 1.0)
