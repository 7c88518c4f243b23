"""Networks to export, and checkpoints of them without a training."""

from functools import partial
from pathlib import Path

import torch
import yaml
from dense_laws import scramble
from toy_tables import wide_frame, wide_tasks, write_wide_csv

from export.source import Source, load_source
from mtl_core.nn import MultiTaskNetwork
from mtl_core.rebuild import describe
from mtl_core.tasks import Classification
from mtl_tabular.data import TableSchema
from mtl_tabular.networks import MultiTabNet, SharedBottom
from mtl_vision.decoders import LinearMapDecoder
from mtl_vision.encoders import TimmEncoder
from mtl_vision.networks import HardSharing
from mtl_vision.tasks import DepthEstimation, SemanticSegmentation

SIZE = (32, 48)
"""Height and width of `image_network`'s pictures."""


def image_network() -> HardSharing:
    """A small transformer under a segmentation, a depth and a class of the whole image."""
    torch.manual_seed(0)
    tasks = {
        "semseg": SemanticSegmentation(num_classes=3, class_names=("wall", "floor", "bed")),
        "depth": DepthEstimation(),
        "scene": Classification(num_classes=2),
    }
    shape = {"embed_dim": 24, "depth": 1, "num_heads": 2}
    encoder = partial(TimmEncoder, "vit_tiny_patch16_224", img_size=SIZE, model_args=shape)
    network = HardSharing(tasks, encoder=encoder, decoder=LinearMapDecoder)
    scramble(network)
    return network


def table_network(kind: type[MultiTaskNetwork] = MultiTabNet, **options) -> MultiTaskNetwork:
    """A network on the columns of `toy_tables.wide_frame`, with its three kinds of tasks."""
    torch.manual_seed(0)
    frame = wide_frame(missing=True)
    tasks = {name: task.fit(name, frame[name]) for name, task in wide_tasks().items()}
    schema = TableSchema.fit(frame.drop(columns=list(tasks)))
    small: dict[str, object] = {}
    if kind is MultiTabNet:
        small = {"depth": 1, "width": 8, "feedforward": 16, "head_hidden": (8,)}
    elif kind is SharedBottom:
        small = {"token_width": 4, "shared": (32,), "tower": ()}
    options = small | options
    network = kind(tasks, schema=schema, **options)
    scramble(network)
    return network


def write_checkpoint(path: Path, network: MultiTaskNetwork, **replaced) -> Path:
    """What the command line would have saved of a network; `replaced` keys are overwritten."""
    held = {
        "state_dict": {f"network.{k}": v for k, v in network.state_dict().items()},
        "hyper_parameters": dict(describe(network)),
        **replaced,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(held, path)
    return path


def image_source() -> Source:
    """`image_network` as it is, without data."""
    return Source(image_network(), None, None, "mtl_vision.networks.hard_sharing.HardSharing")


def small_source() -> Source:
    """The cheapest network to export, without data."""
    return Source(table_network(SharedBottom), None, None, "mtl_tabular.networks.SharedBottom")


def table_run(folder: Path) -> Path:
    """A run folder of `table_network` on a CSV file: checkpoint and ``config.yaml``."""
    table = write_wide_csv(folder / "table.csv", missing=True)
    data = {"class_path": "mtl_tabular.data.TableDataModule", "init_args": {"table": str(table)}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    write_checkpoint(folder / "checkpoints" / "last.ckpt", table_network(SharedBottom))
    return folder


def table_source(folder: Path) -> Source:
    """`table_run`, loaded."""
    return load_source(table_run(folder))
