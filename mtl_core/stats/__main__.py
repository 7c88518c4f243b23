"""``python -m mtl_core.stats report results.parquet --plan plan.yaml``."""

from mtl_core.broken_pipe import quiet_broken_pipe
from mtl_core.stats.command import main

if __name__ == "__main__":
    with quiet_broken_pipe():
        main()
