"""One thread a worker: pytest runs a worker a core, and threads that wait for each other spin."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

# Imported by tests under their own names; collecting them for doctests would import them twice.
collect_ignore = ["ddp_worker.py", "toy_cli.py", "toy_files.py", "toys.py"]
