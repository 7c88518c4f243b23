import csv
import json
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from processes import run_ranks
from toy_routed import RoutedToy
from toys import fit, parameters_of, toy_loader, toy_module, toy_tasks, toy_trainer

from mtl_core.balancing import PCGrad
from mtl_core.callbacks import RoutingMonitor
from mtl_core.errors import ArgumentError
from mtl_core.modules import MultiTaskModule

sys.path.insert(0, str(Path(__file__).parent))
from routing_worker import train


def routed(**options) -> MultiTaskModule:
    torch.manual_seed(0)
    return MultiTaskModule(
        toy_tasks(), lambda t: RoutedToy(t, **options), lambda p: torch.optim.SGD(p, lr=0.1)
    )


@pytest.fixture
def pictures():
    """Asked for by tests that look at what is drawn; drawing takes a second."""


@pytest.fixture(autouse=True)
def draw_only_where_it_is_seen(request, monkeypatch):
    if "pictures" not in request.fixturenames:
        write = RoutingMonitor._write
        monkeypatch.setattr(
            RoutingMonitor, "_write", lambda self, t, f, *, draw: write(self, t, f, draw=False)
        )


@pytest.mark.parametrize("balancers", [[], [PCGrad]])
def test_training_is_not_touched(balancers, tmp_path):
    found = []
    for monitors in ([], [RoutingMonitor(every_n_steps=1)]):
        made = [b() for b in balancers]
        found.append(fit(*made, *monitors, module=routed(), default_root_dir=tmp_path))
    assert torch.equal(*found)
    hooks = [m._forward_hooks for m in routed().modules()]
    assert not any(hooks)


@pytest.mark.parametrize("stacked", [False, True])
def test_shares_are_those_of_the_routings(stacked, tmp_path):
    """The learning rate is zero, so every look sees the same network."""
    module = routed(stacked=stacked)
    monitor = RoutingMonitor(every_n_steps=6, decay=0.0)
    last = list(toy_loader())[-1]["inputs"]
    expected = torch.zeros(3, 4)
    trainer = toy_trainer(monitor, max_epochs=1, default_root_dir=tmp_path)
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.0)
    trainer.fit(module, toy_loader(), toy_loader(count=16))
    router = module.network.blocks[0].router
    for i, task in enumerate(router.tasks):
        expected[i] = torch.bincount(router(last, task).idx.flatten(), minlength=4)
    found = monitor.summary.shares("blocks.0")
    assert torch.allclose(found.float(), expected / (2 * len(last)), atol=1e-6)
    assert monitor.summary.layers == ("blocks.0", "blocks.1")


def test_logs_at_its_interval_and_writes_at_validation(tmp_path, pictures):
    logger = CSVLogger(tmp_path, name="", version="")
    fit(RoutingMonitor(every_n_steps=4), module=routed(), logger=logger, max_epochs=2)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    told = [row for row in rows if row.get("routing/overlap")]
    assert [row["step"] for row in told] == ["3", "7", "11"]
    keys = {k for k, v in told[0].items() if v and k.startswith("routing/")}
    entropies = {f"routing/entropy/{t}" for t in toy_tasks()}
    assert keys == {"routing/overlap", "routing/largest"} | entropies
    folder = tmp_path / "routing"
    files = {p.name for p in folder.iterdir()}
    assert files == {"usage.csv", "routing.json", "history.csv", "usage.png", "overlap.png"}
    usage = list(csv.DictReader((folder / "usage.csv").read_text().splitlines()))
    assert len(usage) == 2 * 3 * 4
    whole = sum(float(row["chosen"]) for row in usage)
    assert whole == pytest.approx(6, abs=1e-4)
    history = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [row["step"] for row in history] == ["6"] * 6 + ["12"] * 6
    held = json.loads((folder / "routing.json").read_text())
    assert held["means"]["overlap"] == pytest.approx(float(told[-1]["routing/overlap"]))


