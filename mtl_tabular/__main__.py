"""``python -m mtl_tabular``: fit, validate, test, predict and further verbs."""

import sys
from collections.abc import Sequence

import mtl_core.balancing
import mtl_core.modules
import mtl_core.nn
import mtl_core.tasks
import mtl_tabular.callbacks
import mtl_tabular.data
import mtl_tabular.networks
import mtl_tabular.tasks
from mtl_core.single_task import main as run
from mtl_tabular.cli import TabularCLI, TabularSingleTaskCLI

COMPONENTS = (
    mtl_core.balancing,
    mtl_core.modules,
    mtl_core.nn,
    mtl_core.tasks,
    mtl_tabular.callbacks,
    mtl_tabular.data,
    mtl_tabular.networks,
    mtl_tabular.tasks,
)
"""Packages whose classes a config may name without their package: being imported is enough."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: words; None reads those of the shell.
    """
    words = sys.argv[1:] if args is None else list(args)
    if words[:1] == ["bench"]:
        from mtl_tabular.bench import main as bench

        bench(words[1:])
    elif words[:1] == ["boost"]:
        from mtl_tabular.boosting.command import main as boost

        boost(words[1:])
    elif words[:1] == ["sweep"]:
        from mtl_core.sweep.command import main as sweep

        sweep("mtl_tabular.__main__", words[1:])
    elif words[:1] == ["profile"]:
        from mtl_core.profile.command import main as profile

        profile("mtl_tabular", TabularCLI, words[1:])
    else:
        run(TabularCLI, TabularSingleTaskCLI, args)


if __name__ == "__main__":
    main()
