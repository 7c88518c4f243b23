"""Checks of collated batches, and the loader's own accounting."""

import pickle
from multiprocessing import active_children

import numpy as np
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from mtl_core.data import ShuffleSampler, check_batch
from mtl_core.data.dataset import Fetched, SplitDataset
from mtl_core.data.loader import CheckedCollate, SampleLoader
from mtl_core.errors import ArgumentError, LabelError, UnreadableFileError
from mtl_core.tasks import Classification

TASKS = {"kind": Classification(num_classes=3)}


def item(index, kind, **entries):
    sample = {
        "inputs": np.full(2, index, np.float32),
        "targets": {"kind": kind},
        "key": f"k{index}",
    }
    return Fetched({**sample, **entries})


def loader(items, **options):
    split = SplitDataset(
        dataset=_Samples(items),
        split="train",
        tasks=TASKS,
        transform=None,
        seed=0,
        on_error="raise",
        runs=(len(items),),
    )
    return SampleLoader(split, collate_fn=CheckedCollate(TASKS), **{"batch_size": 2, **options})


class _Samples:
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if self.items[index] is None:
            raise UnreadableFileError(f"img/{index}.png", "truncated")
        return self.items[index].value


def test_unlabelled_rows_are_not_checked():
    batch = {
        "inputs": torch.zeros(3, 2),
        "targets": {"kind": torch.tensor([1, 7, 2])},
        "labelled": {"kind": torch.tensor([True, False, True])},
        "keys": ["a", "b", "c"],
    }
    check_batch(batch, TASKS)
    batch["labelled"]["kind"][1] = True
    with pytest.raises(LabelError, match=r"found \[7\] in samples b\."):
        check_batch(batch, TASKS)


def test_rows_without_keys_go_by_their_number():
    with pytest.raises(LabelError, match=r"in samples row 1\."):
        check_batch({"inputs": torch.zeros(2), "targets": {"kind": torch.tensor([0, 5])}}, TASKS)


def test_inputs_by_name_are_checked_each():
    inputs = {"age": torch.tensor([0.0, float("nan")]), "job": torch.tensor([1, 2])}
    with pytest.raises(ArgumentError, match=r"inputs\['age'\] must hold no NaN.*samples y"):
        check_batch({"inputs": inputs, "targets": {}, "keys": ["x", "y"]}, TASKS)


def test_collation_reports_the_first_error_and_all_skips():
    error = UnreadableFileError("p", "truncated")
    items = [item(0, 1), Fetched(None, ("q",)), Fetched(None, ("r",), error)]
    fetched = CheckedCollate(TASKS)(items)
    assert fetched == Fetched(None, ("q", "r"), error)
    assert CheckedCollate(TASKS)(items[1:2]) == Fetched(None, ("q",))


def test_what_crosses_the_process_border_survives_it():
    error = UnreadableFileError("img/1.png", "truncated")
    back = pickle.loads(pickle.dumps(Fetched(None, ("a",), error))).error
    assert type(back) is UnreadableFileError
    assert (str(back), back.path) == (str(error), error.path)
    assert pin_memory(Fetched({"keys": ["x"]}, ("a",), error)) == Fetched(
        {"keys": ["x"]}, ("a",), error
    )


def test_a_position_holds_for_one_iteration():
    items = [item(i, i % 3) for i in range(8)]
    sampler = ShuffleSampler(8, batch_size=2, seed=1)
    whole = [b["keys"] for b in loader(items, sampler=ShuffleSampler(8, batch_size=2, seed=1))]
    resumed = loader(items, sampler=sampler, progress=lambda: (0, 3))
    resumed.load_state_dict(resumed.state_dict())
    assert [b["keys"] for b in resumed] == whole[3:]
    assert [b["keys"] for b in resumed] == whole
    assert len(resumed) == 4


def test_a_foreign_sampler_starts_late_too():
    items = [item(i, i % 3) for i in range(6)]
    plain = loader(items, progress=lambda: (0, 2))
    plain.load_state_dict(plain.state_dict())
    assert [b["keys"] for b in plain] == [["k4", "k5"]]


def test_another_order_is_refused_within_an_epoch_only():
    items = [item(i, 0) for i in range(6)]
    finished = [0]
    sampler = ShuffleSampler(6, batch_size=2, seed=1)
    resumed = loader(items, sampler=sampler, progress=lambda: (1, finished[0]))
    other = ShuffleSampler(6, batch_size=2, seed=2).signature()
    resumed.load_state_dict(other)
    assert len(list(resumed)) == 3
    finished[0] = 1
    resumed.load_state_dict(other)
    with pytest.raises(ArgumentError, match=r"data \(seed\) must be as in the checkpoint \(2\)"):
        list(resumed)


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_end_with_an_error(persistent):
    """While somebody still holds loader and error; the next epoch has workers of its own."""
    before = set(active_children())
    items = [item(0, 0), None]
    failing = loader(items, num_workers=1, persistent_workers=persistent)
    with pytest.raises(UnreadableFileError) as caught:
        list(failing)
    assert set(active_children()) <= before
    items[1] = item(1, 1)
    assert [batch["keys"] for batch in failing] == [["k0", "k1"]]
    del failing, caught
