import csv
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from processes import run_ranks
from torch.utils.data import DataLoader
from toys import fit, parameters_of, toy_loader, toy_module, toy_samples, toy_trainer

from mtl_core.balancing import MGDAUB, SAM, UW, GradDrop, PCGrad, Stages
from mtl_core.callbacks import GradientMonitor
from mtl_core.callbacks.gradient_history import FIGURES
from mtl_core.data.batch import collate
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError
from mtl_core.tasks import MultiLabel, Regression

sys.path.insert(0, str(Path(__file__).parent))
from gradient_worker import RUNS, train

BALANCERS = {
    "none": lambda: [],
    "UW": lambda: [UW()],
    "PCGrad": lambda: [PCGrad()],
    "ghost": lambda: [PCGrad(stages=Stages(gram="ghost"))],
    "last_layer": lambda: [PCGrad(stages=Stages(gram="last_layer"))],
    "MGDAUB": lambda: [MGDAUB()],
    "GradDrop": lambda: [GradDrop()],
    "SAM": lambda: [SAM(rho=0.1)],
}


@pytest.fixture
def pictures():
    """Asked for by tests that look at what is written; drawing takes a second."""


@pytest.fixture(autouse=True)
def draw_only_where_it_is_seen(request, monkeypatch):
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(GradientMonitor, "_write", lambda *_: None)


@pytest.mark.parametrize("name", BALANCERS)
@pytest.mark.parametrize("source", ["exact", "last_layer", "feature"])
def test_training_is_not_touched(name, source, tmp_path):
    """Batches of several sizes and partial labels, dropout, accumulation with a ragged end."""
    options = {"max_epochs": 1, "accumulate_grad_batches": 4, "default_root_dir": tmp_path}
    found = []
    for monitors in ([], [GradientMonitor(every_n_steps=1, source=source)]):
        module = toy_module(dropout=0.2)
        found.append(fit(*BALANCERS[name](), *monitors, module=module, **options))
    assert torch.equal(*found)
    assert monitors[0].history.column("step").tolist() == [0, 1]
    assert monitors[0].history.column("norms").isfinite().all()


@pytest.mark.parametrize("before", [True, False])
def test_agrees_with_what_the_balancer_saw(before, tmp_path):
    """In whichever order both are registered."""
    balancer, seen = PCGrad(), []

    class Watch(L.Callback):
        def on_train_batch_end(self, *_):
            seen.append(dict(balancer.report))

    monitor = GradientMonitor(every_n_steps=1)
    pair = (monitor, balancer) if before else (balancer, monitor)
    fit(*pair, Watch(), log_every_n_steps=1, max_epochs=1, default_root_dir=tmp_path)
    assert len(seen) == 6
    for told, record in zip(seen, monitor.history.records, strict=True):
        for name, value in zip(FIGURES, record.figures.tolist(), strict=True):
            assert value == pytest.approx(told[name], rel=1e-3, abs=1e-5), name
        weights = record.weights[~record.weights.isnan()]
        assert len(weights) >= 2


def rows_of(path):
    return list(csv.DictReader((path / "metrics.csv").read_text().splitlines()))


