"""Two gloo processes see the rows that one sees, and end with the same network."""

import pytest
import torch
from processes import run_ranks
from table_worker import PREDICTED, ROWS, STEP, VALIDATED, train

pytestmark = pytest.mark.ddp


@pytest.fixture(scope="module")
def one() -> dict:
    """What one process ends with."""
    return train(1)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> list[dict]:
    """What both processes ended with."""
    out = tmp_path_factory.mktemp("ddp")
    found = run_ranks("table_worker", out)
    assert len(list((out / "cache").iterdir())) == 3
    return found


STORAGES = pytest.mark.parametrize("storage", ["memory", "disk"])


@STORAGES
def test_steps_hold_the_same_rows(both, one, storage):
    shares = zip(*(rank[storage]["rows"]["train"] for rank in both), strict=True)
    steps = [torch.cat(step).sort().values.tolist() for step in shares]
    assert steps == [step.sort().values.tolist() for step in one["rows"]["train"]]
    assert [len(step) for step in steps] == [STEP, STEP, STEP, ROWS - 3 * STEP] * 2
    assert sorted(row for step in steps[:4] for row in step) == list(range(ROWS))
    assert [len(r[storage]["rows"]["train"][-1]) for r in both] == [2, 1]


@STORAGES
@pytest.mark.parametrize(("split", "rows"), [("val", VALIDATED), ("predict", PREDICTED)])
def test_every_row_is_evaluated_once_an_epoch(both, storage, split, rows):
    seen = torch.cat([torch.cat(rank[storage]["rows"][split]) for rank in both])
    epochs = 1 if split == "predict" else 2
    assert sorted(seen.tolist()) == sorted(list(range(rows)) * epochs)


@STORAGES
def test_networks_end_alike(both, one, storage):
    first, second = (rank[storage]["parameters"] for rank in both)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, one["parameters"], rtol=1e-4, atol=1e-6)


@STORAGES
def test_scores_are_those_of_one_process(both, one, storage):
    expected = {name: value for name, value in one["scores"].items() if name.startswith("val/")}
    assert len(expected) > 6
    for rank in both:
        found = {name: rank[storage]["scores"][name] for name in expected}
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4, nan_ok=True)
