"""One thread a worker: pytest runs a worker a core, and threads that wait for each other spin."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

LONG = (
    "test_configs",
    "test_sweep_killed",
    "test_tabular_configs",
    "test_compare_configs",
    "test_sweep_configs",
    "test_ddp",
)
"""Modules of a minute and more: begun last, one worker would end them while others wait."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules first."""
    items.sort(key=lambda item: item.path.stem not in LONG)


# Imported by tests under their own names; collecting them for doctests would import them twice.
collect_ignore = ["ddp_worker.py", "toy_cli.py", "toy_files.py", "toys.py"]
