"""``python -m mtl_vision``: fit, validate, test, predict, baselines, sweep, profile."""

import sys
from collections.abc import Sequence
from typing import ClassVar

import lightning as L

import mtl_core.balancing
import mtl_core.modules
import mtl_core.nn
import mtl_core.tasks
import mtl_vision.callbacks
import mtl_vision.data
import mtl_vision.decoders
import mtl_vision.encoders
import mtl_vision.networks
import mtl_vision.tasks
from mtl_core.cli import KINDS, MultiTaskCLI, MultiTaskParser
from mtl_core.single_task import SingleTaskCLI
from mtl_core.single_task import main as run
from mtl_vision.callbacks import ImagePredictionWriter, PredictionSheet
from mtl_vision.encoders import Encoder

COMPONENTS = (
    mtl_core.balancing,
    mtl_core.modules,
    mtl_core.nn,
    mtl_core.tasks,
    mtl_vision.callbacks,
    mtl_vision.data,
    mtl_vision.decoders,
    mtl_vision.encoders,
    mtl_vision.networks,
    mtl_vision.tasks,
)
"""Packages whose classes a config may name without their package: being imported is enough."""


class VisionParser(MultiTaskParser):
    """Knows encoders besides."""

    kinds: ClassVar[dict[str, type]] = {**KINDS, "encoder": Encoder}


class VisionCLI(MultiTaskCLI):
    """The command line with prediction sheets, and pictures among the predictions."""

    reports: ClassVar[dict[str, type[L.Callback]]] = {
        **MultiTaskCLI.reports,
        "report.sheet": PredictionSheet,
        "predictions": ImagePredictionWriter,
    }
    parser_type = VisionParser


class VisionSingleTaskCLI(SingleTaskCLI, VisionCLI):
    """The same for the single-task runs of ``baselines``."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: words; None reads those of the shell.
    """
    words = sys.argv[1:] if args is None else list(args)
    if words[:1] == ["sweep"]:
        from mtl_core.sweep.command import main as sweep

        sweep("mtl_vision.__main__", words[1:])
    elif words[:1] == ["profile"]:
        from mtl_core.profile.command import main as profile

        profile("mtl_vision", VisionCLI, words[1:])
    else:
        run(VisionCLI, VisionSingleTaskCLI, args)


if __name__ == "__main__":
    main()
