"""Samples, batches, splits and loaders of every modality."""

from mtl_core.data.batch import Batch, Sample, batch_size, collate
from mtl_core.data.datamodule import MultiTaskDataModule
from mtl_core.data.dataset import SampleDataset, Split, SplitDataset, Transform
from mtl_core.data.loader import SampleLoader, check_batch
from mtl_core.data.mixture import MixtureSampler, mixing_shares
from mtl_core.data.multi_source import MultiSource
from mtl_core.data.sampler import EvaluationSampler, ShuffleSampler, TrainingSampler
from mtl_core.data.split import SampleSubset, train_val_split

__all__ = [
    "Batch",
    "EvaluationSampler",
    "MixtureSampler",
    "MultiSource",
    "MultiTaskDataModule",
    "Sample",
    "SampleDataset",
    "SampleLoader",
    "SampleSubset",
    "ShuffleSampler",
    "Split",
    "SplitDataset",
    "TrainingSampler",
    "Transform",
    "batch_size",
    "check_batch",
    "collate",
    "mixing_shares",
    "train_val_split",
]
