import pytest
import torch
from toys import toy_module, toy_samples

from mtl_core.data.batch import collate
from mtl_core.errors import ArgumentError, LabelError
from mtl_core.modules.objective import check_groups, entry_losses, label_mask, list_entries
from mtl_core.nn import Outputs
from mtl_core.tasks import Regression


def losses_of(tasks, batch, predictions, **kwargs):
    return entry_losses(list_entries(tasks), tasks, Outputs(predictions, **kwargs), batch)


def test_unlabelled_samples_do_not_matter():
    module, samples = toy_module(), toy_samples(12)
    batch = collate(samples)
    out = module.network.run(batch["inputs"])
    losses, counts = entry_losses(module._entries, module.tasks, out, batch)
    for name in module.tasks:
        known = [s for s in samples if name in s["targets"]]
        part = collate([s | {"targets": {name: s["targets"][name]}} for s in known])
        alone, number = entry_losses(
            module._entries, module.tasks, module.network.run(part["inputs"]), part
        )
        torch.testing.assert_close(losses[name], alone[name])
        assert counts[name] == number[name]


def test_static_weights_and_intermediate_predictions():
    tasks = {"a": Regression(weight=3.0)}
    batch = {"inputs": torch.zeros(4, 1), "targets": {"a": torch.zeros(4)}}
    ones = torch.ones(4, 1)
    assert losses_of(tasks, batch, {"a": ones})[0]["a"] == 3.0
    losses, _ = losses_of(tasks, batch, {"a": ones}, intermediate={"a": (2 * ones, 0 * ones)})
    assert losses["a"] == 3.0 * (1 + 4 + 0)


def test_validity_combines_with_labels():
    tasks = {"a": Regression(dim=3)}
    batch = {
        "inputs": torch.zeros(2, 1),
        "targets": {"a": torch.tensor([[1.0, 2, 3], [4, 5, 6]])},
        "valid": {"a": torch.tensor([[True, False, True], [True, True, True]])},
        "labelled": {"a": torch.tensor([True, False])},
    }
    assert label_mask(tasks["a"], "a", batch).tolist() == [[True, False, True], [False] * 3]
    losses, counts = losses_of(tasks, batch, {"a": torch.zeros(2, 3)})
    assert counts["a"] == 2
    assert losses["a"] == 5.0
    batch["valid"]["a"] = torch.ones(2, dtype=torch.bool)
    with pytest.raises(LabelError, match=r"validity mask of shape \(2, 3\)"):
        label_mask(tasks["a"], "a", batch)


def test_groups_split_the_mean():
    tasks = {"a": Regression(groups=("even", "odd"))}
    batch = {
        "inputs": torch.zeros(4, 1),
        "targets": {"a": torch.tensor([1.0, 2, 3, 4])},
        "group": {"a": torch.tensor([0, 1, 0, 1])},
    }
    losses, counts = losses_of(tasks, batch, {"a": torch.zeros(4, 1)})
    assert losses == {"a/even": torch.tensor(5.0), "a/odd": torch.tensor(10.0)}
    assert counts == {"a/even": torch.tensor(2.0), "a/odd": torch.tensor(2.0)}
    check_groups(tasks, batch)
    with pytest.raises(LabelError, match=r"have a group in 0..1, found \[2\]"):
        check_groups(tasks, batch | {"group": {"a": torch.tensor([0, 1, 2, 1])}})
    with pytest.raises(ArgumentError, match="group of every sample for task 'a'"):
        check_groups(tasks, {"inputs": batch["inputs"], "targets": batch["targets"]})
