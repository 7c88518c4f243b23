import torch

from mtl_core.data.batch import collate
from mtl_core.modules.objective import list_entries
from mtl_core.modules.scores import Scores
from mtl_core.tasks import Classification, Regression

TASKS = {"kind": Classification(num_classes=2), "size": Regression(groups=("small", "large"))}


def batch_of(kinds, sizes, groups):
    samples = []
    for kind, size, group in zip(kinds, sizes, groups, strict=True):
        targets = {k: v for k, v in {"kind": kind, "size": size}.items() if v is not None}
        samples.append({"inputs": torch.zeros(1), "targets": targets, "group": {"size": group}})
    return collate(samples)


def logits(classes):
    return torch.nn.functional.one_hot(torch.tensor(classes), 2).float()


def scored(*pairs) -> dict[str, float]:
    scores = Scores(TASKS, list_entries(TASKS))
    for predictions, batch in pairs:
        scores.add_predictions(predictions, batch)
    return scores.compute()


def test_unlabelled_samples_are_not_scored():
    batch = batch_of([0, None, 1], [1.0, None, 5.0], [0, 0, 1])
    found = scored(({"kind": logits([0, 0, 0]), "size": torch.tensor([[1.0], [9], [2]])}, batch))
    assert found["kind/accuracy"] == 0.5
    assert found["size/mae"] == 1.5
    assert found["size/small/mae"] == 0.0
    assert found["size/large/mae"] == 3.0


def test_a_task_without_labels_has_no_value():
    found = scored(({"kind": logits([0, 1])}, batch_of([0, 1], [None, None], [0, 0])))
    assert found["kind/accuracy"] == 1.0
    assert not any(key.startswith("size") for key in found)


def test_batches_may_be_cut_anywhere():
    kinds, sizes, groups = [0, 1, None, 1], [1.0, 2.0, 3.0, None], [0, 1, 1, 0]
    answers, values = [0, 0, 1, 1], torch.tensor([[1.5], [2.0], [0.0], [7.0]])
    whole = scored(({"kind": logits(answers), "size": values}, batch_of(kinds, sizes, groups)))
    parts = scored(
        *(
            (
                {"kind": logits(answers[part]), "size": values[part]},
                batch_of(kinds[part], sizes[part], groups[part]),
            )
            for part in (slice(0, 1), slice(1, 4))
        )
    )
    assert whole.keys() == parts.keys()
    for key, value in whole.items():
        torch.testing.assert_close(value, parts[key])


def test_losses_are_weighted_by_their_labels():
    scores = Scores(TASKS, list_entries(TASKS), metrics=False)
    scores.add_losses({"kind": 1.0, "size/small": 4.0}, {"kind": 3, "size/small": 1})
    scores.add_losses({"kind": 5.0}, {"kind": 1})
    assert scores.compute() == {"kind/loss": 2.0, "size/small/loss": 4.0}
    scores.reset()
    assert scores.compute() == {}
