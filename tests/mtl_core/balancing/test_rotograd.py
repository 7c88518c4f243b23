import pytest
import torch
from rotated_toy import rotated_toy_module
from toys import fit, parameters_of, toy_loader, toy_trainer

from mtl_core.balancing import RotoGrad
from mtl_core.balancing.rotograd import homogeneous_weights, rotation_gradient
from mtl_core.errors import ArgumentError, BalancerError
from mtl_core.nn.rotated import rotations


def test_weights_bring_gradients_to_one_length():
    norms = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    weights = homogeneous_weights(norms, norms)
    torch.testing.assert_close(weights * norms, torch.full((3,), 7 / 3).double())
    slow = homogeneous_weights(norms, torch.tensor([1.0, 2.0, 40.0]).double())
    torch.testing.assert_close(slow * norms, torch.full((3,), 3.4 / 2.1).double())
    torch.testing.assert_close(homogeneous_weights(norms * 1e-9, norms * 1e-9), weights)
    assert float(homogeneous_weights(norms[:1], norms[1:2])) == 1


def test_gradient_is_that_of_the_objective():
    reference, turned = torch.randn(2, 7, 4, dtype=torch.float64)
    angles = torch.randn(6, dtype=torch.float64, requires_grad=True)
    (reference @ rotations(angles, 4).t() - turned).square().sum().backward()
    found = rotation_gradient(angles, turned.t() @ reference)
    torch.testing.assert_close(found, angles.grad)


def test_rotations_bring_opposite_gradients_together():
    """A decoder that asks for the same of its rotated input, whatever the rotation."""
    method, module = RotoGrad(lr=0.05), rotated_toy_module()
    network = module.network
    method.start(module.entries[:2])
    wanted = torch.randn(2, 5, 6)
    wanted[1] = -wanted[0]
    cosines = []
    for _ in range(80):
        rows = torch.stack([wanted[t] @ network.rotation[t, 0] for t in (0, 1)])
        rows = torch.cat([rows, torch.zeros(2, 5, 2)], -1).flatten(1)
        rows[0] += 1e-3 * torch.randn(40)  # exactly opposite gradients have no mean
        cosines.append(float(torch.cosine_similarity(rows[0], rows[1], 0)))
        method._network, method._border = network, network.encode(torch.zeros(5, 6))
        method.merge(rows, torch.ones(2).double(), method.step(method.entries))
        method._turn(network, method._correlation, torch.tensor([0, 1]))
        method._correlation = None
    assert cosines[0] < -0.99
    assert cosines[-1] > 0.9


def test_first_update_of_directions_alone_is_the_plain_sum():
    first = {"limit_train_batches": 1, "max_epochs": 1}
    found = fit(RotoGrad(homogenise=False), module=rotated_toy_module(), **first)
    torch.testing.assert_close(found, fit(module=rotated_toy_module(), **first))


def test_rotations_turn_and_stay_rotations():
    module = rotated_toy_module()
    method = RotoGrad(lr=0.01, burn_in=3)
    fit(method, module=module)
    network = module.network
    assert float(network.angles.abs().amax((1, 2)).min()) > 1e-3
    product = network.rotation @ network.rotation.mT
    torch.testing.assert_close(product, torch.eye(6).expand_as(product), atol=1e-5, rtol=0)
    assert bool(torch.isfinite(parameters_of(module)).all())


def test_resumed_run_goes_on_equally(tmp_path):
    modules = [rotated_toy_module() for _ in range(3)]
    unbroken = fit(RotoGrad(lr=0.01, burn_in=7), module=modules[0])
    trainer = toy_trainer(RotoGrad(lr=0.01, burn_in=7), max_epochs=1)
    trainer.fit(modules[1], toy_loader(), toy_loader(count=16, seed=1))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    resumed = fit(RotoGrad(lr=0.01, burn_in=7), module=modules[2], ckpt_path=tmp_path / "one.ckpt")
    assert torch.equal(resumed, unbroken)
    assert torch.equal(modules[2].network.rotation, modules[0].network.rotation)


def test_networks_without_rotations_are_refused():
    with pytest.raises(BalancerError, match=r"Wrap it: mtl_core\.nn\.Rotated"):
        fit(RotoGrad())


@pytest.mark.parametrize("options", [{"lr": 0.0}, {"burn_in": -1}])
def test_arguments_are_checked(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        RotoGrad(**options)
