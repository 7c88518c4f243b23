import pytest

from mtl_core.compare import Comparison, jobs_of
from mtl_core.compare.comparison import differing
from mtl_core.compare.jobs import config_words, profile_trial, run_folder, trials_of
from mtl_core.errors import UnknownNameError

MANY = {f"method_{c}": [f"--who={c}"] for c in "abcdef"}


def plan_of(plan_file, **more):
    return Comparison.load(plan_file(**more)).plan


def test_a_block_holds_every_method_and_single_task_once(plan_file):
    plan = plan_of(plan_file, seeds=[4, 9])
    blocks = jobs_of(plan)
    assert [{job.seed for job in block} for block in blocks] == [{4}, {9}]
    expected = {("sum", ""), ("famo", ""), ("single", "left"), ("single", "right")}
    for number, block in enumerate(blocks, 1):
        assert {(job.method, job.task) for job in block} == expected
        assert [job.position for job in block] == [1, 2, 3, 4]
        assert {job.block for job in block} == {number}
    assert len(jobs_of(plan_of(plan_file, single=False))[0]) == 2


def test_order_is_drawn_in_each_block_and_stays_what_it_was(plan_file):
    plan = plan_of(plan_file, methods=MANY, baseline="method_a", seeds=8, single=False)
    orders = {tuple(job.method for job in block) for block in jobs_of(plan)}
    assert len(orders) == 8
    longer = plan_of(plan_file, methods=MANY, baseline="method_a", seeds=12, single=False)
    assert jobs_of(longer)[:8] == jobs_of(plan)


def test_every_run_of_a_block_gets_its_seed(plan_file, tmp_path):
    comparison = Comparison.load(plan_file(seeds=[7]))
    (block,) = jobs_of(comparison.plan)
    for job in block:
        single = tmp_path / "left.yaml" if job.task else None
        words = config_words(comparison, job, single)
        assert words[-2:] == ("--seed_everything=7", "--data.seed=7")
        assert ("--who=famo" in words) == (job.method == "famo")


def job_of(comparison, method):
    return next(job for job in jobs_of(comparison.plan)[0] if job.method == method)


def test_test_takes_the_last_weights_of_fit(plan_file, tmp_path):
    comparison = Comparison.load(plan_file())
    found = trials_of(comparison, job_of(comparison, "sum"), tmp_path / "run")
    assert list(found) == ["fit", "test"]
    (fit,), (test,) = found["fit"].commands, found["test"].commands
    weights = str(tmp_path / "run" / "fit" / "checkpoints")
    assert any(f'"dirpath": "{weights}"' in word for word in fit)
    assert f"--ckpt_path={weights}/last.ckpt" in test
    other = Comparison.load(plan_file(split="val"))
    assert list(trials_of(other, job_of(other, "sum"), tmp_path)) == ["fit"]


def test_a_method_trained_twice_begins_with_what_the_first_training_left(plan_file, tmp_path):
    begun = {"set": {"who": "warm", "epochs": 2}, "first": {"set": {"epochs": 1}}}
    begun["words"] = ["--start={first}", '--net={"from": "{first}"}']
    methods = {"sum": ["--who=sum"], "warm": begun}
    comparison = Comparison.load(plan_file(methods=methods))
    job = job_of(comparison, "warm")
    found = trials_of(comparison, job, tmp_path)
    assert list(found) == ["first", "fit", "test"]
    (first,), (fit,) = found["first"].commands, found["fit"].commands
    left = tmp_path / "first" / "checkpoints" / "last.ckpt"
    assert "--epochs=1" in first
    assert "--who=warm" not in first
    assert f"--data.seed={job.seed}" in first
    assert {f"--start={left}", f'--net={{"from": "{left}"}}', "--epochs=2"} <= set(fit)
    assert list(trials_of(comparison, job_of(comparison, "sum"), tmp_path)) == ["fit", "test"]
    (profile,) = profile_trial(comparison, "warm", tmp_path).commands
    assert {"--start=null", '--net={"from": null}'} <= set(profile)
    shorter = {**methods, "warm": {**begun, "first": {"set": {"epochs": 3}}}}
    changed = Comparison.load(plan_file(methods=shorter))
    assert differing(comparison.definition, changed.definition) == ["method warm"]
    with pytest.raises(UnknownNameError, match="first"):
        Comparison.load(plan_file(methods={**methods, "warm": {"first": {"first": {}}}}))


def test_folders_differ_and_tell_no_names_where_blind(plan_file, tmp_path):
    methods = {"a b": [], "a_b": [], "a/b": []}
    for blind in (False, True):
        plan = plan_of(plan_file, methods=methods, baseline=None, blind=blind)
        folders = {run_folder(tmp_path, job, plan) for block in jobs_of(plan) for job in block}
        assert len(folders) == 2 * 5
        if blind:
            assert not any("a_b" in folder.name or "a b" in folder.name for folder in folders)
    job = next(job for job in jobs_of(plan)[0] if not job.task)
    assert job.shown(plan, blind=True) == plan.codes[job.method]
    assert job.shown(plan, blind=False) == job.method