def test_logs_at_its_own_interval(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    fit(GradientMonitor(every_n_steps=3), logger=logger, max_epochs=2, log_every_n_steps=1000)
    rows = [row for row in rows_of(tmp_path) if row["gradients/norm/size"]]
    assert [row["step"] for row in rows] == ["2", "5", "8", "11"]
    keys = {key for key, value in rows[0].items() if value and key.startswith("gradients/")}
    names = [*FIGURES, "norm/size", "norm/kind", "norm/marks"]
    assert keys == {f"gradients/{name}" for name in names}


def test_leaves_to_the_balancer_what_it_logs(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    monitor = GradientMonitor(every_n_steps=1)
    fit(PCGrad(), monitor, logger=logger, max_epochs=1, log_every_n_steps=2)
    rows = rows_of(tmp_path)
    both = {row["step"] for row in rows if row.get("balance/cosine_mean")}
    ours = {row["step"] for row in rows if row.get("gradients/cosine_mean")}
    assert both == {"1", "3", "5"}
    assert ours == {"0", "2", "4"}
    assert len([row for row in rows if row["gradients/norm/marks"]]) == 6


def test_cheap_sources_say_what_they_are(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    monitor = GradientMonitor(every_n_steps=1, source="last_layer", layer="trunk.4")
    fit(monitor, logger=logger, max_steps=1)
    assert "gradients/last_layer/cosine_mean" in rows_of(tmp_path)[0]
    assert "gradients/cosine_mean" not in rows_of(tmp_path)[0]


@pytest.mark.parametrize("keys", [["size", "kind"], ["marks"]])
def test_absent_tasks_are_left_out(keys, tmp_path):
    batches = list(toy_loader(partial=False))
    for batch in batches:
        for key in keys:
            batch["targets"].pop(key)
    loader = DataLoader(batches, batch_size=None)
    monitor = GradientMonitor(every_n_steps=1)
    trainer = toy_trainer(monitor, max_steps=2, limit_val_batches=0, default_root_dir=tmp_path)
    trainer.fit(toy_module(), loader, loader)
    hidden = monitor.history.column("norms").isnan()
    assert hidden.tolist() == [[n in keys for n in ("size", "kind", "marks")]] * 2


def test_one_task(tmp_path, pictures):
    monitor = GradientMonitor(every_n_steps=1)
    module = toy_module(tasks={"marks": MultiLabel(num_labels=2)})
    fit(monitor, module=module, max_steps=2, default_root_dir=tmp_path)
    assert monitor.history.column("norms").shape == (2, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gradients.csv", "gradients.png"]


def test_groups_are_entries(tmp_path):
    samples = toy_samples(16, partial=False)
    for i, sample in enumerate(samples):
        sample["group"] = {"size": i % 2}
    loader = DataLoader(samples, 8, collate_fn=collate)
    found = []
    for balancer in ([], [PCGrad()]):
        tasks = {"size": Regression(groups=("even", "odd")), "marks": MultiLabel(num_labels=2)}
        monitor = GradientMonitor(every_n_steps=1)
        trainer = toy_trainer(
            *balancer, monitor, max_steps=1, limit_val_batches=0, default_root_dir=tmp_path
        )
        trainer.fit(toy_module(tasks=tasks), loader, loader)
        found.append(monitor.history)
    assert found[0].entries == ("size/even", "size/odd", "marks")
    assert found[0].column("norms").isfinite().all()
    for name in ("norms", "cosines"):
        torch.testing.assert_close(found[0].column(name), found[1].column(name))


def test_writes_csv_and_pictures_into_the_run_folder(tmp_path, pictures):
    monitor = GradientMonitor(every_n_steps=2, draw_every_n_epochs=1)
    drawn = []

    class Watch(L.Callback):
        def on_train_epoch_end(self, *_):
            drawn.append((tmp_path / "conflicts.png").exists())

    fit(PCGrad(), monitor, Watch(), default_root_dir=tmp_path)
    assert drawn == [True, True]
    rows = list(csv.DictReader((tmp_path / "gradients.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["1", "3", "5", "7", "9", "11"]
    assert all(row["weight/marks"] for row in rows)
    assert (tmp_path / "gradients.png").stat().st_size > 1000


def test_nothing_is_written_under_fast_dev_run(tmp_path, pictures):
    monitor = GradientMonitor(every_n_steps=1)
    fit(monitor, fast_dev_run=True, default_root_dir=tmp_path)
    assert len(monitor.history.records) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_there_is_is_written_when_a_run_dies(tmp_path, pictures):
    class Die(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 3:
                raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fit(GradientMonitor(every_n_steps=1), Die(), default_root_dir=tmp_path)
    assert len((tmp_path / "gradients.csv").read_text().splitlines()) == 4


def test_history_goes_on_after_a_resume(tmp_path):
    def saver():
        return ModelCheckpoint(tmp_path / "ckpt", every_n_train_steps=6, filename="half")

    options = {"default_root_dir": tmp_path, "max_steps": 12}
    whole, first, second = (GradientMonitor(every_n_steps=2) for _ in range(3))
    fit(whole, **options)
    options["enable_checkpointing"] = True
    fit(first, saver(), **(options | {"max_steps": 6}))
    path = tmp_path / "ckpt" / "half.ckpt"
    torch.load(path, weights_only=True)
    with pytest.warns(UserWarning, match="exists and is not empty"):
        fit(second, saver(), ckpt_path=path, **options)
    assert second.history.column("step").tolist() == [1, 3, 5, 7, 9, 11]
    assert second.history.as_csv() == whole.history.as_csv()


def scaled(scale: float) -> MixedPrecision:
    class Full(MixedPrecision):
        """The scaler of 16-mixed without its casts, so that only the scale differs."""

        def forward_context(self):
            return torch.autocast("cpu", enabled=False)

    return Full("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))


def test_the_loss_scale_is_taken_off(tmp_path):
    plain, other = GradientMonitor(every_n_steps=1), GradientMonitor(every_n_steps=1)
    fit(plain, max_steps=4, default_root_dir=tmp_path)
    fit(other, max_steps=4, plugins=scaled(1024.0), default_root_dir=tmp_path)
    torch.testing.assert_close(other.history.column("norms"), plain.history.column("norms"))


def test_overflows_leave_no_record(tmp_path):
    monitor = GradientMonitor(every_n_steps=1)
    module = toy_module()
    torch.nn.init.constant_(module.network.decoders["size"].linear.weight, 1e6)
    before = parameters_of(module)
    fit(monitor, module=module, max_steps=2, plugins=scaled(1e38), default_root_dir=tmp_path)
    assert monitor.history.records == []
    assert torch.equal(parameters_of(module), before)


def test_bf16(tmp_path):
    plain, other = GradientMonitor(every_n_steps=1), GradientMonitor(every_n_steps=1)
    fit(plain, max_steps=1, default_root_dir=tmp_path)
    fit(other, max_steps=1, precision="bf16-mixed", default_root_dir=tmp_path)
    torch.testing.assert_close(
        other.history.column("cosines"), plain.history.column("cosines"), rtol=0, atol=0.05
    )


def test_hand_written_steps(tmp_path):
    class Manual(type(toy_module())):
        def training_step(self, batch, batch_idx):
            total = super().training_step(batch, batch_idx)
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(total)
            optimizer.step()

    records = []
    for kind in (type(toy_module()), Manual):
        module, monitor = toy_module(), GradientMonitor(every_n_steps=2)
        module.__class__ = kind
        module.automatic_optimization = kind is not Manual
        fit(PCGrad(), monitor, module=module, default_root_dir=tmp_path)
        records.append(monitor.history.as_csv())
    assert records[0] == records[1]


def test_a_compiled_network(tmp_path):
    plain, other = GradientMonitor(every_n_steps=1), GradientMonitor(every_n_steps=1)
    fit(plain, max_steps=2, default_root_dir=tmp_path)
    module = toy_module(compile="aot_eager")
    fit(other, module=module, max_steps=2, default_root_dir=tmp_path)
    torch.testing.assert_close(other.history.column("norms"), plain.history.column("norms"))


def test_a_frozen_trunk_leaves_no_record(tmp_path, pictures):
    monitor, module = GradientMonitor(every_n_steps=1), toy_module()
    module.network.trunk.requires_grad_(False)
    fit(monitor, module=module, max_steps=2, default_root_dir=tmp_path)
    assert monitor.history.records == []
    assert list(tmp_path.iterdir()) == []


def test_arguments_are_checked():
    for wrong, error in {
        "every_n_steps": (0, ArgumentError),
        "source": ("layers", UnknownNameError),
        "layer": ("trunk", ArgumentError),
        "draw_every_n_epochs": (-1, ArgumentError),
        "keep": (1, ArgumentError),
    }.items():
        value, kind = error if isinstance(error, tuple) else (None, error)
        with pytest.raises(kind, match=wrong):
            GradientMonitor(**{wrong: value})


def test_networks_and_modules_that_do_not_fit_are_refused(tmp_path):
    for source in ("feature", "last_layer"):
        with pytest.raises(BalancerError, match="Use source: exact"):
            fit(GradientMonitor(source=source), module=toy_module(border=False))
    with pytest.raises(UnknownNameError, match=r"trunk\.4"):
        fit(GradientMonitor(source="last_layer", layer="trunk.44"))

    class Other(L.LightningModule):
        pass

    with pytest.raises(BalancerError, match="found Other"):
        GradientMonitor().setup(toy_trainer(), Other(), "fit")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks")
    return run_ranks("gradient_worker", out, folder=Path(__file__).parent)


@pytest.mark.ddp
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_see_what_one_sees(ranks, name, tmp_path):
    """Labels are spread unevenly over the ranks."""
    wanted = train(name, 1, tmp_path)
    for rank, found in enumerate(ranks):
        for key, value in wanted.items():
            torch.testing.assert_close(found[name][key], value, rtol=1e-4, atol=1e-5)
        assert len(found[name]["files"]) == (2 if rank == 0 else 0), "only the first draws"
