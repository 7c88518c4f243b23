import torch

from mtl_core.nn import FeatureInfo, Features
from mtl_vision.decoders import LinearMapDecoder
from mtl_vision.tasks import SemanticSegmentation


def test_it_is_a_matrix_product_at_every_position():
    decoder = LinearMapDecoder(FeatureInfo((4, 6), (8, 16)), SemanticSegmentation(num_classes=3))
    maps = [torch.randn(2, 4, 6, 8), torch.randn(2, 6, 3, 4)]
    weight, bias = decoder.classifier.weight[:, :, 0, 0], decoder.classifier.bias
    expected = torch.einsum("kd,bdhw->bkhw", weight, maps[1]) + bias[:, None, None]
    torch.testing.assert_close(decoder(Features(maps=maps, size=(48, 64))), expected)
