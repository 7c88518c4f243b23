import torch

from mtl_core.nn import FeatureInfo, Features, LinearDecoder
from mtl_core.tasks import Classification


def test_linear_decoder_pools_maps_and_takes_vectors():
    decoder = LinearDecoder(FeatureInfo((4, 8), (4, 8)), Classification(num_classes=3))
    coarse = torch.randn(2, 8, 5, 7)
    from_map = decoder(Features([torch.randn(2, 4, 10, 14), coarse]))
    from_vector = decoder(Features([coarse.mean((2, 3))]))
    torch.testing.assert_close(from_map, from_vector)
    assert from_map.shape == (2, 3)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    decoder = LinearDecoder(FeatureInfo((64,), (1,)), Classification(num_classes=2), dropout=0.5)
    features = Features([torch.ones(2, 64)])
    assert not torch.equal(decoder(features), decoder(features))
    decoder.eval()
    assert torch.equal(decoder(features), decoder(features))
