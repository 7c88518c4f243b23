from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import Metric
from torchmetrics.classification import BinaryAUROC
from toys import ToyNetwork, fit, parameters_of, toy_loader, toy_module, toy_samples, toy_trainer

from mtl_core.balancing import MGDAUB, UW, Equal, PCGrad
from mtl_core.data.batch import collate
from mtl_core.errors import ArgumentError, MissingTaskError, NoLabelsError, NonFiniteLossError
from mtl_core.modules import MultiTaskModule
from mtl_core.nn import Features, MultiTaskNetwork
from mtl_core.tasks import Regression, Task


def loader(samples, batch_size=4):
    return DataLoader(samples, batch_size, collate_fn=collate)


def test_logged_keys():
    trainer = toy_trainer()
    trainer.fit(toy_module(), toy_loader(), toy_loader(count=16, seed=1))
    keys = set(trainer.callback_metrics)
    assert {"train/loss", "train/size/loss", "val/kind/accuracy", "val/marks/f1"} <= keys
    total = sum(float(trainer.callback_metrics[f"val/{t}/loss"]) for t in ("size", "kind", "marks"))
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(total, rel=1e-5)


def test_training_equals_a_hand_written_loop():
    module = toy_module()
    optimizer = torch.optim.SGD(module.network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        for batch in toy_loader():
            out = module.network.run(batch["inputs"])
            optimizer.zero_grad()
            module.compute_losses(batch, out, 0).total.backward()
            optimizer.step()
    torch.testing.assert_close(fit(), parameters_of(module))


def test_loss_falls():
    module = toy_module()
    trainer = toy_trainer(max_epochs=15)
    trainer.validate(module, toy_loader(count=32), verbose=False)
    before = float(trainer.callback_metrics["val/loss"])
    trainer.fit(module, toy_loader(), toy_loader(count=32))
    assert float(trainer.callback_metrics["val/loss"]) < 0.6 * before


def test_prediction_is_activated_and_keyed():
    module = toy_module()
    batches = toy_trainer().predict(module, toy_loader(batch_size=5, count=10))
    assert batches[0]["keys"] == [f"row {i}" for i in range(5)]
    torch.testing.assert_close(batches[0]["predictions"]["kind"].sum(1), torch.ones(5))


def test_nan_loss_stops_the_run_and_names_task_batch_and_samples():
    samples = toy_samples(16, partial=False)
    samples[9]["targets"]["size"] = torch.tensor(float("nan"))
    module = toy_module()
    before = parameters_of(module)
    with pytest.raises(NonFiniteLossError, match=r"size = nan in batch 2 \(samples row 8, row 9"):
        toy_trainer(limit_val_batches=0).fit(module, loader(samples), loader(samples))
    assert parameters_of(module).isfinite().all()
    assert not torch.equal(parameters_of(module), before)
    with pytest.raises(NonFiniteLossError, match="size = nan"):
        toy_trainer().validate(module, loader(samples), verbose=False)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")  # a skipped batch
@pytest.mark.parametrize("balancer", [None, Equal, UW, PCGrad, MGDAUB])
def test_batches_without_labels(balancer):
    samples = toy_samples(8) + [s | {"targets": {}} for s in toy_samples(4)] + toy_samples(4)
    callbacks = [balancer()] if balancer else []
    with pytest.raises(NoLabelsError, match=r"batch 2 \(samples row 0"):
        toy_trainer(*callbacks).fit(toy_module(), loader(samples), loader(samples))
    module, without = toy_module(), toy_module()
    module.on_unlabelled = "skip"
    for one, data in ((module, samples), (without, [s for s in samples if s["targets"]])):
        callbacks = [balancer()] if balancer else []
        toy_trainer(*callbacks, limit_val_batches=0).fit(one, loader(data), loader(data))
    torch.testing.assert_close(parameters_of(module), parameters_of(without))


def test_a_task_without_labels_is_left_alone():
    """Its decoder stays as it was; the others train as if it were not there."""
    samples = [s | {"targets": {"marks": s["targets"]["marks"]}} for s in toy_samples(16)]
    module = toy_module()
    before = [p.clone() for p in module.network.task_parameters("kind")]
    trainer = toy_trainer()
    trainer.fit(module, loader(samples), loader(samples))
    for old, new in zip(before, module.network.task_parameters("kind"), strict=True):
        assert torch.equal(old, new)
    assert "val/kind/accuracy" not in trainer.callback_metrics
    assert "val/marks/f1" in trainer.callback_metrics


def test_targets_of_undeclared_tasks_only():
    samples = [s | {"targets": {"sise": 1.0}} for s in toy_samples(4)]
    with pytest.raises(MissingTaskError, match="Did you mean 'sise'"):
        toy_trainer().fit(toy_module(), loader(samples), loader(samples))


def test_network_has_to_be_one():
    with pytest.raises(
        ArgumentError, match="network must build a MultiTaskNetwork, found 'Linear'"
    ):
        MultiTaskModule({"a": Regression()}, lambda _: nn.Linear(2, 2))


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_scheduler(interval):
    module = toy_module()
    module.scheduler = lambda o: torch.optim.lr_scheduler.StepLR(o, 1, gamma=0.5)
    module.scheduler_interval = interval
    trainer = toy_trainer(max_epochs=2)
    trainer.fit(module, toy_loader(), toy_loader(count=8))
    steps = 2 if interval == "epoch" else 12
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**steps)


