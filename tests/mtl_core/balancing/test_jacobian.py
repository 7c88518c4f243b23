import pytest
import torch
from toys import fit, parameters_of, toy_module

from mtl_core.balancing import JacobianBalancer


class Summed(JacobianBalancer):
    def aggregate(self, jacobian, losses, step):
        assert jacobian.shape[0] == len(losses) == len(step.entries)
        return jacobian.sum(0)


class Momentum(JacobianBalancer):
    """State of the parameters' size, by entry."""

    def reset(self, entries):
        super().reset(entries)
        self.mean = None

    def aggregate(self, jacobian, losses, step):
        if self.mean is None:
            self.mean = torch.zeros(len(self.entries), jacobian.shape[1])
        self.mean[step.present] = 0.5 * self.mean[step.present] + 0.5 * jacobian
        return self.mean[step.present].sum(0)

    def method_state(self):
        return {"mean": self.mean}

    def load_method_state(self, state):
        self.mean = state["mean"].clone()


def test_sum_of_rows_is_the_plain_sum():
    torch.testing.assert_close(fit(Summed()), fit())


def test_rows_of_absent_tasks_keep_their_state():
    assert fit(Momentum()).isfinite().all()
    state = Momentum()
    fit(state, module=toy_module())
    other = Momentum()
    other.entries = state.entries
    other.load_state_dict(state.state_dict())
    assert torch.equal(other.mean, state.mean)


@pytest.mark.parametrize("frozen", ["0", "4"])
def test_partly_frozen_trunk(frozen):
    module = toy_module()
    layer = module.network.trunk[int(frozen)]
    layer.requires_grad_(False)
    before = layer.weight.clone()
    assert not torch.equal(fit(Summed(), module=module), parameters_of(toy_module()))
    assert torch.equal(layer.weight, before)
