import torch
from toys import fit, parameters_of, toy_loader, toy_module

from mtl_core.balancing import Equal, LossBalancer


class Doubled(LossBalancer):
    def weigh(self, losses, step):
        return torch.full_like(losses, 2.0)


class Shrunk(Equal):
    """A penalty on the features, as representation-level regularisers write it."""

    def penalty(self, losses):
        return losses.features.maps[0].square().mean()


class Moved(Equal):
    """Looks at the same batch again, at other weights."""

    seen: list[tuple[float, float]]

    def penalty(self, losses):
        before = losses.values["marks"]
        same = losses.recompute().values["marks"]
        assert same == before
        return


def test_weights_multiply_gradients():
    """Half the rate at twice the weights is the same run."""
    doubled = fit(Doubled(), module=toy_module(lr=0.05))
    torch.testing.assert_close(doubled, fit(module=toy_module(lr=0.1)))


def test_penalty_equals_a_hand_written_loop():
    module = toy_module()
    optimizer = torch.optim.SGD(module.network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        for batch in toy_loader():
            out = module.network.run(batch["inputs"])
            optimizer.zero_grad()
            penalty = out.features.maps[0].square().mean()
            (module.compute_losses(batch, out, 0).total + penalty).backward()
            optimizer.step()
    torch.testing.assert_close(fit(Shrunk()), parameters_of(module))


def test_losses_can_be_evaluated_again_within_a_step():
    torch.testing.assert_close(fit(Moved()), fit())
    fit(Moved(), precision="bf16-mixed")