@dataclass(frozen=True, kw_only=True)
class Relevance(Task):
    """Which of M candidates fit a query: prediction, target and mask are (B, M)."""

    @property
    def out_channels(self) -> int:
        return 1

    @property
    def primary(self) -> str:
        return "auroc"

    def valid(self, target):
        return torch.ones_like(target, dtype=torch.bool)

    def element_loss(self, prediction, target, valid):
        return nn.functional.binary_cross_entropy_with_logits(
            prediction.float(), target.float(), reduction="none"
        )

    def metrics(self) -> dict[str, Metric]:
        return {"auroc": BinaryAUROC(thresholds=50)}

    def activate(self, prediction):
        return prediction.sigmoid()

    def update(self, metrics, prediction, target, valid):
        metrics.update(self.activate(prediction)[valid], target[valid])


class TwoTower(MultiTaskNetwork):
    """Scores B queries against M candidates, whose first axes differ."""

    def __init__(self, tasks) -> None:
        super().__init__(tasks)
        self.tower = nn.Linear(4, 8)
        self.heads = nn.ModuleDict({n: nn.Linear(8, 8, bias=False) for n in self.tasks})

    def encode(self, inputs, tags=None):
        return Features([self.tower(inputs["query"]), self.tower(inputs["candidates"])])

    def decode(self, features, task):
        query, candidates = features.maps
        return self.heads[task](query) @ candidates.T

    def decoder_modules(self, task):
        return [self.heads[task]]


@pytest.mark.parametrize("balancer", [Equal, PCGrad, MGDAUB])
def test_two_sided_batches_with_a_free_axis(balancer):
    """B queries, M candidates and a (B, M) block of relevance with unknown entries."""
    torch.manual_seed(0)
    batches = []
    for _ in range(6):
        query, candidates = torch.randn(5, 4), torch.randn(7, 4)
        scores = query @ candidates.T
        batches.append(
            {
                "inputs": {"query": query, "candidates": candidates},
                "targets": {"near": (scores > 0).long(), "far": (scores < -1).long()},
                "valid": {"near": torch.rand(5, 7) > 0.3},
                "labelled": {"far": torch.tensor([True, False, True, True, False])},
            }
        )
    module = MultiTaskModule(
        {"near": Relevance(), "far": Relevance()}, TwoTower, lambda p: torch.optim.Adam(p, 0.02)
    )
    trainer = toy_trainer(balancer(), max_epochs=15)
    data = DataLoader(batches, batch_size=None)
    trainer.fit(module, data, data)
    assert trainer.callback_metrics["val/near/auroc"] > 0.9
    assert trainer.callback_metrics["val/far/auroc"] > 0.8


def test_tags_reach_the_network():
    class Tagged(ToyNetwork):
        def encode(self, inputs, tags=None):
            return super().encode(inputs + tags["camera"][:, None].float())

    module = toy_module()
    module.network = Tagged(module.tasks)
    samples = [s | {"tags": {"camera": i % 2}} for i, s in enumerate(toy_samples(8))]
    toy_trainer().fit(module, loader(samples), loader(samples))
    assert len(toy_trainer().predict(module, loader(samples))) == 2
