"""Preprocessing in numpy mirrors OpenCV, Pillow and the training transforms."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from export.manifest import FolderError
from export.preprocess import (
    IMAGE_SUFFIXES,
    MODES,
    ImagePipeline,
    PictureError,
    UnreadablePictureError,
    decode,
    resize,
    restore,
)
from mtl_core.errors import ArgumentError
from mtl_vision.data import files
from mtl_vision.data.transforms import DenseTransform

RNG = np.random.default_rng(0)
PLAIN = [{"op": "decode"}, {"op": "scale", "factor": 1 / 255}, {"op": "layout", "order": "chw"}]
SIZES = [(1, 1), (1, 9), (7, 1), (2, 2), (13, 17), (37, 53), (48, 64), (91, 30)]


def pictures(size):
    """Gradient, checkerboard, noise, and a picture that is nearly black."""
    rows, columns = np.indices(size)
    ramp = np.linspace(0, 255, size[0] * size[1]).reshape(size)
    noise = RNG.integers(0, 256, (*size, 3)).astype(np.uint8)
    found = [ramp, (rows + columns) % 2 * 255]
    return [np.repeat(p[..., None], 3, 2).astype(np.uint8) for p in found] + [noise, noise // 128]


@pytest.mark.parametrize(
    ("kernel", "flag"),
    [
        ("linear", cv2.INTER_LINEAR),
        ("cubic", cv2.INTER_CUBIC),
        ("area", cv2.INTER_AREA),
        ("nearest", cv2.INTER_NEAREST_EXACT),
    ],
)
def test_kernels_are_those_of_opencv_within_one_grey_level(kernel, flag):
    worst = 0
    for source in SIZES:
        for target in SIZES:
            if kernel == "area" and (target[0] > source[0] or target[1] > source[1]):
                continue
            for picture in pictures(source):
                expected = cv2.resize(picture, target[::-1], interpolation=flag)
                found = resize(picture, target, kernel)
                assert found.dtype == np.uint8
                assert found.shape == expected.shape
                worst = max(worst, int(np.abs(found.astype(int) - expected).max()))
    assert worst <= (0 if kernel == "nearest" else 1)


@pytest.mark.parametrize(
    ("kernel", "flag"),
    [
        ("linear_aa", Image.Resampling.BILINEAR),
        ("cubic_aa", Image.Resampling.BICUBIC),
        ("nearest", Image.Resampling.NEAREST),
    ],
)
def test_kernels_are_those_of_pillow(kernel, flag):
    """Within one grey level; cubic within two, because Pillow rounds between the axes."""
    bound = {"nearest": 0, "cubic_aa": 2}.get(kernel, 1)
    for source in SIZES:
        for target in SIZES:
            for picture in pictures(source):
                expected = np.asarray(Image.fromarray(picture).resize(target[::-1], flag))
                difference = np.abs(resize(picture, target, kernel).astype(int) - expected)
                assert difference.max() <= bound


def test_the_linear_kernel_is_opencvs_bit_by_bit():
    """A level in an eighth of all values moved the depth of a small network by half a percent."""
    rng = np.random.default_rng(1)
    for _ in range(100):
        *source, height, width = (int(n) for n in rng.integers(1, 60, 4))
        noise = rng.integers(0, 256, (*source, 3)).astype(np.uint8)
        expected = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(resize(noise, (height, width)), expected)


def test_opencv_and_pillow_are_different_functions():
    """Why the kernel is written down: mistaking one for the other costs many grey levels."""
    noise = RNG.integers(0, 256, (96, 128, 3)).astype(np.uint8)
    own = resize(noise, (24, 32), "linear").astype(int)
    assert np.abs(own - resize(noise, (24, 32), "linear_aa")).mean() > 10


def test_identity_and_constant_pictures_survive():
    for picture in pictures((9, 14)):
        assert resize(picture, (9, 14), "cubic") is picture
    flat = np.full((5, 8, 3), 201, np.uint8)
    for kernel in ("linear", "linear_aa", "area", "cubic", "cubic_aa", "nearest"):
        assert (resize(flat, (13, 3), kernel) == 201).all()
    with pytest.raises(ArgumentError, match="size must be positive"):
        resize(np.zeros((0, 4, 3), np.uint8), (2, 2))


@pytest.mark.parametrize("options", [
    {"size": (40, 56)}, {"size": (40, 56), "interpolation": "cubic"}, {"size": None},
    {"size": (128, 160), "fit": "pad"}, {"size": (127, 99), "fit": "pad"},
])  # fmt: skip
def test_operations_of_the_training_transform_give_its_input(options):
    transform = DenseTransform({}, train=False, **options)
    document = transform.operations()
    pipeline = ImagePipeline(document)
    mean, std = (
        np.array(document["normalization"][k], np.float32)[:, None, None] for k in ("mean", "std")
    )
    for size in [(37, 53), (96, 80), (33, 99), (1, 1), (40, 56), (127, 99)]:
        for picture in pictures(size):
            sample = {"inputs": picture, "targets": {}}
            expected = transform(sample, np.random.default_rng(0))["inputs"].numpy()
            found, path = pipeline(picture)
            assert found.dtype == np.float32
            assert found.min() >= 0
            assert found.max() <= 1
            assert np.abs(found - (expected * std + mean)).max() <= 1 / 255 + 1e-5
            assert path[0].before == size


@pytest.mark.parametrize("options", [{"size": (16, 24)}, {"size": (128, 160), "fit": "pad"}])
@pytest.mark.parametrize("size", [(37, 53), (8, 12), (16, 24), (1, 1)])
def test_maps_return_to_the_size_of_the_picture_as_in_training(options, size):
    transform = DenseTransform({}, train=False, **options)
    values, path = ImagePipeline(transform.operations())(np.zeros((*size, 3), np.uint8))
    maps = RNG.normal(size=(5, *values.shape[1:])).astype(np.float32)
    expected = transform.restore(torch.from_numpy(maps), size).numpy()
    np.testing.assert_allclose(restore(maps, path), expected, atol=1e-5)
    np.testing.assert_allclose(restore(maps[0], path), expected[0], atol=1e-5)


def test_resampling_of_maps_is_torchs():
    maps = RNG.normal(size=(3, 7, 11)).astype(np.float32)
    for size in SIZES:
        expected = F.interpolate(torch.from_numpy(maps)[None], size=size, mode="bilinear")[0]
        found = resize(maps.transpose(1, 2, 0), size).transpose(2, 0, 1)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_keeping_the_ratio_then_padding_is_undone():
    steps = [
        {"op": "decode"},
        {"op": "resize", "size": [32, 32], "kernel": "linear", "keep_ratio": True},
        {"op": "pad", "size": [32, 32], "fill": [9, 9, 9], "position": "top-left"},
    ]
    picture = np.full((20, 40, 3), 100, np.uint8)
    values, path = ImagePipeline({"operations": steps})(picture)
    assert (values[:16] == 100).all()
    assert (values[16:] == 9).all()
    maps = np.where(np.arange(32)[:, None] < 16, 1.0, 5.0) * np.ones((2, 32, 32))
    assert (restore(maps, path) == 1).all()
    assert restore(maps, path).shape == (2, 20, 40)


@pytest.mark.parametrize("size", [(33, 41), (32, 41), (32, 32), (40, 33)])
def test_what_a_crop_leaves_out_is_unknown(size):
    steps = [{"op": "decode"}, {"op": "center_crop", "size": [32, 32]}]
    values, path = ImagePipeline({"operations": steps})(np.zeros((*size, 3), np.uint8))
    maps = restore(np.ones((2, *values.shape[:2]), np.float32), path)
    assert maps.shape == (2, *size)
    assert np.isnan(maps).sum() == 2 * (size[0] * size[1] - 32 * 32)


def test_a_dark_picture_is_scaled_like_any_other():
    dark = np.ones((4, 4, 3), np.uint8)
    found, _ = ImagePipeline({"operations": PLAIN})(dark)
    np.testing.assert_allclose(found, 1 / 255, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_at_most_eight_bits_is_read_as_in_training(tmp_path, mode):
    picture = Image.fromarray(RNG.integers(0, 256, (6, 5, 3)).astype(np.uint8)).convert(mode)
    found = decode(picture)
    assert found.shape == (6, 5, 3)
    np.testing.assert_array_equal(found, np.asarray(picture.convert("RGB")))
    if mode in ("RGB", "L", "P", "RGBA", "LA", "1"):
        path = tmp_path / "picture.png"
        picture.save(path)
        np.testing.assert_array_equal(decode(path), files.read_image(path))


def test_transparent_palettes_lose_their_transparency_without_a_warning(tmp_path):
    picture = Image.fromarray(RNG.integers(0, 4, (6, 5)).astype(np.uint8))
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    picture.save(tmp_path / "p.png", transparency=bytes([0, 128, 255, 255]))
    assert {tuple(p) for p in decode(tmp_path / "p.png").reshape(-1, 3).tolist()} == {
        (10, 20, 30), (40, 50, 60), (70, 80, 90), (100, 110, 120),
    }  # fmt: skip


@pytest.mark.parametrize("array", [
    np.zeros((4, 5, 3)), np.zeros((4, 5, 2), np.uint8), np.zeros(4, np.uint8),
    np.zeros((1, 4, 5, 3), np.uint8), np.zeros((4, 5, 3), np.uint16),
])  # fmt: skip
def test_arrays_of_another_kind_are_refused(array):
    with pytest.raises(PictureError, match="must be a uint8 array"):
        decode(array)


def test_arrays_of_grey_and_with_transparency():
    grey = RNG.integers(0, 256, (4, 5)).astype(np.uint8)
    np.testing.assert_array_equal(decode(grey), decode(grey[..., None]))
    rgba = RNG.integers(0, 256, (4, 5, 4)).astype(np.uint8)
    np.testing.assert_array_equal(decode(rgba), rgba[..., :3])


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_eight_bits_are_refused(tmp_path, mode):
    picture = Image.fromarray(np.arange(20).reshape(4, 5).astype(np.int32)).convert(mode)
    with pytest.raises(PictureError, match=f"the picture must have 8 bits .* mode {mode}"):
        decode(picture)
    path = tmp_path / "deep.tiff"
    picture.save(path)
    with pytest.raises(PictureError, match=r"deep.tiff must have 8 bits"):
        decode(path)


def test_damaged_files_are_named(tmp_path):
    good = tmp_path / "good.png"
    Image.fromarray(RNG.integers(0, 256, (60, 50, 3)).astype(np.uint8)).save(good)
    data = good.read_bytes()
    cases = {"cut.png": data[: len(data) // 2], "text.jpg": b"hello", "empty.png": b""}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadablePictureError, match=f"cannot read the picture .*{name}"):
            decode(tmp_path / name)
    with pytest.raises(UnreadablePictureError, match="no such file"):
        decode(tmp_path / "absent.png")


def test_pictures_that_do_not_fit_a_padding_or_a_crop_are_refused():
    pad = [{"op": "pad", "size": [8, 8], "fill": 0}]
    with pytest.raises(PictureError, match=r"at most 8 high and 8 wide.* found 9 by 3"):
        ImagePipeline({"operations": pad})(np.zeros((9, 3, 3), np.uint8))
    crop = [{"op": "center_crop", "size": [8, 8]}]
    with pytest.raises(PictureError, match=r"a.png must be at least 8 high.* found 9 by 3"):
        ImagePipeline({"operations": crop})(np.zeros((9, 3, 3), np.uint8), "a.png")


@pytest.mark.parametrize(("step", "message"), [
    ({"op": "blur"}, "operations of x.json must be of decode, .* found 'blur'"),
    ({"op": "resize", "size": [1, 1]}, "'resize' of x.json must hold kernel"),
    ({"op": "resize", "size": [1, 1], "kernel": "sinc"}, "kernel of 'resize' in x.json must be"),
    ({"op": "resize", "size": [1, 1], "kernel": "area", "reduce": "x"}, "reduce of 'resize'"),
])  # fmt: skip
def test_unknown_operations_are_refused(step, message):
    with pytest.raises(FolderError, match=message):
        ImagePipeline({"operations": [step]}, "x.json")


def test_the_same_files_count_as_pictures_as_in_training():
    assert IMAGE_SUFFIXES == files.IMAGE_SUFFIXES
