import csv
from pathlib import Path

import pytest
from PIL import Image

from mtl_tabular.bench.command import main, parse

CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "bench").glob("*.yaml"))
TOY = """
networks:
  hard sharing:
    network: {class_path: SharedBottom, init_args: {token_width: 0, shared: [8], tower: [4]}}
    lr: 0.05
  experts:
    network: {class_path: MMoE, init_args: {token_width: 0, experts: 2, expert: [8], tower: [4]}}
task_counts: [2, 3]
complexities: {easy: [1, 2]}
seeds: 2
num_features: 4
train_size: 256
test_size: 128
batch_size: 64
epochs: 1
accelerator: cpu
"""


@pytest.fixture
def words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(TOY)
    return ["-c", "toy.yaml", "--out", "out"]


def test_two_task_counts_two_networks_two_seeds(words, capsys):
    main(words)
    out = capsys.readouterr().out
    rows = list(csv.DictReader(Path("out/results.csv").read_text().splitlines()))
    assert len({row["run"] for row in rows}) == 2 * 2 * (3 + 4)
    assert {row["status"] for row in rows if row["status"]} == {"ok"}
    table = Path("out/delta_m.md").read_text()
    assert table.count("2 of 2") == 4
    assert table.strip().splitlines()[0] in out
    with Image.open("out/delta_m.png") as picture:
        assert min(picture.size) > 300
    before = Path("out/results.csv").read_bytes()
    main(words)
    assert Path("out/results.csv").read_bytes() == before


def test_every_argument_is_open_to_the_shell(words):
    changed = ["--seeds=3", "--correlations=[0.1, 0.2]", "--networks.experts.lr=0.5"]
    plan = parse([*words, *changed, "--networks.experts.network.experts=5"])
    assert (plan.seeds, plan.correlations) == (3, (0.1, 0.2))
    assert plan.networks["experts"].lr == 0.5
    assert plan.networks["experts"].network.keywords["experts"] == 5
    assert plan.networks["hard sharing"].lr == 0.05


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_configs_are_plans(path):
    plan = parse(["-c", str(path)])
    assert len(plan.settings()) > 1
    assert len(plan.networks) > 1
    if path.stem == "complexity":
        assert plan.axis_values("complexity") == ["uniform 2", "uniform 3", "mixed"]
    else:
        assert plan.axis() == {"tasks": "num_tasks", "correlation": "correlation"}[path.stem]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_configs_run_at_toy_size(path, tmp_path, monkeypatch):
    """With one setting, one seed and few rows; sizes of the networks are the config's own."""
    monkeypatch.chdir(tmp_path)
    small = ["--task_counts=[2]", "--correlations=[0.4]", "--complexities={easy: [1, 2]}"]
    small += ["--seeds=1", "--train_size=64", "--test_size=64", "--batch_size=32", "--epochs=1"]
    main(["-c", str(path), *small, "--num_features=4", "--accelerator=cpu", "--out=out"])
    rows = list(csv.DictReader(Path("out/results.csv").read_text().splitlines()))
    assert {row["status"] for row in rows if row["status"]} == {"ok"}, rows


def test_mistakes_end_with_a_message(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*words, "--seeds=0"])
    assert ended.value.code == 2
    assert "seeds must be at least 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, '--networks={"x": {"network": {"class_path": "MMoEE"}}}'])
    assert "Did you mean MMoE" in capsys.readouterr().err
