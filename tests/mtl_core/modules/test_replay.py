import pytest
import torch
from torch import nn

from mtl_core.modules.replay import RandomState, kept_buffers


def test_replay_draws_the_same_and_leaves_the_generator_alone():
    torch.manual_seed(3)
    state = RandomState.capture(torch.device("cpu"))
    first, second = torch.rand(3), torch.rand(3)
    torch.manual_seed(3)
    torch.rand(3)
    with state.replayed():
        assert torch.equal(torch.rand(3), first)
        torch.rand(7)
    assert torch.equal(torch.rand(3), second)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_replay_covers_the_device():
    device = torch.device("cuda", 0)
    state = RandomState.capture(device)
    first = torch.rand(3, device=device)
    with state.replayed():
        assert torch.equal(torch.rand(3, device=device), first)


def test_buffers_end_as_they_were_and_a_backward_still_works():
    norm = nn.BatchNorm1d(4)
    x = torch.randn(8, 4, requires_grad=True)
    first = norm(x).square().sum()
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    with kept_buffers(norm):
        norm(x + 5)
        assert int(norm.num_batches_tracked) == 2
    assert all(torch.equal(before[k], v) for k, v in norm.state_dict().items())
    first.backward()
    assert x.grad.isfinite().all()


def test_buffers_are_restored_after_an_error():
    norm = nn.BatchNorm1d(4)
    with pytest.raises(ValueError, match="expected 2D or 3D"), kept_buffers(norm):
        norm(norm(torch.randn(8, 4))[None, None])
    assert int(norm.num_batches_tracked) == 0
