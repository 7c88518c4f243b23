import json

import pytest

from mtl_core.baselines import References, plan_hash, protocol_of, record, recorded_path
from mtl_core.errors import ArgumentError, MissingTaskError, MixedProtocolError
from mtl_core.tasks import Classification, Regression

TASKS = {"kind": Classification(num_classes=2), "size": Regression()}


def config() -> dict:
    return {
        "seed_everything": 0,
        "tasks": {"kind": {"class_path": "Classification"}},
        "data": {"class_path": "D", "init_args": {"root": "here", "num_workers": 0}},
        "model": {"class_path": "M", "init_args": {"network": {"width": 4}, "tasks": None}},
        "trainer": {"max_epochs": 3, "callbacks": None, "logger": True, "devices": 1},
    }


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("seed_everything",), 1),
        (("trainer", "callbacks"), [{"class_path": "PCGrad"}]),
        (("trainer", "logger"), False),
        (("trainer", "devices"), 2),
        (("trainer", "default_root_dir"), "elsewhere"),
        (("data", "init_args", "num_workers"), 4),
        (("references",), "numbers.yaml"),
    ],
)
def test_plan_ignores_what_leaves_single_task_runs_alone(keys, value):
    assert changed(keys, value) == plan_hash(config())


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("trainer", "max_epochs"), 4),
        (("trainer", "precision"), "bf16-mixed"),
        (("data", "class_path"), "E"),
        (("data", "init_args", "root"), "there"),
        (("model", "init_args", "network"), {"width": 5}),
        (("tasks", "kind"), {"class_path": "Regression"}),
    ],
)
def test_plan_follows_what_changes_single_task_runs(keys, value):
    assert changed(keys, value) != plan_hash(config())


def changed(keys, value) -> str:
    whole = config()
    inner = whole
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return plan_hash(whole)


def test_plan_does_not_depend_on_the_order_of_keys():
    assert plan_hash(dict(reversed(config().items()))) == plan_hash(config())


def write(folder, task, seed, scores, protocol=""):
    return record(
        folder,
        digest="abc",
        task=task,
        protocol=protocol,
        seed=seed,
        scores={"val": scores},
        facts={"versions": {}},
        settings={"tasks": {}},
    )


def test_references_are_means_over_seeds_and_a_seed_is_replaced(tmp_path):
    write(tmp_path, "kind", 0, {"accuracy": 0.1})
    for seed, accuracy in ((0, 0.4), (1, 0.6)):
        path = write(tmp_path, "kind", seed, {"accuracy": accuracy, "f1": float("nan")})
    write(tmp_path, "size", 0, {"rmse": 2.0})
    assert path == recorded_path(tmp_path, "abc")
    held = References.load(path)
    assert held.scores == {"val": {"kind": {"accuracy": 0.5}, "size": {"rmse": 2.0}}}
    assert held.seeds == (0, 1)
    assert held.plan_hash == "abc"
    assert len(json.loads(path.read_text())["runs"]) == 3


def test_protocol_is_that_of_the_tasks_that_have_one(tmp_path):
    for task, protocol in (("first", ""), ("depth", "atrc"), ("last", "")):
        path = write(tmp_path, task, 0, {"rmse": 1.0}, protocol)
    assert References.load(path).protocol == "atrc"


def test_gains_point_the_right_way(tmp_path):
    write(tmp_path, "kind", 0, {"accuracy": 0.5})
    held = References.load(write(tmp_path, "size", 0, {"rmse": 2.0}))
    scores = {"kind": {"accuracy": 0.55}, "size": {"rmse": 1.0, "mae": 0.5}}
    gains = held.gains(scores, "val", TASKS)
    assert gains == {"kind": pytest.approx(10), "size": pytest.approx(50)}
    assert held.gains(scores, "test", TASKS) == {}, "no reference of this split"
    assert held.gains({"kind": scores["kind"]}, "val", TASKS) == {}, "a task without labels"


def test_numbers_written_by_hand_serve_every_split(tmp_path):
    path = tmp_path / "paper.yaml"
    path.write_text("protocol: survey\ntasks:\n  kind: {accuracy: 0.5}\n  size: {rmse: 1}\n")
    held = References.load(path)
    assert held.scores["val"] == held.scores["test"]
    with pytest.raises(MixedProtocolError, match=r"this run: .*the references: survey"):
        held.check(TASKS)


def test_bad_references_are_refused(tmp_path):
    path = tmp_path / "paper.yaml"
    with pytest.raises(ArgumentError, match="references must name a file"):
        References.load(path)
    path.write_text("kind: 3\n")
    with pytest.raises(ArgumentError, match="hold a block 'tasks'"):
        References.load(path)
    path.write_text("tasks: {kinds: {accuracy: 1}}\n")
    with pytest.raises(MissingTaskError, match=r"'kind' has none.*mean 'kinds'"):
        References.load(path).check(TASKS)


def test_one_protocol():
    assert protocol_of(TASKS) == ""
