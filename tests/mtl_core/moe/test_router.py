import copy

import pytest
import torch

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.moe import ConditionedRouter, PerTaskRouter, SingleRouter, choose

TASKS = ("semseg", "depth", "normals")
KINDS = (PerTaskRouter, SingleRouter, ConditionedRouter)


def router(kind=PerTaskRouter, **options):
    torch.manual_seed(0)
    return kind(TASKS, 6, 8, 3, **options)


TOKENS = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", ["none", "topk"])
def test_gates(kind, norm):
    out = router(kind, norm=norm)(TOKENS, "depth")
    assert out.idx.shape == out.gate.shape == (4, 5, 3)
    assert all(len(set(row.tolist())) == 3 for row in out.idx.flatten(0, 1))
    torch.testing.assert_close(out.probs.sum(-1), torch.ones(4, 5))
    assert torch.equal(out.idx, out.probs.topk(3, -1).indices)
    total = out.gate.sum(-1)
    if norm == "topk":
        torch.testing.assert_close(total, torch.ones(4, 5))
    else:
        torch.testing.assert_close(out.gate, out.probs.gather(-1, out.idx))
        assert (total <= 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_by_sample_are_tasks_by_name(kind):
    own = router(kind)
    out = own(TOKENS, torch.tensor([2, 0, 0, 1]))
    for row, name in enumerate(("normals", "semseg", "semseg", "depth")):
        alone = own(TOKENS[row : row + 1], name)
        torch.testing.assert_close(out.logits[row : row + 1], alone.logits)
        assert torch.equal(out.idx[row : row + 1], alone.idx)
    one = own(TOKENS[:, 0], torch.tensor([2, 0, 0, 1]))
    torch.testing.assert_close(one.logits, out.logits[:, 0])


def test_tasks_do_not_touch_each_other():
    own = router()
    before = own(TOKENS, "semseg")
    with torch.no_grad():
        own.gates["depth"].weight.add_(1.0)
    assert torch.equal(own(TOKENS, "semseg").gate, before.gate)
    (gradient,) = torch.autograd.grad(
        own(TOKENS, "semseg").gate.sum(), own.gates["depth"].weight, allow_unused=True
    )
    assert gradient is None


def test_conditioned_without_an_embedding_is_single():
    conditioned, single = router(ConditionedRouter), router(SingleRouter)
    with torch.no_grad():
        single.linear.weight.copy_(conditioned.linear.weight)
        conditioned.hidden.weight.zero_()
        conditioned.hidden.bias.zero_()
    wanted = single(TOKENS, "depth")
    for task in TASKS:
        torch.testing.assert_close(conditioned(TOKENS, task).probs, wanted.probs)


def test_a_task_costs_one_column_of_the_conditioned_router():
    def size(tasks):
        return sum(p.numel() for p in ConditionedRouter(tasks, 6, 8, 2, d_task=64).parameters())

    assert size(("a", "b", "c")) - size(("a", "b")) == 64


def test_per_task_parameters():
    own = PerTaskRouter(TASKS, 384, 16, 4)
    assert sum(p.numel() for p in own.parameters()) == 3 * 6144


def test_float32_under_autocast():
    own = router()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = own(TOKENS, "depth")
    assert out.probs.dtype == torch.float32
    torch.testing.assert_close(out.logits, own(TOKENS, "depth").logits)


@pytest.mark.parametrize("noise", ["vmoe", "shazeer"])
def test_noise_is_for_training_only(noise):
    own = router(noise=noise)
    first, second = own(TOKENS, "depth"), own(TOKENS, "depth")
    assert not torch.equal(first.probs, second.probs)
    assert torch.equal(first.logits, second.logits), "these are clean"
    assert torch.equal(first.idx, first.noisy.topk(3, -1).indices)
    own.eval()
    still = own(TOKENS, "depth")
    assert torch.equal(still.probs, own(TOKENS, "depth").probs)
    assert still.noisy is None


def test_noise_of_vmoe_is_one_over_the_number_of_experts():
    own = router(noise="vmoe", noise_std=2.0)
    out = own(torch.zeros(1, 20_000, 6), "depth")
    assert (out.noisy - out.logits).detach().std().item() == pytest.approx(2.0 / 8, rel=0.02)
    assert router(noise="vmoe", noise_std=0.0)(TOKENS, "depth").noisy is None


def test_keeping_and_growing_columns():
    own = router()
    before = own(TOKENS, "depth").logits
    small = copy.deepcopy(own)
    small.keep([7, 0, 3])
    torch.testing.assert_close(small(TOKENS, "depth").logits, before[..., [7, 0, 3]])
    own.grow(2)
    after = own(TOKENS, "depth")
    assert after.logits.shape[-1] == 10
    torch.testing.assert_close(after.logits[..., :8], before)
    same_widths = ConditionedRouter(TASKS, 6, 8, 3, d_task=8, noise="shazeer")
    same_widths.grow(1)
    same_widths.keep([8, 1, 0])
    assert same_widths(TOKENS, "depth").logits.shape[-1] == 3
    with pytest.raises(ArgumentError, match="leave top_k = 3"):
        own.keep([0, 1])
    with pytest.raises(ArgumentError, match="different numbers"):
        own.keep([0, 1, 1])


def test_parts_of_a_routing():
    out = choose(torch.randn(4, 5, 8), 2, "none")
    parts = out.chunk(2)
    assert torch.equal(torch.cat([p.gate for p in parts]), out.gate)
    assert parts[0].noisy is None


def test_bad_input():
    with pytest.raises(UnknownNameError, match="Did you mean depth"):
        router()(TOKENS, "dept")
    with pytest.raises(UnknownNameError, match="norm"):
        router(norm="all")
    with pytest.raises(ArgumentError, match=r"top_k must be in 1\.\.2"):
        PerTaskRouter(TASKS, 6, 2, 3)
    with pytest.raises(ArgumentError, match="num_experts"):
        PerTaskRouter(TASKS, 6, 0, 1)
    with pytest.raises(ArgumentError, match="noise_std"):
        router(noise_std=-1.0)
    with pytest.raises(ArgumentError, match="d_task"):
        router(ConditionedRouter, d_task=0)


WINDOWS = {"depth": [6, 1, 2, 4], "normals": [0, 3, 7]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", ["none", "topk"])
@pytest.mark.parametrize("noise", ["none", "shazeer"])
def test_a_window_is_all_that_its_task_knows(kind, norm, noise):
    own = router(kind, norm=norm, noise=noise, task_windows=WINDOWS)
    assert own.task_windows == {"depth": (1, 2, 4, 6), "normals": (0, 3, 7)}
    free = router(kind, norm=norm, noise=noise)
    for task, window in WINDOWS.items():
        for training in (False, True):
            out = own.train(training)(TOKENS, task)
            assert set(out.idx.unique().tolist()) <= set(window)
            torch.testing.assert_close(out.probs.sum(-1), torch.ones(4, 5))
            outside = [e for e in range(8) if e not in window]
            assert not out.probs[..., outside].any()
        small = copy.deepcopy(free).eval()
        small.keep(sorted(window))
        alone = small(TOKENS, task)
        out = own.eval()(TOKENS, task)
        assert torch.equal(out.idx, torch.tensor(sorted(window))[alone.idx])
        torch.testing.assert_close(out.gate, alone.gate)
    assert torch.equal(own(TOKENS, "semseg").gate, free.eval()(TOKENS, "semseg").gate)


def test_windows_of_tasks_by_sample():
    own = router(task_windows=WINDOWS)
    out = own(TOKENS, torch.tensor([2, 0, 0, 1]))
    for row, name in enumerate(("normals", "semseg", "semseg", "depth")):
        alone = own(TOKENS[row : row + 1], name)
        assert torch.equal(out.idx[row], alone.idx[0])
        assert torch.equal(out.allowed[row], alone.allowed[0])


def test_windows_follow_when_experts_go_or_come():
    own = router(task_windows=WINDOWS)
    before = own(TOKENS, "depth")
    own.grow(2)
    assert own.task_windows["depth"] == (1, 2, 4, 6)
    assert torch.equal(own(TOKENS, "depth").gate, before.gate)
    own.keep([7, 6, 4, 3, 2, 0, 9, 1])
    assert own.task_windows == {"depth": (1, 2, 4, 7), "normals": (0, 3, 5)}
    torch.testing.assert_close(own(TOKENS, "depth").gate, before.gate)
    with pytest.raises(ArgumentError, match="top_k = 3 of the window of normals"):
        own.keep([0, 1, 2, 3, 4])
    own.set_windows({})
    assert own(TOKENS, "depth").allowed is None


def test_windows_are_no_weights():
    own, free = router(task_windows=WINDOWS), router()
    assert own.state_dict().keys() == free.state_dict().keys()
    assert own.to("meta")._allowed.device.type == "meta"


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ({"dept": [0, 1, 2]}, "Did you mean depth"),
        ({"depth": [0, 1]}, "task_windows of depth must hold top_k = 3"),
        ({"depth": [0, 1, 8]}, "task_windows of depth must be different numbers in 0..7"),
        ({"depth": [0, 1, 1]}, "task_windows of depth must be different numbers"),
    ],
)
def test_bad_windows(windows, message):
    with pytest.raises((ArgumentError, UnknownNameError), match=message):
        router(task_windows=windows)
