"""Several data sets as one."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from mtl_core.callbacks.random_state import RandomState
from mtl_core.data import MultiSource, MultiTaskDataModule
from mtl_core.errors import (
    ArgumentError,
    EmptySplitError,
    MissingTaskError,
    UnknownNameError,
    UnreadableFileError,
)
from mtl_core.tasks import Classification, Regression, Task

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")

TASKS = {"kind": Classification(num_classes=3), "size": Regression()}
OFFERS = {"a": ["kind"], "b": ["size"]}


class Samples:
    def __init__(self, name, size, width, broken, tasks):
        self.name, self.size, self.width, self.broken = name, size, width, broken
        self.tasks = tasks

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index in self.broken:
            raise UnreadableFileError(f"{self.name}/{index}", "truncated")
        return {
            "inputs": np.full(self.width, index / self.size, np.float32),
            "targets": {"kind": index % 3, "size": np.float32(index)},
            "key": f"{self.name}/{index}",
        }


class Source(MultiTaskDataModule):
    """A source of samples named after it, with noise of its own scale."""

    def __init__(
        self,
        tasks: dict[str, Task],
        *,
        name: str = "a",
        train: int = 12,
        val: int = 5,
        width: int = 4,
        noise: float = 0.1,
        broken: tuple[int, ...] = (),
        labels: tuple[str, ...] = ("kind", "size"),
    ) -> None:
        super().__init__(tasks)
        self.name, self.train, self.val, self.width = name, train, val, width
        self.noise, self.broken, self.labels = noise, broken, labels

    def dataset(self, split):
        size = self.train if split == "train" else self.val
        return Samples(f"{self.name}/{split}", size, self.width, self.broken, self.labels)

    def transform(self, split):
        return self.jitter if self.noise else None

    def jitter(self, sample, generator):
        noise = generator.normal(0, self.noise, self.width).astype(np.float32)
        return {**sample, "inputs": sample["inputs"] + noise}


def source(**options):
    return lambda tasks: Source(tasks, **options)


def data(a=None, b=None, **options):
    sources = {
        "a": source(**{"name": "a", "train": 24, **(a or {})}),
        "b": source(**{"name": "b", "train": 8, "noise": 0.0, **(b or {})}),
    }
    return MultiSource(TASKS, sources=sources, **{"offers": OFFERS, "batch_size": 4, **options})


def epoch_of(loader, epoch=0):
    loader.sampler.set_epoch(epoch)
    return list(loader)


def keys(batches):
    return [key for batch in batches for key in batch["keys"]]


def test_a_mixed_batch_holds_the_labels_of_each_source():
    batches = epoch_of(data().train_dataloader())
    assert sorted(keys(batches)) == sorted(
        [f"a/train/{i}" for i in range(24)] + [f"b/train/{i}" for i in range(8)]
    )
    assert any(len(set(b["tags"]["source"].tolist())) == 2 for b in batches)
    for batch in batches:
        of_b = torch.tensor([key.startswith("b") for key in batch["keys"]])
        assert torch.equal(batch["tags"]["source"], of_b.long())
        for name, mine in (("kind", ~of_b), ("size", of_b)):
            if not mine.any():
                assert name not in batch["targets"]
            elif not mine.all():
                assert torch.equal(batch["labelled"][name], mine)


def test_a_source_receives_the_tasks_it_offers():
    received = {}

    def factory(name):
        def build(tasks):
            received[name] = list(tasks)
            return Source(tasks)

        return build

    MultiSource(TASKS, sources={n: factory(n) for n in ("a", "b", "c")}, offers=OFFERS)
    assert received == {"a": ["kind"], "b": ["size"], "c": ["kind", "size"]}


def test_uniform_mixing_draws_sources_equally():
    batches = epoch_of(data(mixing="uniform").train_dataloader())
    assert np.bincount(torch.cat([b["tags"]["source"] for b in batches])).tolist() == [16, 16]


def test_temperature_mixing_lies_between():
    batches = epoch_of(data(mixing="temperature", temperature=2.0).train_dataloader())
    counts = np.bincount(torch.cat([b["tags"]["source"] for b in batches]))
    assert 8 < counts[1] < 16
    assert counts.sum() == 32


def test_alternating_batches_may_differ_in_size():
    batches = epoch_of(data(b={"width": 6}, batches="alternating").train_dataloader())
    assert {(b["tags"]["source"].unique().item(), b["inputs"].shape[1]) for b in batches} == {
        (0, 4),
        (1, 6),
    }


def test_every_source_keeps_its_transform():
    module = data()
    a, b = module.prepared("train").sample(3), module.prepared("train").sample(24 + 3)
    assert len(set(a["inputs"].tolist())) == 4
    assert set(b["inputs"].tolist()) == {np.float32(3 / 8)}


def test_evaluation_is_every_sample_once_in_batches_of_one_source():
    module = data(a={"val": 6}, b={"val": 5, "width": 6})
    batches = list(module.val_dataloader())
    assert keys(batches) == [f"a/val/{i}" for i in range(6)] + [f"b/val/{i}" for i in range(5)]
    assert [len(b["keys"]) for b in batches] == [4, 2, 4, 1]
    assert [list(b["targets"]) for b in batches] == [["kind"]] * 2 + [["size"]] * 2


def test_workers_do_not_change_a_batch():
    loaders = [data(num_workers=n, mixing="uniform").train_dataloader() for n in (0, 2)]
    for epoch in range(2):
        for one, two in zip(*(epoch_of(loader, epoch) for loader in loaders), strict=True):
            assert one["keys"] == two["keys"]
            assert torch.equal(one["inputs"], two["inputs"])


@pytest.mark.parametrize("batches", ["mixed", "alternating"])
def test_two_ranks_see_together_what_one_process_sees(monkeypatch, batches):
    options = {"mixing": "uniform", "batches": batches}
    whole = epoch_of(data(batch_size=8, **options).train_dataloader(), 1)
    halves = []
    for rank in range(2):
        module = data(**options)
        monkeypatch.setattr(module, "replicas", lambda rank=rank: (2, rank))
        halves.append(epoch_of(module.train_dataloader(), 1))
    for one, first, second in zip(whole, *halves, strict=True):
        assert sorted(one["keys"]) == sorted(first["keys"] + second["keys"])


def test_an_unreadable_file_is_replaced_from_its_own_source():
    module = data(a={"broken": (23,)}, b={"width": 6}, batches="alternating", on_error="skip")
    batches = epoch_of(module.train_dataloader())
    assert "a/train/0" in keys(batches)
    assert module.skipped == {"a/train/23": 1}
    with pytest.raises(UnreadableFileError, match="a/train/23"):
        epoch_of(data(a={"broken": (23,)}).train_dataloader())


def test_prediction_needs_no_labels():
    module = data(a={"labels": ()}, b={"labels": ()})
    module.setup("predict")
    assert len(keys(module.predict_dataloader())) == 10


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"offers": {"aa": ["kind"]}}, UnknownNameError, "offers must be a known name, found 'aa'"),
        ({"offers": {"a": ["knd"]}}, UnknownNameError, r"offers\['a'\].*Did you mean kind"),
        ({"offers": {"a": ["kind"], "b": ["kind"]}}, MissingTaskError, "'size' has none in any"),
        ({"mixing": "unifrom"}, UnknownNameError, "Did you mean uniform"),
        ({"mixing": "temperature"}, ArgumentError, "temperature must be given"),
        ({"batches": "mix"}, UnknownNameError, "Did you mean mixed"),
        ({"sources": {}}, ArgumentError, "sources must name at least one source"),
    ],
)
def test_bad_arguments(options, error, message):
    sources = {"a": source(), "b": source()}
    with pytest.raises(error, match=message):
        MultiSource(TASKS, **{"sources": sources, **options})


def test_a_source_is_no_mixture_itself():
    with pytest.raises(ArgumentError, match=r"sources\['m'\] must be no MultiSource"):
        MultiSource(TASKS, sources={"m": lambda tasks: MultiSource(tasks, sources={"a": source()})})


def test_a_source_without_the_labels_it_offers_is_refused():
    with pytest.raises(MissingTaskError, match=r"'size' has none in split 'train' of source 'b'"):
        data(b={"labels": ("kind",)}).setup("fit")


def test_an_empty_source_is_refused():
    with pytest.raises(EmptySplitError, match="'val' is empty in source 'b'"):
        data(b={"val": 0}).setup("fit")


def test_sources_from_yaml():
    text = f"""
    tasks:
      kind: {{class_path: Classification, init_args: {{num_classes: 3}}}}
      size: {{class_path: Regression}}
    data:
      class_path: MultiSource
      init_args:
        mixing: uniform
        offers: {{first: [kind], second: [size]}}
        sources:
          first:
            class_path: {__name__}.Source
            init_args: {{name: x, train: 7}}
          second:
            class_path: {__name__}.Source
            init_args: {{name: y}}
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--tasks", type=dict[str, Task])
    parser.add_subclass_arguments(MultiTaskDataModule, "data")
    parser.link_arguments("tasks", "data.init_args.tasks")
    module = parser.instantiate(parser.parse_string(text)).data
    assert list(module.tasks) == ["kind", "size"]
    assert [(s.name, s.train, list(s.tasks)) for s in module.sources.values()] == [
        ("x", 7, ["kind"]),
        ("y", 12, ["size"]),
    ]


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch["keys"])
        return self.net(batch["inputs"]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.net(batch["inputs"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Kill(L.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 12:
            raise ConnectionAbortedError


@pytest.mark.parametrize("batches", ["mixed", "alternating"])
def test_killed_and_resumed_is_unbroken(tmp_path, batches):
    def train(path, *, seed, resume=None, kill=False):
        torch.manual_seed(seed)
        checkpoint = ModelCheckpoint(path, filename="{step}", every_n_train_steps=5, save_top_k=-1)
        module = Net()
        trainer = L.Trainer(
            max_epochs=3,
            callbacks=[RandomState(), checkpoint] + ([Kill()] if kill else []),
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        mixture = data(mixing="uniform", batches=batches)
        trainer.fit(module, mixture, ckpt_path=resume, weights_only=True)
        return module

    whole = train(tmp_path / "whole", seed=0)
    with pytest.raises(ConnectionAbortedError):
        train(tmp_path / "a", seed=0, kill=True)
    saved = Path(tmp_path) / "a" / "step=10.ckpt"
    resumed = train(tmp_path / "a", seed=9, resume=saved)
    assert resumed.seen == whole.seen[10:]
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
