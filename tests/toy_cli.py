"""What the tests of the command line train: importable classes, so that configs can name them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn

from mtl_core.data.datamodule import MultiTaskDataModule
from mtl_core.errors import ArgumentError
from mtl_core.nn import Decoder, FeatureInfo, Features, LinearDecoder, MultiTaskNetwork
from mtl_core.tasks import Task


class Shared(MultiTaskNetwork):
    """A linear trunk with exchangeable decoders."""

    def __init__(
        self,
        tasks: Mapping[str, Task],
        *,
        width: int = 4,
        decoder: Callable[[FeatureInfo, Task], Decoder] = LinearDecoder,
        decoders: dict[str, Callable[[FeatureInfo, Task], Decoder]] | None = None,
    ) -> None:
        super().__init__(tasks)
        unknown = set(decoders or {}) - set(tasks)
        assert not unknown, unknown
        if width < 1:
            raise ArgumentError("width", "be positive", width)
        info = FeatureInfo((width,), (1,))
        self.trunk = nn.Linear(3, width)
        self.heads = nn.ModuleDict(
            {name: (decoders or {}).get(name, decoder)(info, task) for name, task in tasks.items()}
        )

    def encode(self, inputs, tags=None):
        return Features([self.trunk(inputs)])

    def decode(self, features, task) -> torch.Tensor:
        return self.heads[task](features)

    def decoder_modules(self, task) -> Sequence[nn.Module]:
        return [self.heads[task]]


class _Rows:
    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        x = np.random.default_rng((self.seed, index)).normal(size=3).astype("float32")
        targets = {"largest": np.int64(x.argmax()), "total": np.float32(x.sum())}
        return {"inputs": x, "targets": targets, "key": f"folder/row {index}.png"}


class Points(MultiTaskDataModule):
    """Three numbers; which is largest, and their sum."""

    def __init__(self, tasks: dict[str, Task], *, count: int = 16, batch_size: int = 8) -> None:
        super().__init__(tasks, batch_size=batch_size)
        self.count = count

    def dataset(self, split):
        return _Rows(self.count, ("train", "val", "test", "predict").index(split))


def config(folder: Path, **trainer) -> dict:
    """A config of two tasks whose files go below `folder`."""
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger"}
    return {
        "tasks": {
            "largest": {"class_path": "Classification", "init_args": {"num_classes": 3}},
            "total": {"class_path": "Regression"},
        },
        "model": {
            "class_path": "MultiTaskModule",
            "init_args": {
                "network": {
                    "class_path": "Shared",
                    "init_args": {
                        "decoders": {
                            "largest": {
                                "class_path": "LinearDecoder",
                                "init_args": {"dropout": 0.1},
                            }
                        }
                    },
                },
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
            },
        },
        "data": {"class_path": "Points"},
        "baselines_dir": str(folder / "baselines"),
        "trainer": {
            "max_epochs": 2,
            "accelerator": "cpu",
            "default_root_dir": str(folder),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": {**logger, "init_args": {"save_dir": str(folder)}},
            **trainer,
        },
    }


def write_config(folder: Path, **trainer) -> Path:
    """The same as a file."""
    path = folder / "config_in.yaml"
    path.write_text(yaml.safe_dump(config(folder, **trainer), sort_keys=False))
    return path
