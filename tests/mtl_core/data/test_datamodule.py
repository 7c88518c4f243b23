"""Loaders of a data module, and what it refuses."""

from dataclasses import dataclass
from typing import ClassVar

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DistributedSampler

from mtl_core.data import MultiTaskDataModule, SampleLoader
from mtl_core.errors import (
    ArgumentError,
    EmptySplitError,
    LabelError,
    MissingTaskError,
    SampleSizeError,
    UnknownNameError,
    UnreadableFileError,
)
from mtl_core.tasks import Classification, Regression


@dataclass(frozen=True, kw_only=True)
class Map(Classification):
    """A dense task."""

    dense: ClassVar[bool] = True


TASKS = {"kind": Classification(num_classes=3), "size": Regression()}


class Samples:
    """Twenty samples unless told otherwise; `broken` ones cannot be read."""

    def __init__(self, size=20, broken=(), change=None):
        self.size, self.broken, self.change = size, set(broken), change

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index in self.broken:
            raise UnreadableFileError(f"img/{index}.png", "truncated")
        sample = {
            "inputs": np.full(4, index, np.float32),
            "targets": {"kind": index % 3, "size": np.float32(index), "extra": 1},
            "key": f"img/{index}.png",
        }
        if self.change:
            self.change(index, sample)
        return sample


def jitter(sample, generator):
    return {**sample, "inputs": sample["inputs"] + generator.random(4).astype(np.float32)}


class Data(MultiTaskDataModule):
    def __init__(self, tasks=TASKS, *, train=None, val=None, **options):
        super().__init__(tasks, **{"batch_size": 4, **options})
        self.sets = {"train": train or Samples(), "val": val or Samples(7)}

    def dataset(self, split):
        return self.sets.get(split) or Samples(7)

    def transform(self, split):
        return jitter


def epoch_of(loader, epoch=0):
    loader.sampler.set_epoch(epoch)
    return list(loader)


def keys(batches):
    return [key for batch in batches for key in batch["keys"]]


