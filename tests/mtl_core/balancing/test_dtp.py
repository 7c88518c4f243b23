import math

import pytest
import torch
from toys import fit, toy_loader, toy_module, toy_trainer

from mtl_core.balancing import DTP
from mtl_core.balancing.dtp import dtp_weights
from mtl_core.errors import ArgumentError, BalancerError, UnknownNameError

ONES = torch.ones(2, dtype=torch.float64)


def started(**kwargs):
    balancer = DTP(**kwargs)
    balancer.start("ab")
    return balancer


def weigh(balancer):
    return balancer.weigh(ONES, balancer.step(balancer.entries))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_focal_weights(gamma):
    scores = torch.tensor([0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
    expected = [(1 - k) ** gamma * -math.log(k) for k in scores.tolist()]
    found = dtp_weights(scores, gamma)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert (found.diff() < 0).all()


def test_running_average_and_absence():
    balancer = started(alpha=0.25, scale="paper")
    assert weigh(balancer).tolist() == [1.0, 1.0]
    balancer.observe({"a": 0.8})
    balancer.observe({"a": 0.4, "b": math.nan})
    torch.testing.assert_close(float(balancer.scores[0]), 0.7)
    expected = -(1 - 0.7) * math.log(0.7)
    torch.testing.assert_close(weigh(balancer).tolist(), [expected, 1.0])


def test_sum_of_weights_and_solved_tasks():
    balancer = started()
    balancer.observe({"a": 0.3, "b": 0.6})
    assert float(weigh(balancer).sum()) == pytest.approx(2)
    balancer = started()
    balancer.observe({"a": 1.0, "b": 1.0})
    assert weigh(balancer).tolist() == [1.0, 1.0]
    balancer.observe({"a": -5.0})
    assert weigh(balancer).isfinite().all()


def test_metrics_of_validation_reach_the_weights():
    balancer = DTP(metrics={"size": "r2"}, alpha=1.0)
    module, trainer = toy_module(), toy_trainer(balancer, max_epochs=1)
    trainer.fit(module, toy_loader(), toy_loader(count=16, seed=1))
    logged = trainer.callback_metrics
    keys = ["val/size/r2", "val/kind/accuracy", "val/marks/" + module.tasks["marks"].primary]
    expected = torch.tensor([float(logged[k]) for k in keys], dtype=torch.float64)
    torch.testing.assert_close(balancer.scores, expected.clamp_min(1e-3))
    assert set(balancer.weights.values()) == {1.0}
    fit(balancer := DTP(metrics={"size": "r2"}))
    assert sum(balancer.weights.values()) == pytest.approx(3)
    assert len(set(balancer.weights.values())) == 3


def test_the_sanity_check_does_not_count():
    seen = []

    class Listening(DTP):
        def observe(self, scores):
            seen.append(dict(scores))
            super().observe(scores)

    fit(Listening(metrics={"size": "r2"}), num_sanity_val_steps=2, max_epochs=2)
    assert len(seen) == 2
    assert all(len(scores) == 3 for scores in seen)


def test_errors_count_against_a_reference():
    balancer = started(references={"a": 2.0}, scale="paper")
    balancer.observe({"a": 2.0, "b": 0.5})
    first, second = weigh(balancer).tolist()
    assert first == second
    with pytest.raises(BalancerError, match="errors are not negative, but that of a is -1"):
        balancer.observe({"a": -1.0})
    with pytest.raises(ArgumentError, match=r"references\['a'\] must be positive"):
        DTP(references={"a": 0.0})
    with pytest.raises(ArgumentError, match=r"references\['kind'\] must be absent for accuracy"):
        fit(DTP(references={"size": 1.0, "kind": 1.0}))
    fit(balancer := DTP(references={"size": 1.0}))
    assert 0 < float(balancer.scores[0]) < 1


def test_unusable_metrics_are_refused():
    with pytest.raises(ArgumentError, match=r"here: r2\) or have a reference, found 'rmse'"):
        fit(DTP())
    with pytest.raises(UnknownNameError, match=r"metrics\['size'\].*'r3'"):
        fit(DTP(metrics={"size": "r3"}))
    with pytest.raises(UnknownNameError, match="metrics must be a known name, found 'sizes'"):
        fit(DTP(metrics={"sizes": "r2"}))
    with pytest.raises(BalancerError, match=r"at most 1, but a has 1\.5"):
        started().observe({"a": 1.5})
    with pytest.raises(UnknownNameError, match="scores"):
        started().observe({"c": 0.5})


def test_a_run_without_validation_is_refused():
    balancer = DTP(metrics={"size": "r2"})
    with pytest.raises(BalancerError, match="metrics of the validation"):
        toy_trainer(balancer, limit_val_batches=0).fit(toy_module(), toy_loader(), toy_loader())


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="gamma must be finite and not negative"):
        DTP(gamma=-1.0)
    with pytest.raises(ArgumentError, match=r"alpha must lie in \(0, 1\]"):
        DTP(alpha=0.0)
    with pytest.raises(UnknownNameError, match="scale"):
        DTP(scale="mean")
