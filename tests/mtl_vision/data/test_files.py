"""Every storage form is read as its task wants it; what cannot be read is named."""

import numpy as np
import pytest
from PIL import Image

from mtl_core.errors import ArgumentError, UnreadableFileError
from mtl_vision.data.files import (
    image_size,
    read_binary,
    read_depth,
    read_image,
    read_labels,
    read_normals,
    read_values,
)


def save(path, array, mode=None):
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path)
    return path


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_colour_and_grey_images_become_rgb(tmp_path, rng):
    rgb = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", rgb)), rgb)
    grey = rng.integers(0, 256, (5, 7), dtype=np.uint8)
    expected = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(save(tmp_path / "b.png", grey)), expected)
    rgba = np.dstack((rgb, np.full((5, 7), 9, np.uint8)))
    np.testing.assert_array_equal(read_image(save(tmp_path / "c.png", rgba)), rgb)
    assert image_size(tmp_path / "a.png") == (5, 7)


def test_images_of_16_bits_are_refused(tmp_path):
    path = save(tmp_path / "a.png", np.full((4, 4), 3000, np.uint16))
    with pytest.raises(UnreadableFileError, match=r"a\.png: an image must have 8 bits"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_image_is_named(tmp_path, rng, suffix):
    path = save(tmp_path / f"cut{suffix}", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UnreadableFileError, match="cut") as caught:
        read_image(path)
    assert caught.value.path == path


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_files_that_are_no_image_are_named(tmp_path, content):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"x\.png"):
        read_image(path)


def test_missing_files_are_named(tmp_path):
    for name, read in (("a.png", read_image), ("a.npy", read_depth), ("b.npy", read_normals)):
        with pytest.raises(UnreadableFileError, match=f"{name}: no such file"):
            read(tmp_path / name)


def test_palettes_give_indices(tmp_path):
    labels = np.asarray([[0, 1, 2], [3, 255, 1]], np.uint8)
    image = Image.fromarray(labels)
    image.putpalette([value for i in range(256) for value in (255 - i, i, 7)])
    image.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "P"
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), labels)


def test_labels_with_ignore_and_offset(tmp_path):
    path = save(tmp_path / "a.png", np.asarray([[0, 1, 2], [40, 255, 1]], np.uint8))
    labels = read_labels(path, ignore=0, offset=-1)
    np.testing.assert_array_equal(labels, [[255, 0, 1], [39, 255, 0]])
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(read_labels(path, ignore=2)[0], [0, 1, 255])
    # A class that becomes negative is not hidden.
    assert read_labels(path, offset=-1)[0, 0] == -1


def test_16_bit_labels_keep_their_classes(tmp_path):
    stored = np.asarray([[0, 300], [999, 5]], np.uint16)
    labels = read_labels(save(tmp_path / "a.png", stored))
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, stored)


def test_maps_of_several_channels_are_refused(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UnreadableFileError, match="one channel, found mode RGB"):
        read_labels(path)
    np.save(tmp_path / "a.npy", np.zeros((4, 4, 2)))
    with pytest.raises(UnreadableFileError, match=r"\(H, W\) numbers"):
        read_values(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.zeros((4, 4)))
    with pytest.raises(UnreadableFileError, match="integers"):
        read_labels(tmp_path / "b.npy")


def test_binary_maps(tmp_path):
    path = save(tmp_path / "a.png", np.asarray([[0, 127, 128, 255]], np.uint8))
    np.testing.assert_array_equal(read_binary(path, threshold=128), [[0, 0, 1, 1]])
    np.testing.assert_array_equal(read_binary(path, threshold=128, ignore=127), [[0, 255, 1, 1]])
    path = save(tmp_path / "b.png", np.asarray([[0, 1, 255]], np.uint8))
    np.testing.assert_array_equal(read_binary(path), [[0, 1, 255]])
    one_bit = save(tmp_path / "c.png", np.asarray([[0, 255]], np.uint8), "1")
    np.testing.assert_array_equal(read_binary(one_bit), [[0, 1]])


def test_16_bit_depth_with_a_scale(tmp_path):
    path = save(tmp_path / "a.png", np.asarray([[0, 1500], [65535, 10]], np.uint16))
    depth = read_depth(path, scale=0.001)
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, [[0, 1.5], [65.535, 0.01]], rtol=1e-6)
    np.testing.assert_allclose(read_depth(path, scale=0.001, ignore=65535)[1], [0, 0.01], rtol=1e-6)
    with pytest.raises(ArgumentError, match="scale must be positive"):
        read_depth(path, scale=0)


def test_npy_depth(tmp_path, rng):
    depth = rng.uniform(0, 5, (4, 6))
    for stored in (depth, depth[None], depth[..., None]):
        np.save(tmp_path / "a.npy", stored)
        np.testing.assert_array_equal(read_depth(tmp_path / "a.npy"), depth.astype(np.float32))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-9])
    with pytest.raises(UnreadableFileError, match=r"a\.npy"):
        read_depth(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.asarray([{}], object), allow_pickle=True)
    with pytest.raises(UnreadableFileError, match=r"b\.npy"):
        read_depth(tmp_path / "b.npy")


def test_normals_from_bytes_and_arrays(tmp_path, rng):
    normals = rng.normal(size=(6, 8, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    stored = np.round((normals + 1) * 127.5).astype(np.uint8)
    stored[0, 0] = 128  # as near to zero as bytes come
    stored[0, 1] = 0  # no unit vector
    read = read_normals(save(tmp_path / "a.png", stored))
    assert (read[0, :2] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(read[1:], axis=2), 1, atol=1e-6)
    assert np.degrees(np.arccos(np.clip((read * normals).sum(2)[1:], -1, 1))).max() < 1

    normals[0, 0] = 0
    for array in (normals, normals.transpose(2, 0, 1)):
        np.save(tmp_path / "a.npy", array)
        np.testing.assert_allclose(read_normals(tmp_path / "a.npy"), normals, atol=1e-6)
    normals[2, 2] = np.nan
    np.save(tmp_path / "a.npy", normals)
    assert np.isnan(read_normals(tmp_path / "a.npy")[2, 2]).all()
    np.save(tmp_path / "b.npy", normals[..., :2])
    with pytest.raises(UnreadableFileError, match=r"\(H, W, 3\)"):
        read_normals(tmp_path / "b.npy")
