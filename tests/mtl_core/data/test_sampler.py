"""Order, sharing among processes, and resuming within an epoch."""

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from mtl_core.callbacks.random_state import RandomState
from mtl_core.data import EvaluationSampler, MultiTaskDataModule, ShuffleSampler
from mtl_core.errors import ArgumentError, EmptySplitError
from mtl_core.tasks import Regression

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def steps(entries, batch_size):
    return [set(entries[i : i + batch_size]) for i in range(0, len(entries), batch_size)]


def test_an_epoch_is_every_sample_once_and_epochs_differ():
    sampler = ShuffleSampler(23, batch_size=4, seed=3)
    first, second = epoch_of(sampler, 0), epoch_of(sampler, 1)
    assert sorted(i for _, i in first) == list(range(23)) == sorted(i for _, i in second)
    assert [i for _, i in first] != [i for _, i in second]
    assert {e for e, _ in second} == {1}
    assert epoch_of(ShuffleSampler(23, batch_size=9, seed=3), 1) == second
    assert epoch_of(ShuffleSampler(23, batch_size=4, seed=4), 0) != first


@pytest.mark.parametrize("size", [64, 61, 50])
def test_two_ranks_see_together_what_one_process_sees(size):
    one = ShuffleSampler(size, batch_size=16)
    two = [ShuffleSampler(size, batch_size=8, num_replicas=2, rank=rank) for rank in range(2)]
    together = [a | b for a, b in zip(*(steps(list(s), 8) for s in two), strict=True)]
    assert together == steps(list(one), 16)
    assert sum(len(s) for s in two) == size


@pytest.mark.parametrize("size", [1, 2, 16, 17, 18, 33, 34])
@pytest.mark.parametrize("ranks", [2, 3])
def test_every_rank_takes_part_in_every_step(size, ranks):
    shards = [ShuffleSampler(size, batch_size=8, num_replicas=ranks, rank=r) for r in range(ranks)]
    assert len({-(-len(s) // 8) for s in shards}) == 1
    assert all(len(list(s)) == len(s) > 0 for s in shards)
    assert {i for s in shards for _, i in s} == set(range(size))


def test_drop_last_leaves_whole_steps():
    shards = [
        ShuffleSampler(37, batch_size=4, num_replicas=2, rank=r, drop_last=True) for r in (0, 1)
    ]
    assert [len(list(s)) for s in shards] == [16, 16]
    with pytest.raises(ArgumentError, match="batch_size must be at most 3 with drop_last"):
        ShuffleSampler(3, batch_size=4, drop_last=True)


@pytest.mark.parametrize("start", [0, 1, 3])
def test_an_epoch_can_start_at_any_batch_once(start):
    sampler = ShuffleSampler(30, batch_size=4, num_replicas=2, rank=1)
    whole = epoch_of(sampler, 2)
    sampler.start_batch = start
    assert list(sampler) == whole[4 * start :]
    assert len(sampler) == len(whole)
    assert list(sampler) == whole


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("runs", [(10,), (7, 5, 1)])
def test_evaluation_counts_every_sample_once(ranks, runs):
    shards = [
        EvaluationSampler(runs, batch_size=4, num_replicas=ranks, rank=r) for r in range(ranks)
    ]
    seen = sorted(i for s in shards for i in s if i is not None)
    assert seen == list(range(sum(runs)))
    ends = np.cumsum(runs)
    for shard in shards:
        for step in steps(list(shard), 4):
            sources = {int(np.searchsorted(ends, i, side="right")) for i in step if i is not None}
            assert len(sources) <= 1


def test_bad_arguments():
    with pytest.raises(ArgumentError, match=r"rank must lie in 0\.\.1, found 2"):
        ShuffleSampler(4, batch_size=2, num_replicas=2, rank=2)
    with pytest.raises(ArgumentError, match=r"rank must lie in 0\.\.1, found 2"):
        EvaluationSampler([4], batch_size=2, num_replicas=2, rank=2)
    with pytest.raises(EmptySplitError):
        ShuffleSampler(0, batch_size=2)


class Points:
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        x = np.array([index, index % 3, 1], np.float32) / self.size
        return {"inputs": x, "targets": {"y": np.float32(index / self.size)}, "key": str(index)}


def jitter(sample, generator):
    return {**sample, "inputs": sample["inputs"] + generator.normal(0, 0.1, 3).astype(np.float32)}


class Data(MultiTaskDataModule):
    def dataset(self, split):
        return Points(22 if split == "train" else 5)

    def transform(self, split):
        return jitter if split == "train" else None


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch["keys"]))
        return ((self.net(batch["inputs"])[:, 0] - batch["targets"]["y"]) ** 2).mean()

    def validation_step(self, batch, batch_idx):
        self.net(batch["inputs"])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.05)


class Kill(L.Callback):
    """Stops the run behind a number of batches, or in the middle of one, as a crash would."""

    def __init__(self, batches):
        self.left = batches

    def on_train_batch_start(self, *_):
        self.left -= 1
        if self.left < 0:
            raise ConnectionAbortedError