def assert_equal_batches(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a["keys"] == b["keys"]
        assert torch.equal(a["inputs"], b["inputs"])
        for name, target in a["targets"].items():
            assert torch.equal(target, b["targets"][name])


@pytest.mark.parametrize("split", ["train", "val", "test", "predict"])
def test_every_split_has_a_loader(split):
    data = Data()
    data.setup()
    batches = list(getattr(data, f"{split}_dataloader")())
    size = 20 if split == "train" else 7
    assert sorted(keys(batches)) == sorted(f"img/{i}.png" for i in range(size))
    assert batches[0]["inputs"].shape == (4, 4)
    assert set(batches[0]["targets"]) == {"kind", "size"}


def test_workers_do_not_change_a_batch():
    one, two = Data().train_dataloader(), Data(num_workers=2).train_dataloader()
    for epoch in range(3):  # the workers outlive an epoch
        assert_equal_batches(epoch_of(one, epoch), epoch_of(two, epoch))


def test_augmentation_follows_seed_epoch_and_index():
    def inputs(epoch, **options):
        batches = epoch_of(Data(**options).train_dataloader(), epoch)
        return dict(
            zip(keys(batches), torch.cat([b["inputs"] for b in batches]).tolist(), strict=True)
        )

    assert inputs(1) == inputs(1, batch_size=7)
    assert inputs(1) != inputs(2)
    assert inputs(1) != inputs(1, seed=1)


def test_evaluation_is_the_same_every_time():
    loader = Data().val_dataloader()
    assert_equal_batches(epoch_of(loader, 0), epoch_of(loader, 5))
    assert keys(loader) == [f"img/{i}.png" for i in range(7)]


def test_two_ranks_see_together_what_one_process_sees(monkeypatch):
    whole = epoch_of(Data(batch_size=16, train=Samples(40)).train_dataloader(), 2)
    halves = []
    for rank in range(2):
        data = Data(batch_size=8, train=Samples(40))
        monkeypatch.setattr(data, "replicas", lambda rank=rank: (2, rank))
        halves.append(epoch_of(data.train_dataloader(), 2))
    for step, batch in enumerate(whole):
        mine = dict(zip(batch["keys"], batch["inputs"].tolist(), strict=True))
        theirs = {}
        for half in halves:
            shard = half[step]
            theirs.update(zip(shard["keys"], shard["inputs"].tolist(), strict=True))
        assert mine == theirs


def test_lightning_keeps_our_sampler():
    for loader in (Data().train_dataloader(), Data().val_dataloader()):
        assert isinstance(loader.sampler, DistributedSampler)


def test_drop_last():
    assert [len(b["keys"]) for b in Data(batch_size=6).train_dataloader()] == [6, 6, 6, 2]
    data = Data(batch_size=6, drop_last=True)
    assert [len(b["keys"]) for b in data.train_dataloader()] == [6, 6, 6]
    assert sum(len(b["keys"]) for b in data.val_dataloader()) == 7


def test_loaders_leave_the_random_state_alone():
    state = torch.get_rng_state()
    list(Data(num_workers=1).train_dataloader())
    list(Data().val_dataloader())
    assert torch.equal(torch.get_rng_state(), state)


# Missing and partial labels


def test_a_declared_task_without_targets_is_refused():
    with pytest.raises(MissingTaskError, match=r"task 'sise' has none in split 'train' of Data"):
        Data({"kind": TASKS["kind"], "sise": Regression()}).setup("fit")
    with pytest.raises(MissingTaskError, match="Did you mean 'size'"):
        Data({"kind": TASKS["kind"], "sise": Regression()}).setup("fit")


def test_a_declaration_of_the_data_set_is_believed_without_reading_it():
    samples = Samples(broken=range(20))
    samples.tasks = ["kind", "size"]
    Data(train=samples).setup("fit")
    samples.tasks = ["kind"]
    with pytest.raises(MissingTaskError, match="'size'"):
        Data(train=samples).setup("fit")


def test_one_labelled_sample_is_enough():
    def keep_one(index, sample):
        if index != 17:
            del sample["targets"]["size"]

    data = Data(train=Samples(change=keep_one), batch_size=5)
    data.setup("fit")
    labelled = 0
    for batch in data.train_dataloader():
        if "img/17.png" in batch["keys"]:
            assert batch["labelled"]["size"].sum() == 1
            labelled += 1
        else:
            assert "size" not in batch["targets"]
    assert labelled == 1


def test_none_is_no_target():
    def clear(index, sample):
        sample["targets"]["size"] = None

    with pytest.raises(MissingTaskError, match="'size'"):
        Data(train=Samples(change=clear)).setup("fit")


def test_prediction_needs_no_targets():
    class Unlabelled(Data):
        def dataset(self, split):
            return Samples(5, change=lambda i, s: s.update(targets={}))

    data = Unlabelled()
    data.setup("predict")
    assert [batch["targets"] for batch in data.predict_dataloader()] == [{}, {}]


def test_an_empty_split_is_refused():
    with pytest.raises(EmptySplitError, match="'val' is empty in Data"):
        Data(val=Empty()).setup("fit")


class Empty(Samples):
    def __init__(self):
        super().__init__(0)

    def __bool__(self):
        return True


# Bad values, seen from the main process whatever the number of workers


@pytest.mark.parametrize("workers", [0, 2])
def test_a_class_out_of_range_names_task_and_sample(workers):
    def spoil(index, sample):
        if index == 5:
            sample["targets"]["kind"] = 9

    loader = Data(val=Samples(7, change=spoil), num_workers=workers).val_dataloader()
    with pytest.raises(
        LabelError, match=r"'kind' must lie in 0\.\.2, found \[9\] in samples img/5"
    ):
        list(loader)


def test_nan_in_a_target():
    def spoil(index, sample):
        if index in (2, 3):
            sample["targets"]["size"] = np.float32("nan")

    with pytest.raises(LabelError, match=r"'size' must be finite.*samples img/2\.png, img/3\.png"):
        list(Data(val=Samples(7, change=spoil)).val_dataloader())


@pytest.mark.parametrize("workers", [0, 1])
def test_nan_in_an_input(workers):
    def spoil(index, sample):
        if index == 6:
            sample["inputs"][2] = np.nan

    loader = Data(val=Samples(7, change=spoil), num_workers=workers).val_dataloader()
    with pytest.raises(ArgumentError, match=r"inputs must hold no NaN.*img/6\.png"):
        list(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mask_of_another_size_is_refused_before_the_transform(workers):
    def spoil(index, sample):
        sample["inputs"] = np.zeros((6, 8, 3), np.uint8)
        sample["targets"]["map"] = np.zeros((6, 8) if index < 3 else (8, 6), np.uint8)

    def never(sample, generator):
        assert sample["targets"]["map"].shape == (6, 8)
        return sample

    tasks = {"map": Map(num_classes=2)}
    data = Data(tasks, val=Samples(7, change=spoil), batch_size=1, num_workers=workers)
    data.transform = lambda split: never
    with pytest.raises(SampleSizeError, match=r"'map' has \(8, 6\).*\(6, 8\).*'img/3\.png'"):
        list(data.val_dataloader())


def test_targets_of_different_shapes_name_the_samples():
    def spoil(index, sample):
        if index == 1:
            sample["inputs"] = np.zeros(5, np.float32)

    data = Data(val=Samples(7, change=spoil))
    data.transform = lambda split: None
    with pytest.raises(LabelError, match=r"one shape within a batch.*samples img/0\.png, img/1"):
        list(data.val_dataloader())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_file_is_named(workers):
    data = Data(val=Samples(7, broken=[3]), num_workers=workers)
    try:
        list(data.val_dataloader())
    except UnreadableFileError as error:
        found = error.path.as_posix(), str(error)
    assert found[0] == "img/3.png"
    assert "img/3.png: truncated" in found[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_in_training_the_next_sample_takes_the_place_of_an_unreadable_one(workers):
    data = Data(train=Samples(broken=[3, 4, 19]), on_error="skip", num_workers=workers)
    loader = data.train_dataloader()
    seen = keys(epoch_of(loader))
    assert len(seen) == 20
    assert seen.count("img/5.png") == 3
    assert seen.count("img/0.png") == 2
    counts = {"img/3.png": 1, "img/4.png": 2, "img/19.png": 1}
    assert data.skipped == counts
    epoch_of(loader, 1)
    assert data.skipped == {path: 2 * count for path, count in counts.items()}


@pytest.mark.parametrize("workers", [0, 2])
def test_in_evaluation_an_unreadable_sample_is_left_out(workers):
    data = Data(val=Samples(9, broken=[1, 4, 5, 6, 7]), on_error="skip", num_workers=workers)
    batches = list(data.val_dataloader())
    assert [b["keys"] for b in batches] == [["img/0.png", "img/2.png", "img/3.png"], ["img/8.png"]]
    assert data.skipped == {f"img/{i}.png": 1 for i in (1, 4, 5, 6, 7)}


def test_nothing_readable_is_an_error():
    unreadable = Samples(5, broken=range(5))
    unreadable.tasks = list(TASKS)
    data = Data(train=unreadable, val=unreadable, on_error="skip")
    with pytest.raises(EmptySplitError, match=r"'train' is empty in readable files"):
        list(data.train_dataloader())
    with pytest.raises(EmptySplitError, match=r"'val' is empty in readable files"):
        list(data.val_dataloader())


def test_skips_go_on_counting_after_a_resume():
    data = Data(train=Samples(broken=[3]), on_error="skip")
    loader = data.train_dataloader()
    data.load_state_dict({"skipped": {"img/3.png": 4}})
    list(loader)
    assert data.state_dict() == {"skipped": {"img/3.png": 5}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, found 0"),
        ({"num_workers": -1}, "num_workers must be at least 0, found -1"),
        ({"seed": -1}, "seed must be at least 0, found -1"),
        ({"drop_last": True, "batch_size": 21}, "batch_size must be at most 20 with drop_last"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ArgumentError, match=message):
        Data(**options).train_dataloader()


def test_unknown_policy():
    with pytest.raises(UnknownNameError, match=r"found .skpi.\. Did you mean skip"):
        Data(on_error="skpi")


# Under a trainer


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch["keys"])
        return self.net(batch["inputs"]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.net(batch["inputs"])

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        return batch["keys"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.001)


def trainer(**options):
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 2, **options},
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_fit_validate_test_predict(workers):
    module, data, runner = Net(), Data(num_workers=workers), trainer()
    runner.fit(module, data)
    loader = Data().train_dataloader()
    assert module.seen == [b["keys"] for e in range(2) for b in epoch_of(loader, e)]
    runner.validate(module, data, verbose=False)
    runner.test(module, data, verbose=False)
    predicted = [key for batch in runner.predict(module, data) for key in batch]
    assert predicted == [f"img/{i}.png" for i in range(7)]
    assert keys(data.train_dataloader())  # usable afterwards, from the start
    assert len(keys(data.train_dataloader())) == 20


def test_a_loader_can_be_used_beside_the_one_in_training():
    class Look(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            assert len(keys(trainer.datamodule.train_dataloader())) == 20

    module = Net()
    runner = trainer(max_epochs=1)
    runner.callbacks.append(Look())
    runner.fit(module, Data())
    assert len(module.seen) == 5


@pytest.mark.filterwarnings("ignore:You requested to overfit but enabled")
def test_overfitting_repeats_the_same_batches():
    module = Net()
    trainer(overfit_batches=2).fit(module, Data())
    assert module.seen == 2 * [[f"img/{i}.png" for i in range(s, s + 4)] for s in (0, 4)]


def test_all_files_of_a_validation_batch_unreadable():
    data = Data(val=Samples(9, broken=[4, 5, 6, 7]), on_error="skip")
    module = Net()
    trainer(num_sanity_val_steps=0).fit(module, data)
    assert data.skipped == dict.fromkeys((f"img/{i}.png" for i in range(4, 8)), 2)


def test_loaders_are_of_our_kind():
    assert isinstance(Data().test_dataloader(), SampleLoader)
    assert not Data().test_dataloader().pin_memory or torch.cuda.is_available()
