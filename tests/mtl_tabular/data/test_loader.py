"""Orders of rows, and whole batches through loaders, workers, Lightning and restarts."""

from functools import partial
from itertools import chain, pairwise

import lightning as L
import numpy as np
import pytest
import torch
from toy_tables import wide_frame, wide_tasks
from toys import parameters_of, toy_trainer

from mtl_core.data.sampler import ShuffleSampler
from mtl_core.errors import ArgumentError
from mtl_core.modules import MultiTaskModule
from mtl_tabular.data import TableDataModule
from mtl_tabular.data.loader import OrderedRows, ShuffledRows
from mtl_tabular.networks import SharedBottom


def order_of(sampler, epoch=0) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return [positions.tolist() for positions in sampler]


def flat(lists) -> list[int]:
    return list(chain.from_iterable(lists))


def ready(**options) -> TableDataModule:
    data = TableDataModule(
        wide_tasks(), table=wide_frame(missing=True), **{"batch_size": 16, **options}
    )
    data.fit()
    data.setup()
    return data


def prices(loader) -> list[torch.Tensor]:
    return [batch["targets"]["price"] for batch in loader]


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_order_is_that_of_single_rows(replicas, drop_last):
    for rank in range(replicas):
        options = {"num_replicas": replicas, "rank": rank, "drop_last": drop_last, "seed": 3}
        rows = ShuffledRows(53, batch_size=8, **options)
        single = ShuffleSampler(53, batch_size=8, **options)
        single.set_epoch(2)
        found = order_of(rows, 2)
        assert flat(found) == [index for _, index in single]
        assert len(rows) == len(found)


def test_processes_see_together_what_one_sees():
    one = order_of(ShuffledRows(64, batch_size=8, seed=1), 4)
    two = [
        order_of(ShuffledRows(64, batch_size=4, seed=1, num_replicas=2, rank=r), 4) for r in (0, 1)
    ]
    for step, rows in enumerate(one):
        assert set(rows) == set(two[0][step]) | set(two[1][step])


def test_epoch_can_start_at_any_batch():
    sampler = ShuffledRows(50, batch_size=8)
    whole = order_of(sampler)
    sampler.start_batch = 3
    assert order_of(sampler) == whole[3:]
    assert order_of(sampler) == whole


def test_blocks_are_permuted_and_stay_together():
    sampler = ShuffledRows(103, batch_size=5, block=20)
    order = flat(order_of(sampler))
    assert sorted(order) == list(range(103))
    assert order != flat(order_of(sampler, 1))
    blocks = [index // 20 for index in order]
    assert sum(a != b for a, b in pairwise(blocks)) == 5
    assert blocks != sorted(blocks)


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_evaluation_sees_every_row_once(replicas):
    shares = [
        order_of(OrderedRows(29, batch_size=4, num_replicas=replicas, rank=rank))
        for rank in range(replicas)
    ]
    assert sorted(flat(map(flat, shares))) == list(range(29))
    assert all(flat(share) == sorted(flat(share)) for share in shares)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_workers_change_nothing():
    alone, helped = ready(), ready(num_workers=2)
    for name in ("train", "val", "predict"):
        loaders = [getattr(data, f"{name}_dataloader")() for data in (alone, helped)]
        for a, b in zip(*loaders, strict=True):
            assert torch.equal(a["inputs"]["categorical"], b["inputs"]["categorical"])
            assert a.get("keys") == b.get("keys")


def module_of(data) -> MultiTaskModule:
    torch.manual_seed(0)
    network = partial(SharedBottom, schema=data.schema, shared=(8,), tower=(8,), dropout=0.0)
    return MultiTaskModule(data.tasks, network, partial(torch.optim.AdamW, lr=1e-2))


class Stop(L.Callback):
    """Breaks off in a batch of the second epoch, after a checkpoint."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 3:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt


def test_resumed_within_an_epoch_equals_one_go(tmp_path):
    data = ready()
    whole = module_of(data)
    toy_trainer(max_epochs=3).fit(whole, datamodule=data)
    path = tmp_path / "stop.ckpt"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        toy_trainer(Stop(path), max_epochs=3).fit(module_of(data), datamodule=ready())
    resumed = module_of(data)
    toy_trainer(max_epochs=3).fit(resumed, datamodule=ready(), ckpt_path=path, weights_only=False)
    assert torch.equal(parameters_of(resumed), parameters_of(whole))
    with pytest.raises(ArgumentError, match="shuffle_block"):
        toy_trainer(max_epochs=3).fit(
            module_of(data), datamodule=ready(shuffle_block=8), ckpt_path=path, weights_only=False
        )


class Seen(L.Callback):
    """Sizes of training batches."""

    def __init__(self):
        self.sizes = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.sizes.append(len(batch["targets"]["price"]))


def test_trainer_limits_and_overfitting():
    data = ready()
    seen = Seen()
    toy_trainer(seen, max_epochs=1, limit_train_batches=3).fit(module_of(data), datamodule=data)
    assert seen.sizes == [16, 16, 16]
    seen = Seen()
    with pytest.warns(UserWarning, match="overfit"):
        toy_trainer(seen, max_epochs=2, overfit_batches=2).fit(module_of(data), datamodule=data)
    assert seen.sizes == [16, 16, 16, 16]


class Writer(L.pytorch.callbacks.BasePredictionWriter):
    """Keeps keys; there is a warning where Lightning does not know what is predicted."""

    def __init__(self):
        super().__init__("batch")
        self.keys = []

    def write_on_batch_end(self, trainer, module, prediction, indices, batch, *rest):
        self.keys += prediction["keys"]


def test_predictions_come_once_in_order_under_a_trainer():
    data = ready()
    writer = Writer()
    toy_trainer(writer).predict(module_of(data), datamodule=data)
    parts = data.prepared("predict").dataset.chosen
    assert writer.keys == [str(row) for row in parts]
    assert np.all(np.diff(parts) > 0)
