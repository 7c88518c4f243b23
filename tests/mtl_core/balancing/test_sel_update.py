import lightning as L
import pytest
import torch
from toys import fit, parameters_of, toy_loader, toy_module, toy_trainer

from mtl_core.balancing import SelUpdate
from mtl_core.balancing.sel_update import cluster, proximal_affinity
from mtl_core.errors import ArgumentError, BalancerError

NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "members", "wanted"),
    [
        ([0.2, -0.1], [1, 0], [[0.2, -0.1], [NAN, NAN]]),
        ([-0.2, 0.1], [1, 0], [[NAN, 0.1], [NAN, NAN]]),
        ([0.2, 0.4, 0.6], [1, 1, 0], [[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [NAN] * 3]),
        ([0.2, -0.4], [1, 1], [[0.1, -0.1], [-0.1, NAN]]),
        ([-0.2, -0.4], [1, 1], [[NAN, -0.2], [-0.1, NAN]]),
    ],
)
def test_affinity_of_one_step(changes, members, wanted):
    found = proximal_affinity(torch.tensor(changes).double(), torch.tensor(members).bool())
    torch.testing.assert_close(found, torch.tensor(wanted).double(), equal_nan=True)


def test_tasks_that_help_each_other_are_grouped():
    affinity = torch.eye(5).double() * torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0]).double()
    for s, t in ((0, 1), (1, 0), (2, 3), (3, 2)):
        affinity[s, t] = 0.9 * affinity[t, t]
    affinity[affinity == 0] = -0.2
    labels = cluster(affinity, torch.Generator().manual_seed(0))
    assert labels[0] == labels[1] != labels[2] == labels[3]
    affinity[4, 4] = 0
    assert cluster(affinity, torch.Generator().manual_seed(0))[4] == 4
    scaled = cluster(affinity * 1e-9, torch.Generator().manual_seed(0))
    assert scaled == cluster(affinity, torch.Generator().manual_seed(0))


def by_hand(groups, *, clip=0.0):
    """One batch of the toy in the given order of groups; affinities with rate one half."""
    module, batch = toy_module(), next(iter(toy_loader()))
    optimizer = module.optimizer(module.network.parameters())
    names = list(module.entries)
    affinity = torch.zeros(3, 3, dtype=torch.float64)
    before = None
    for turn, group in enumerate(groups):
        out = module.network.run(batch["inputs"])
        losses = module.compute_losses(batch, out, 0).losses
        values = torch.tensor([float(losses[t].detach()) for t in names]).double()
        if before is not None:
            members = torch.tensor([t in groups[turn - 1] for t in names])
            found = proximal_affinity(1 - values / before, members)
            affinity = torch.where(found.isnan(), affinity, affinity / 2 + found / 2)
        before = values
        optimizer.zero_grad()
        sum(losses[t] for t in group).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(module.network.parameters(), clip)
        optimizer.step()
    return parameters_of(module), affinity


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 1, 0], [2, 2, 2]])
def test_one_batch_is_the_loop_by_hand(labels, clip):
    class Grouped(SelUpdate):
        def reset(self, entries):
            super().reset(entries)
            self.group_of = torch.tensor(labels)[:entries]

        def _visits(self, update):
            self.visited = super()._visits(update)
            return self.visited

    method = Grouped(beta=0.5)
    options = {"gradient_clip_val": clip} if clip else {}
    found = fit(method, limit_train_batches=1, max_epochs=1, **options)
    assert len(method.visited) == max(2, len(set(labels)))
    wanted, affinity = by_hand(method.visited, clip=clip)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(method.affinity, affinity, rtol=1e-4, atol=1e-6)


def test_groups_form_after_the_warm_up():
    method = SelUpdate(warmup=3, beta=0.3)
    fit(method, max_epochs=4)
    assert sorted(e for group in method.groups for e in group) == sorted(method.entries)
    assert float(method.affinity.abs().max()) > 0
    assert method.index == 24


def test_statistics_of_batch_norm_move_once_a_batch():
    module = toy_module(norm=True)
    fit(SelUpdate(), module=module, max_epochs=1)
    assert int(module.network.trunk[1].num_batches_tracked) == 6


def test_resumed_run_goes_on_equally(tmp_path):
    def method():
        return SelUpdate(warmup=3, beta=0.3)

    unbroken = fit(method())
    trainer = toy_trainer(method(), max_epochs=1)
    trainer.fit(toy_module(), toy_loader(), toy_loader(count=16, seed=1))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    assert torch.equal(fit(method(), ckpt_path=tmp_path / "one.ckpt"), unbroken)


def test_schedulers_step_once_a_batch():
    module = toy_module()
    module.scheduler = lambda o: torch.optim.lr_scheduler.StepLR(o, 1, gamma=0.5)
    module.scheduler_interval = "step"
    rates = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, *args):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    fit(SelUpdate(), Watch(), module=module, max_epochs=1)
    assert rates == pytest.approx([0.1 * 0.5**i for i in range(1, 7)])


def test_accumulation_is_refused():
    with pytest.raises(BalancerError, match="accumulate_grad_batches must be 1, found 2"):
        fit(SelUpdate(), accumulate_grad_batches=2)


def test_manual_optimisation_is_refused():
    module = toy_module()
    module.automatic_optimization = False
    with pytest.raises(BalancerError, match="automatic optimisation"):
        fit(SelUpdate(), module=module)


def test_a_loss_scaler_is_refused():
    method = SelUpdate()
    method.scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(BalancerError, match="bf16-mixed"):
        fit(method)


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"beta": 1.5}, {"warmup": -1}])
def test_arguments_are_checked(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        SelUpdate(**options)
