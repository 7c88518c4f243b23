"""A few tiny files in the layout of every data set: what its tests and its config read."""

import gzip
import struct

import numpy as np
import scipy.io
from PIL import Image

NYUD_SIZE = (24, 32)


def write_nyud(root):
    """NYUD-MT: four training and two validation images."""
    rng = np.random.default_rng(0)
    for folder in ("gt_sets", "images", "segmentation", "depth", "normals", "edge"):
        (root / folder).mkdir(parents=True)
    names = {"train": [f"{i:04d}" for i in range(4)], "val": ["1000", "1001"]}
    for split, members in names.items():
        (root / "gt_sets" / f"{split}.txt").write_text("\n".join(members) + "\n")
        for name in members:
            image = rng.integers(0, 256, (*NYUD_SIZE, 3), dtype=np.uint8)
            labels = np.repeat(np.arange(32, dtype=np.uint8)[None] + 9, 24, 0)
            labels[:, :2] = 0
            normals = np.tile(np.asarray([255, 128, 128], np.uint8), (*NYUD_SIZE, 1))
            edge = np.zeros(NYUD_SIZE, np.uint8)
            edge[:, 10] = 255
            for folder, array in (
                ("images", image),
                ("segmentation", labels),
                ("normals", normals),
                ("edge", edge),
            ):
                Image.fromarray(array).save(root / folder / f"{name}.png")
            np.save(root / "depth" / f"{name}.npy", np.full(NYUD_SIZE, 2.5, np.float32))
    return root


CITYSCAPES_SIZE = (16, 32)


def write_cityscapes(root):
    """Cityscapes: two training cities, one for validation."""
    rng = np.random.default_rng(0)
    labels = np.arange(512, dtype=np.uint16).reshape(CITYSCAPES_SIZE) % 34
    disparity = np.full(CITYSCAPES_SIZE, 1 + 256 * 40, np.uint16)
    disparity[0] = 0
    disparity[1] = 1
    for split, scene in (("train", "aachen"), ("train", "ulm"), ("val", "lindau")):
        for folder, ending, array in (
            (
                "leftImg8bit",
                "leftImg8bit",
                rng.integers(0, 256, (*CITYSCAPES_SIZE, 3), dtype=np.uint8),
            ),
            ("gtFine", "gtFine_labelIds", labels.astype(np.uint8)),
            ("disparity", "disparity", disparity),
        ):
            place = root / folder / split / scene
            place.mkdir(parents=True)
            Image.fromarray(array).save(place / f"{scene}_000000_000019_{ending}.png")
    return root


PASCAL_SIZE = (20, 30)


def rectangle(*box):
    mask = np.zeros(PASCAL_SIZE, np.uint8)
    mask[box[0] : box[1], box[2] : box[3]] = 1
    return mask


def structs(records, fields):
    """A 1xN MATLAB struct array."""
    array = np.empty((1, len(records)), dtype=[(field, object) for field in fields])
    for i, record in enumerate(records):
        array[0, i] = tuple(record)
    return array


def annotation(*objects):
    """A PASCAL-Part annotation: (class, index, [(part, mask), ...]) for every object."""
    fields = ("class", "class_ind", "mask", "parts")
    records = [
        (name, index, np.ones(PASCAL_SIZE, np.uint8), structs(parts, ("part_name", "mask")))
        for name, index, parts in objects
    ]
    return {"anno": structs([("img", structs(records, fields))], ("imname", "objects"))}


PERSON = ("person", 15, [("head", rectangle(0, 5, 5, 10)), ("lfoot", rectangle(15, 20, 5, 10))])
OTHER = ("person", 15, [("ruarm", rectangle(5, 10, 20, 25))])
HORSE = ("horse", 13, [("head", rectangle(0, 20, 25, 30))])


def write_pascal(root):
    """PASCAL-Context-MT: one training and two validation images."""
    rng = np.random.default_rng(0)
    folders = ("ImageSets/Context", "JPEGImages", "semseg/VOC12", "semseg/pascal-context")
    more = ("human_parts", "normals_distill", "sal_distill", "pascal-context/trainval")
    for folder in folders + more:
        (root / folder).mkdir(parents=True)
    (root / "ImageSets/Context/train.txt").write_text("2008_000001\n")
    (root / "ImageSets/Context/val.txt").write_text("2008_000002\n2008_000003\n")
    context = np.full(PASCAL_SIZE, 360, np.uint16)  # sky: no class of NYUDv2
    context[8:] = 158  # floor
    for name in ("2008_000001", "2008_000002", "2008_000003"):
        image = rng.integers(0, 256, (*PASCAL_SIZE, 3), dtype=np.uint8)
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg")
        labels = np.full(PASCAL_SIZE, 4, np.uint8)
        labels[:, -1] = 255
        Image.fromarray(labels).save(root / "semseg/pascal-context" / f"{name}.png")
        normals = np.tile(np.asarray([128, 0, 128], np.uint8), (*PASCAL_SIZE, 1))
        Image.fromarray(normals).save(root / "normals_distill" / f"{name}.png")
        saliency = np.tile(np.linspace(0, 255, 30).astype(np.uint8), (20, 1))
        Image.fromarray(saliency).save(root / "sal_distill" / f"{name}.png")
        scipy.io.savemat(root / "pascal-context/trainval" / f"{name}.mat", {"LabelMap": context})
        people = annotation(HORSE) if name.endswith("3") else annotation(PERSON, HORSE, OTHER)
        scipy.io.savemat(root / "human_parts" / f"{name}.mat", people)
    voc = np.full(PASCAL_SIZE, 20, np.uint8)
    Image.fromarray(voc).save(root / "semseg/VOC12/2008_000002.png")
    return root


def idx(array):
    """An array as an IDX file."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_fashion(folder, *, compress=True):
    """Fashion-MNIST as IDX files, gzipped or not."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"{part}-{name}-ubyte"
            if compress:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(idx(array)))
            else:
                path.write_bytes(idx(array))


def write_camvid(root, *, count=4):
    """CamVid at a quarter of its size, in the folders of the shared copy."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for folder in ("image", "label"):
            (root / split / folder).mkdir(parents=True)
        for i in range(count):
            labels = np.repeat(rng.integers(0, 12, (9, 12), dtype=np.uint8), 5, 0).repeat(5, 1)
            image = rng.integers(0, 256, (45, 60, 3), dtype=np.uint8)
            Image.fromarray(labels).save(root / split / "label" / f"{i}.png")
            Image.fromarray(image).save(root / split / "image" / f"{i}.jpg")
    return root


def write_images(folder, count=2):
    """A folder of photographs without labels."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for i in range(count):
        image = rng.integers(0, 256, (45, 60, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"photo{i}.jpg")
