import math

import pytest
import torch

from mtl_core.balancing import saliency as module
from mtl_core.balancing.saliency import affinity_contrast, saliency_entropy

FIRST = torch.tensor([[[1.0, 2], [0, -1]], [[0.5, 0], [1, 1]]], dtype=torch.float64)
SECOND = torch.tensor([[[-1.0, 1], [2, 0]], [[0, 1], [-1, 2]]], dtype=torch.float64)
REFERENCE = torch.stack([FIRST, SECOND])


def test_reference_values():
    assert float(saliency_entropy(REFERENCE)) == pytest.approx(0.655410293, abs=1e-8)
    same = torch.stack([FIRST, FIRST])
    assert float(saliency_entropy(same)) == pytest.approx(math.log(2), abs=1e-8)
    louder = torch.stack([FIRST, SECOND * 100])
    assert float(saliency_entropy(louder)) == pytest.approx(0.052580651, abs=1e-8)
    found = affinity_contrast(louder, temperature=1.0)
    assert float(found) == pytest.approx(-0.851175499, abs=1e-8)


@pytest.mark.parametrize(
    ("temperature", "reduce", "wanted"),
    [
        (1.0, "sum", -1.269208800),
        (1.0, "mean", -0.575333908),
        (0.1, "sum", -6.516192351),
        (0.1, "mean", -5.753339079),
    ],
)
def test_reference_contrast(temperature, reduce, wanted):
    found = affinity_contrast(REFERENCE, temperature=temperature, reduce=reduce)
    assert float(found) == pytest.approx(wanted, abs=1e-8)


def by_matrices(s, temperature, reduce):
    """The definition, with C by C matrices."""
    tasks, samples = s.shape[:2]
    affinity = torch.nn.functional.normalize((s @ s.mT).flatten(2), dim=2)
    a = s.mean(3).permute(1, 2, 0)
    anchor = torch.nn.functional.normalize((a @ a.mT).flatten(1), dim=1)
    each = []
    for b in range(samples):
        pulled = torch.stack([anchor[b] @ affinity[t, b] / temperature for t in range(tasks)])
        pushed = torch.stack(
            [anchor[b] @ anchor[k] / temperature for k in range(samples) if k != b]
        )
        own = pulled.logsumexp(0) if reduce == "sum" else pulled.mean()
        each.append(pushed.logsumexp(0) - own)
    return torch.stack(each).mean()


@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (2, 6, 8, 3), (4, 3, 6, 1)])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("largest", [1 << 26, 8])
def test_memory_free_form_equals_the_matrices(shape, reduce, largest, monkeypatch):
    """Values and gradients, whole and in blocks."""
    monkeypatch.setattr(module, "_LARGEST", largest)
    torch.manual_seed(0)
    found = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    wanted = found.detach().clone().requires_grad_()
    value = affinity_contrast(found, temperature=0.3, reduce=reduce)
    reference = by_matrices(wanted, 0.3, reduce)
    torch.testing.assert_close(value, reference, rtol=1e-12, atol=1e-12)
    value.backward()
    reference.backward()
    torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-12, 1e-8, 1.0, 1e8])
def test_bounds_and_common_scale(scale):
    torch.manual_seed(0)
    s = torch.randn(3, 6, 4, 5) * scale
    if scale > 1e-8:  # below, the constant in the denominator shows; callers normalise
        torch.testing.assert_close(saliency_entropy(s), saliency_entropy(s / scale))
        assert 0 <= float(saliency_entropy(s)) <= math.log(3)
    for tau in (0.1, 1.0):
        found = affinity_contrast(s, temperature=tau)
        torch.testing.assert_close(found, affinity_contrast(s / scale, temperature=tau))
        assert abs(float(found) + math.log(3) - math.log(5)) <= 1 / tau + 1e-5


def test_order_of_tasks_and_samples_does_not_matter():
    torch.manual_seed(0)
    s = torch.randn(3, 6, 4, 5).double()
    for other in (s[[2, 0, 1]], s[:, [3, 1, 5, 0, 2, 4]]):
        torch.testing.assert_close(saliency_entropy(other), saliency_entropy(s))
        torch.testing.assert_close(affinity_contrast(other), affinity_contrast(s))


def test_entropy_of_one_salient_task_is_zero():
    s = torch.randn(3, 4, 5, 2)
    s[1:] = 0
    assert float(saliency_entropy(s)) == pytest.approx(0, abs=1e-6)
    assert float(saliency_entropy(torch.zeros(3, 4, 5, 2))) == 0


def test_zero_saliency_is_left_out():
    """A task without saliency in a sample, and a sample without any."""
    torch.manual_seed(0)
    s = torch.randn(2, 4, 3, 5).double()
    lonely = torch.cat([s, torch.zeros_like(s[:, :1])], 1)
    torch.testing.assert_close(affinity_contrast(lonely), affinity_contrast(s))
    torch.testing.assert_close(saliency_entropy(lonely), saliency_entropy(s))
    absent = torch.cat([s, torch.zeros_like(s[:1])])
    torch.testing.assert_close(affinity_contrast(absent), affinity_contrast(s))
    partly = s.clone()
    partly[0, 0] = 0
    partly = partly.requires_grad_()
    for value in (affinity_contrast(partly), saliency_entropy(partly)):
        (grad,) = torch.autograd.grad(value, partly)
        assert value.isfinite()
        assert grad.isfinite().all()
    nothing = torch.zeros(2, 3, 4, 5, requires_grad=True)
    for value in (affinity_contrast(nothing), saliency_entropy(nothing)):
        assert value.item() == 0
        assert torch.autograd.grad(value, nothing)[0].isfinite().all()


def test_one_task_or_one_sample():
    s = torch.randn(2, 3, 4, 5)
    assert float(affinity_contrast(s[:1])) == 0
    assert float(affinity_contrast(s[:, :1])) == 0
    assert float(saliency_entropy(s[:1])) == pytest.approx(0, abs=1e-6)


def test_negatives_are_subsampled_to_scale():
    """Samples that come in equal halves: half of the anchors is as good as all."""
    torch.manual_seed(0)
    s = torch.randn(2, 40, 4, 5).double() * 0.1 + 1
    all_of_them = affinity_contrast(s, temperature=1.0)
    part = affinity_contrast(s, temperature=1.0, max_anchors=20)
    torch.testing.assert_close(part, all_of_them, rtol=2e-2, atol=0)
    assert not torch.equal(part, all_of_them)


def test_gradients():
    torch.manual_seed(0)
    s = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(saliency_entropy, s)
    assert torch.autograd.gradcheck(lambda x: affinity_contrast(x, temperature=0.5), s)