def test_unlooked_batches_cost_nothing(tmp_path, monkeypatch):
    calls = []
    take = RoutingMonitor._take
    monkeypatch.setattr(
        RoutingMonitor, "_take", lambda self, *args: (calls.append(args[0]), take(self, *args))
    )
    fit(RoutingMonitor(every_n_steps=5), module=routed(), max_epochs=2, default_root_dir=tmp_path)
    assert len(calls) == 2 * 2 * 3, "two looks, two routers, three tasks; no validation among them"


def test_recomputed_routings_count_once(tmp_path):
    """What a backward pass computes again is no second choice."""
    network = routed().network
    forward = network._through

    def recomputing(x, task):
        return torch.utils.checkpoint.checkpoint(forward, x, task, use_reentrant=False)

    seen = []
    for again in (False, True):
        module = routed()
        if again:
            forward = module.network._through
            module.network._through = recomputing
        monitor = RoutingMonitor(every_n_steps=1)
        fit(monitor, module=module, max_epochs=1, default_root_dir=tmp_path)
        seen.append(monitor.summary.as_dict())
    assert seen[0] == seen[1]


def test_resumed_runs_go_on(tmp_path):
    whole = RoutingMonitor(every_n_steps=4)
    fit(whole, module=routed(), max_epochs=2, default_root_dir=tmp_path / "whole")
    first, second = RoutingMonitor(every_n_steps=4), RoutingMonitor(every_n_steps=4)
    trainer = toy_trainer(first, max_epochs=1, default_root_dir=tmp_path / "parts")
    trainer.fit(routed(), toy_loader(), toy_loader(count=16, seed=1))
    saved = tmp_path / "saved.ckpt"
    trainer.save_checkpoint(saved)
    torch.load(saved, weights_only=True)
    options = {"default_root_dir": tmp_path / "parts"}
    fit(second, module=routed(), max_epochs=2, ckpt_path=saved, **options)
    assert second.index == whole.index == 12
    assert second.history == whole.history
    assert second.summary.as_dict() == whole.summary.as_dict()


def test_tests_and_validations_are_looked_at_as_a_whole(tmp_path, pictures):
    monitor = RoutingMonitor(every_n_steps=1000)
    trainer = toy_trainer(monitor, default_root_dir=tmp_path)
    module = routed()
    trainer.test(module, toy_loader(), verbose=False)
    found = monitor.summary.shares("blocks.0")
    inputs = torch.cat([batch["inputs"] for batch in toy_loader()])
    with torch.no_grad():
        routing = module.eval().network.blocks[0].router(inputs, "kind")
    expected = torch.bincount(routing.idx.flatten(), minlength=4) / routing.idx.numel()
    assert torch.allclose(found[1].float(), expected)
    trainer.validate(module, toy_loader(), verbose=False)
    for verb in ("test", "validate"):
        names = {p.name for p in (tmp_path / "routing" / verb).iterdir()}
        assert names == {"usage.csv", "routing.json", "usage.png", "overlap.png"}


def test_fast_dev_run_writes_nothing(tmp_path):
    fit(RoutingMonitor(every_n_steps=1), module=routed(), fast_dev_run=True)
    assert not (tmp_path / "routing").exists()


@pytest.mark.slow
def test_two_processes_count_together(tmp_path):
    alone = train(1, tmp_path / "alone")
    ranks = run_ranks("routing_worker", tmp_path, folder=Path(__file__).parent)
    for rank in ranks:
        for layer, held in alone["layers"].items():
            for task, shares in held["chosen"].items():
                other = rank["found"]["layers"][layer]["chosen"][task]
                assert other == pytest.approx(shares, abs=1e-5)
    assert "usage.csv" in ranks[0]["files"]
    assert ranks[1]["files"] == []


def test_mistakes(tmp_path):
    for options in ({"every_n_steps": 0}, {"decay": 1.0}, {"threshold": -1}):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            RoutingMonitor(**options)
    with pytest.raises(ArgumentError, match="draw_every_n_epochs"):
        RoutingMonitor(draw_every_n_epochs=-1)
    with pytest.raises(ArgumentError, match="routers"):
        fit(RoutingMonitor(), module=toy_module(), default_root_dir=tmp_path)
    assert parameters_of(toy_module()).isfinite().all()
