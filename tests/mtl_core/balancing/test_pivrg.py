import json
import math

import pytest
import torch
from gramian_laws import A, random_rows
from toys import fit, toy_module

from mtl_core.balancing import PIVRG, FairGrad, Stages
from mtl_core.balancing.pivrg import priorities
from mtl_core.errors import ArgumentError, UnknownNameError

NAN = math.nan


def deficits(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_priorities_have_mean_one_and_a_bounded_ratio():
    found = priorities(deficits(-50, 0, 200), bound=2.0, least_temperature=10.0)
    assert float(found.mean()) == pytest.approx(1)
    assert float(found[2] / found[0]) == pytest.approx(2)
    small = priorities(deficits(0, 1), bound=2.0, least_temperature=10.0)
    assert float(small[1] / small[0]) == pytest.approx(math.exp(0.1))
    partly = priorities(deficits(0, NAN, 100), bound=2.0, least_temperature=10.0)
    assert partly.tolist() == pytest.approx([2 / 3, 1, 4 / 3])
    assert priorities(deficits(NAN, NAN), bound=2.0, least_temperature=10.0).tolist() == [1, 1]


def observing(values, **kwargs):
    balancer = PIVRG(**kwargs)
    balancer.start([str(i) for i in range(len(values))])
    balancer.observe({str(i): v for i, v in enumerate(values)})
    return balancer


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_equation(scale):
    rows = random_rows(4, 0) * scale
    values = [0.0, 3.0, 40.0, -10.0]
    weights = observing(values).solve(rows @ rows.T)
    v = priorities(deficits(*values), bound=2.0, least_temperature=10.0)
    torch.testing.assert_close(rows @ (weights @ rows), (v / weights).sqrt(), rtol=1e-6, atol=0)


def test_equal_deficits_are_fairgrad_and_larger_ones_gain_more():
    rows = random_rows(3, 1)
    plain = FairGrad().solve(rows @ rows.T)
    torch.testing.assert_close(observing([5.0] * 3).solve(rows @ rows.T), plain)
    torch.testing.assert_close(PIVRG().solve(rows @ rows.T), plain)
    lagging = observing([0.0, 100.0, 0.0]).solve(rows @ rows.T)
    former, now = rows @ (plain @ rows), rows @ (lagging @ rows)
    assert now[1] / now.sum() > former[1] / former.sum()


def test_losses_as_scores_are_measured_from_the_first():
    balancer = PIVRG(scores="losses")
    losses = torch.tensor([1.0, 2.0, -1.0])
    balancer.solve(A @ A.T, losses)
    found = balancer.solve(A @ A.T, torch.tensor([1.5, 2.0, -1.2]))
    expected = observing([50.0, 0.0, -20.0]).solve(A @ A.T)
    torch.testing.assert_close(found, expected)


def test_reads_validation_against_its_first():
    balancer, module = PIVRG(), toy_module()
    fit(balancer, module=module, max_epochs=3)
    assert bool(balancer.first.isfinite().all())
    kind = list(module.entries).index("kind")
    last = float(toy_last(module)["val/kind/accuracy"])
    first = float(balancer.first[kind])
    assert float(balancer.deficits[kind]) == pytest.approx(-100 * (last - first) / first, abs=1e-4)


def toy_last(module):
    return module.trainer.callback_metrics


def test_reads_validation_against_references(tmp_path):
    module = toy_module()
    tasks = {n: {t.primary: 0.25} for n, t in module.tasks.items()}
    path = tmp_path / "references.json"
    path.write_text(json.dumps({"protocol": "", "tasks": tasks}))
    balancer = PIVRG(references=str(path))
    fit(balancer, module=module, max_epochs=1)
    for i, (name, task) in enumerate(module.tasks.items()):
        value = float(toy_last(module)[f"val/{name}/{task.primary}"])
        sign = -1 if task.higher_is_better()[task.primary] else 1
        assert float(balancer.deficits[i]) == pytest.approx(
            sign * 100 * (value - 0.25) / 0.25, rel=1e-4
        )


def test_groups_of_parameters_learn_of_validation_too():
    balancer = PIVRG(stages=Stages(group="layer"))
    fit(balancer, max_epochs=2)
    assert balancer._members
    for member in balancer._members.values():
        assert torch.equal(member.deficits, balancer.deficits)


def test_arguments():
    for wrong in ({"bound": 1.0}, {"least_temperature": 0.0}, {"references": "none.json"}):
        with pytest.raises(ArgumentError):
            PIVRG(**wrong)
    with pytest.raises(ArgumentError, match="scores: validation"):
        PIVRG(references="x.json", scores="losses")
    with pytest.raises(UnknownNameError, match="Did you mean losses"):
        PIVRG(scores="loss")
    with pytest.raises(UnknownNameError, match="entry"):
        observing([1.0]).observe({"9": 1.0})
