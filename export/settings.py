"""What a build is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from export.moe import MoESettings
from export.operators import Profile
from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.types import TaskName

Layout = Literal["per-task", "all"]
Precision = Literal["fp32", "int8-dynamic", "int8-static", "fp16"]
Form = Literal["auto", "nonzero", "dense", "capacity", "sorted"]

SINGLE_FILE_BYTES = 20_000_000
"""A model of one graph below this size keeps its weights in the graph."""


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """Options of `export.build.build`; the command line has one of each.

    Args:
        tasks: to export; None for all.
        layout: ``per-task`` writes one graph a task over one file of weights, ``all`` one graph
            with every task as an output, which runs a shared encoder once.
        profile: what the graphs shall run on, see `export.operators.ALLOWED`. ``fpga`` fixes the
            batch to 1.
        moe: form of layers of experts, see `export.moe.MoESettings`.
        capacity_factor: slots of an expert over its even share, for ``capacity`` and ``sorted``.
        keep_experts: None; ``window``: those of the trained routing windows, exact; a number:
            the most used ones, lossy.
        opset: 17 to 23.
        static_batch: fixed batch size; None leaves it free.
        single_file: weights inside of each graph; None decides by size.
        precision: ``fp32``, or a variant to be added to it.
        size: height and width of images where neither data nor network say them.
        bake_preprocess: images go into the graphs as bytes (B, H, W, 3), so that scaling and order
            of axes are inside too. Resampling to their size stays outside: ONNX has no kernel that
            equals those of training.
        config: YAML file of the run, where it does not lie beside the checkpoint.
        allow_drift: record comparisons that fail instead of refusing.
        allow_batch_dependence: export networks whose samples see each other.
        metrics: score the graphs on the validation split, where there is one.
        metric_samples: at most so many samples of it; None for all.
        calibration: samples for ``int8-static``.
        max_drop: of primary metrics by removed experts, int8 or fp16, absolute.
    """

    tasks: tuple[TaskName, ...] | None = None
    layout: Layout = "per-task"
    profile: Profile = "cpu"
    moe: Form = "auto"
    capacity_factor: float | None = None
    keep_experts: Literal["window"] | int | None = None
    opset: int = 20
    static_batch: int | None = None
    single_file: bool | None = None
    precision: Precision = "fp32"
    size: tuple[int, int] | None = None
    bake_preprocess: bool = False
    config: Path | None = None
    allow_drift: bool = False
    allow_batch_dependence: bool = False
    metrics: bool = True
    metric_samples: int | None = None
    calibration: int = 256
    max_drop: float = 0.005

    def __post_init__(self) -> None:
        for name, value, known in (
            ("layout", self.layout, Layout),
            ("profile", self.profile, Profile),
            ("moe", self.moe, Form),
            ("precision", self.precision, Precision),
        ):
            if value not in get_args(known):
                raise UnknownNameError(name, value, get_args(known))
        numbers = (
            ("static_batch", self.static_batch),
            ("metric_samples", self.metric_samples),
            ("calibration", self.calibration),
        )
        for name, number in numbers:
            if number is not None and number < 1:
                raise ArgumentError(name, "be at least 1", number)
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ArgumentError("size", "be a positive height and width", self.size)
        if not self.max_drop >= 0:
            raise ArgumentError("max_drop", "not be negative", self.max_drop)

    @property
    def batch(self) -> int | None:
        """The fixed batch size, None where it is free."""
        return 1 if self.profile == "fpga" and self.static_batch is None else self.static_batch

    @property
    def experts(self) -> MoESettings:
        """What `export.moe.convert` is told."""
        return MoESettings(
            form=self.moe,
            profile=self.profile,
            capacity_factor=self.capacity_factor,
            keep=self.keep_experts,
        )
