import math
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from mtl_vision.metrics import SaliencyImageMaxF, SaliencyMaxF, SaliencyMIoU


@pytest.fixture
def maps():
    g = torch.Generator().manual_seed(0)
    target = (torch.rand(3, 8, 8, generator=g) > 0.6).long()
    noise = torch.rand(3, 8, 8, generator=g)
    preds = (0.6 * target + 0.5 * noise).clamp(0, 1)
    valid = torch.rand(3, 8, 8, generator=g) > 0.2
    return preds, target, valid


def score(metric, *maps):
    metric.update(*maps)
    return metric.compute()


def divide(a, b):
    return a / b if b else 0.0


def test_survey_scores_equal_a_loop_over_images_and_thresholds(maps):
    preds, target, valid = maps
    table = []
    for p, y, v in zip(preds, target, valid, strict=True):
        p, y = p[v], y[v] == 1
        for t in torch.linspace(0.2, 0.9, 15):
            m = p > t
            hits = int((m & y).sum())
            union = int((m | y).sum())
            table.append(
                (
                    divide(hits, int(m.sum())),
                    divide(hits, int(y.sum())),
                    hits / union if union else 1,
                )
            )
    precision, recall, jaccard = torch.tensor(table).view(3, 15, 3).mean(0).T
    assert_close(score(SaliencyMIoU(), *maps), jaccard.max())
    f = 2 * precision * recall / (precision + recall).clamp(min=1e-9)
    assert_close(score(SaliencyImageMaxF(), *maps), f.max())


def test_two_empty_masks_agree():
    nothing = torch.zeros(1, 4, 4)
    everywhere = torch.ones(1, 4, 4, dtype=torch.bool)
    assert score(SaliencyMIoU(), nothing, nothing.long(), everywhere) == 1
    assert score(SaliencyMIoU(), nothing, nothing.long() + 1, everywhere) == 0


def test_images_without_valid_pixels_are_left_out(maps):
    preds, target, valid = maps
    valid[1] = False
    kept = [0, 2]
    assert_close(
        score(SaliencyMIoU(), *maps), score(SaliencyMIoU(), preds[kept], target[kept], valid[kept])
    )


def pooled_max_f(preds, target, valid):
    best = 0.0
    for k in range(1, 20):
        m, y = preds[valid] >= k / 20, target[valid] == 1
        hits = int((m & y).sum())
        p, r = divide(hits, int(m.sum())), divide(hits, int(y.sum()))
        best = max(best, divide(1.3 * p * r, 0.3 * p + r))
    return torch.tensor(best)


def test_atrc_score_equals_a_loop_over_thresholds(maps):
    assert_close(score(SaliencyMaxF(), *maps), pooled_max_f(*maps))


def test_double_sigmoid_is_the_published_code(maps):
    preds, target, valid = maps
    expected = pooled_max_f(preds.sigmoid(), target, valid)
    assert_close(score(SaliencyMaxF(double_sigmoid=True), *maps), expected)


def test_double_sigmoid_has_five_effective_thresholds():
    """One salient pixel among four: the score changes where it alone passes."""
    metric = SaliencyMaxF(double_sigmoid=True)
    edges = [math.log(t / (1 - t)) for t in (0.55, 0.6, 0.65, 0.7)]
    assert [round(e, 4) for e in edges] == [0.2007, 0.4055, 0.6190, 0.8473]
    target = torch.tensor([[[1, 0, 0, 0]]])
    everywhere = torch.ones(1, 1, 4, dtype=torch.bool)

    def value(salient, other):
        metric.reset()
        return float(score(metric, torch.tensor([[[salient, *[other] * 3]]]), target, everywhere))

    blind = 1.3 * 0.25 / (0.3 * 0.25 + 1)  # only "everything is salient" is left
    levels = [0.0, *edges, 1.0]
    for low, high in pairwise(levels):
        inside = torch.linspace(low + 1e-3, high - 1e-3, 5).tolist()
        assert value(inside[-1], inside[0]) == pytest.approx(blind), "nothing happens between"
    for edge in edges:
        assert value(edge + 1e-4, edge - 1e-4) == pytest.approx(1), "the score changes at each"


def test_perfect_and_empty_predictions():
    target = torch.tensor([[[1, 0], [0, 0]]])
    everywhere = torch.ones(1, 2, 2, dtype=torch.bool)
    assert score(SaliencyMaxF(), target.float(), target, everywhere) == 1
    assert score(SaliencyMaxF(), torch.zeros(1, 2, 2), target, everywhere) == 0


def test_thresholds_are_exclusive_in_the_survey_and_inclusive_in_atrc():
    target = torch.tensor([[[1, 0]]])
    everywhere = torch.ones(1, 1, 2, dtype=torch.bool)
    last, first = torch.tensor(0.95), torch.linspace(0.2, 0.9, 15)[0]
    above, below = torch.tensor([[[1.0, last]]]), torch.tensor([[[last, 0.0]]])
    blind = 1.3 * 0.5 / (0.3 * 0.5 + 1)
    assert score(SaliencyMaxF(), above, target, everywhere) == pytest.approx(blind)
    assert score(SaliencyMaxF(), below, target, everywhere) == 1
    at_first = torch.tensor([[[first, 0.0]]])
    assert score(SaliencyMIoU(), at_first, target, everywhere) == 0
    assert score(SaliencyMIoU(), at_first + 1e-3, target, everywhere) == 1


def test_higher_is_better():
    for metric in (SaliencyMIoU(), SaliencyImageMaxF(), SaliencyMaxF()):
        assert metric.higher_is_better is True
