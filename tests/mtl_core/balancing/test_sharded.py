"""Two gloo processes with FSDP2 equal one process."""

import sys
from pathlib import Path

import pytest
import torch
from processes import run_ranks

sys.path.insert(0, str(Path(__file__).parent))
from sharded_worker import METHODS, train

pytestmark = pytest.mark.ddp


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both processes ended with."""
    out = tmp_path_factory.mktemp("sharded")
    return run_ranks("sharded_worker", out, folder=Path(__file__).parent)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("how", ["cut", "uncut", "heads", "part"])
def test_two_sharded_processes_equal_one(ranks, name, how):
    if name == "Equal" and how != "uncut":
        how = "uncut"
    wanted = train(name, 0, 1, cut=how != "uncut")
    for found in ranks:
        for key, value in wanted.items():
            torch.testing.assert_close(found[f"{name} {how}"][key], value)


def test_methods_on_whole_parameters_are_refused(ranks):
    assert "DBMTL works on whole parameters" in ranks[0]["DBMTL"]
    assert "sharded parameters go with gram: exact" in ranks[0]["feature"]


def test_a_task_on_one_rank_only_is_refused_on_both(ranks):
    for found in ranks:
        assert "b had none on some rank" in found["absent"]
