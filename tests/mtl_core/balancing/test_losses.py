import torch
from toys import toy_module, toy_samples

from mtl_core.balancing.losses import Step
from mtl_core.data.batch import collate


def test_factors_read_what_the_trainer_multiplied_on():
    module, batch = toy_module(), collate(toy_samples(8))
    step = module.compute_losses(batch, module.network.run(batch["inputs"]), 0)
    factors, aux = step.factors(step.total * 1024 / 4)
    assert factors.tolist() == [256.0] * 3
    assert aux is None
    torch.testing.assert_close(step.total, sum(step.losses.values()))


def test_step_is_a_record():
    step = Step(("a",), torch.tensor([0]), 3, 1, torch.Generator())
    assert (step.entries, step.index, step.epoch) == (("a",), 3, 1)