def train(path, *, seed, kill=None, resume=None, every=None, workers=0, batch_size=4, **options):
    torch.manual_seed(seed)
    data = Data({"y": Regression()}, batch_size=batch_size, num_workers=workers, seed=5)
    module = Net()
    checkpoints = ModelCheckpoint(
        path, filename="{step}", every_n_train_steps=every, save_top_k=-1, save_on_exception=True
    )
    trainer = L.Trainer(
        callbacks=[RandomState(), checkpoints] + ([Kill(kill)] if kill else []),
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 3, **options},
    )
    try:
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    except ConnectionAbortedError:
        assert kill
    return module


def assert_equal_runs(whole, resumed):
    """The resumed run saw the end of the whole one and ends with its parameters, bit by bit."""
    assert resumed.seen
    assert resumed.seen == whole.seen[-len(resumed.seen) :]
    for (name, a), b in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b), name


# An epoch has 6 batches of 4, 4, 4, 4, 4 and 2 samples.
@pytest.mark.parametrize(
    ("step", "options"),
    [
        (2, {}),
        (6, {}),
        (9, {}),
        (9, {"max_epochs": -1, "max_steps": 16}),
        (6, {"max_epochs": -1, "max_steps": 16}),
        (8, {"val_check_interval": 2}),
        (5, {"accumulate_grad_batches": 2}),
        (6, {"limit_train_batches": 4}),
        (8, {"limit_train_batches": 4}),
        (8, {"reload_dataloaders_every_n_epochs": 1}),
    ],
)
def test_killed_and_resumed_is_unbroken(tmp_path, step, options):
    whole = train(tmp_path / "whole", seed=0, every=step, **options)
    factor = options.get("accumulate_grad_batches", 1)
    train(tmp_path / "a", seed=0, every=step, kill=(step + 1) * factor, **options)
    saved = tmp_path / "a" / f"step={step}.ckpt"
    assert_equal_runs(whole, train(tmp_path / "a", seed=99, every=step, resume=saved, **options))


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (4, {"val_check_interval": 2}),  # behind a validation within the epoch
        (10, {"val_check_interval": 2}),
        (6, {"max_epochs": -1, "max_steps": 16}),  # at an epoch's end, for a run counted in steps
        (12, {"max_epochs": -1, "max_steps": 16}),
        (6, {"accumulate_grad_batches": 2}),
    ],
)
def test_checkpoints_that_validation_and_epochs_trigger(tmp_path, step, options):
    whole = train(tmp_path / "whole", seed=0, **options)
    factor = options.get("accumulate_grad_batches", 1)
    train(tmp_path / "a", seed=0, kill=step * factor + 1, **options)
    saved = tmp_path / "a" / f"step={step}.ckpt"
    assert_equal_runs(whole, train(tmp_path / "a", seed=99, resume=saved, **options))


@pytest.mark.parametrize("options", [{}, {"max_epochs": -1, "max_steps": 16}])
def test_killed_twice(tmp_path, options):
    whole = train(tmp_path / "whole", seed=0, **options)
    train(tmp_path / "a", seed=0, kill=7, **options)
    again = {"resume": tmp_path / "a" / "step=6.ckpt", "kill": 4}
    train(tmp_path / "a", seed=98, **again, **options)
    saved = tmp_path / "a" / "step=10.ckpt"
    assert_equal_runs(whole, train(tmp_path / "a", seed=99, resume=saved, **options))


@pytest.mark.slow
@pytest.mark.parametrize("step", [6, 9])
def test_prefetching_does_not_matter(tmp_path, step):
    whole = train(tmp_path / "whole", seed=0, every=step)
    train(tmp_path / "a", seed=0, every=step, kill=step + 1, workers=2)
    saved = tmp_path / "a" / f"step={step}.ckpt"
    assert_equal_runs(whole, train(tmp_path / "a", seed=99, every=step, resume=saved, workers=2))


@pytest.mark.parametrize("workers", [0, 1])
def test_checkpoint_of_an_epoch_end(tmp_path, workers):
    whole = train(tmp_path / "whole", seed=0)
    train(tmp_path / "a", seed=0, max_epochs=2)
    saved = tmp_path / "a" / "step=12.ckpt"
    resumed = train(tmp_path / "a", seed=99, resume=saved, workers=workers)
    assert len(resumed.seen) == 6
    assert_equal_runs(whole, resumed)


def test_the_batch_that_an_exception_interrupted_is_seen_again(tmp_path):
    whole = train(tmp_path / "whole", seed=0)
    train(tmp_path / "a", seed=0, kill=8)
    resumed = train(tmp_path / "a", seed=99, resume=tmp_path / "a" / "step=8.ckpt")
    assert len(resumed.seen) == 10
    assert_equal_runs(whole, resumed)


def test_a_changed_batch_size_within_an_epoch_is_refused(tmp_path):
    train(tmp_path, seed=0, every=2, kill=3)
    with pytest.raises(
        ArgumentError, match=r"samples per step\) must be as in the checkpoint \(4\)"
    ):
        train(tmp_path, seed=0, every=2, resume=tmp_path / "step=2.ckpt", batch_size=3)
