import pytest
import torch
from gramian_laws import PAPER, A, B, C, D, GramianLaws, near, random_rows
from torchjd.aggregation import AlignedMTL as Peer
from toys import fit

from mtl_core.balancing import AlignedMTL, AlignedMTLUB, Stages
from mtl_core.balancing.aligned_mtl import aligned_weights
from mtl_core.errors import ArgumentError, UnknownNameError


class TestAlignedMTL(GramianLaws):
    make = AlignedMTL
    per_task = True
    harmless = (2,)

    def test_reference_values(self):
        near(AlignedMTL(stages=PAPER).solve(A @ A.T), [1.064567, 1.006899, 0.903413])
        near(self.direction(A), [0.460428, 0.735875, 0.722731, -0.169750])
        near(self.direction(B), [0.426557, 1.934666, 1.934666])
        near(self.direction(C), [1.144185, 0.686511])
        assert torch.cosine_similarity(self.direction(D), D.sum(0), dim=0) > 1 - 1e-9


@pytest.mark.parametrize("reference", ["min", "median", "rmse"])
@pytest.mark.parametrize("dependent", [False, True])
def test_aligned_rows_are_orthogonal_and_equally_long(reference, dependent):
    rows = random_rows(4, 0)
    if dependent:
        rows[3] = rows[0] + rows[1]
    gramian = rows @ rows.T
    unit = torch.eye(4, dtype=torch.float64)
    aligned = torch.stack([aligned_weights(gramian, u, reference) for u in unit]) @ rows
    values, vectors = torch.linalg.eigh(gramian)
    kept = slice(1, None) if dependent else slice(None)
    level = {"min": torch.min, "median": torch.median, "rmse": torch.mean}[reference](values[kept])
    subspace = vectors[:, kept] @ vectors[:, kept].T
    torch.testing.assert_close(aligned @ aligned.T, level * subspace)


@pytest.mark.parametrize("reference", ["min", "median", "rmse"])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_torchjd_whose_default_is_the_mean(reference, seed):
    rows = random_rows(5, seed)
    ours = AlignedMTL(reference=reference, stages=PAPER).direction(rows)
    torch.testing.assert_close(ours / 5, Peer(scale_mode=reference)(rows))


def test_dependence_up_to_float32_rounding_counts_as_dependence():
    rows = random_rows(3, 1).float()
    rows[2] = rows[0] + rows[1] * 0.3
    wide = rows.double()
    exact = wide.clone()
    exact[2] = exact[0] + exact[1] * 0.3
    found = AlignedMTL().direction(wide)
    torch.testing.assert_close(found, AlignedMTL().direction(exact), rtol=1e-4, atol=1e-5)


def test_preferences_shift_the_update():
    rows = torch.eye(3, dtype=torch.float64)
    found = AlignedMTL(preference={"0": 4.0}).direction(rows)
    near(found, [2, 0.5, 0.5])


def test_upper_bound_takes_the_features_gramian():
    assert AlignedMTLUB().stages == Stages(gram="feature")
    torch.testing.assert_close(AlignedMTLUB().solve(A @ A.T), AlignedMTL().solve(A @ A.T))


def test_bad_arguments():
    with pytest.raises(UnknownNameError, match="Did you mean median"):
        AlignedMTL(reference="medium")
    with pytest.raises(ArgumentError, match=r"preference\['size'\] must be positive"):
        AlignedMTL(preference={"size": 0})
    with pytest.raises(UnknownNameError, match="Did you mean size"):
        fit(AlignedMTL(preference={"sise": 1}), max_steps=1)
