"""``python -m mtl_core compare -c plan.yaml``."""

import sys
from collections.abc import Sequence

VERBS = ("compare",)
"""What can be asked for; runs themselves are verbs of the modalities."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: words; None reads those of the shell.
    """
    words = sys.argv[1:] if args is None else list(args)
    if words[:1] != ["compare"]:
        sys.stderr.write(
            "usage: python -m mtl_core compare -c plan.yaml\n"
            "python -m mtl_vision and python -m mtl_tabular run fit, test and the other verbs;\n"
            "python -m mtl_core.stats report makes the report of a table of results.\n"
        )
        sys.exit(0 if words[:1] in (["-h"], ["--help"]) else 2)
    from mtl_core.compare.command import main as compare

    compare(words[1:])


if __name__ == "__main__":
    main()
