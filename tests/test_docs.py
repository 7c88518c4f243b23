"""Every Python block of README and docs runs, and every command in them parses."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from export.__main__ import VERBS
from mtl_vision.__main__ import main

ROOT = Path(__file__).parents[1]
MODULES = {"mtl_vision", "mtl_tabular", "export"}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(rf"```{language}\n(.*?)```", text, re.DOTALL):
            line = text[: match.start()].count("\n") + 2
            found.append(pytest.param(match[1], id=f"{page.name}:{line}"))
    return found


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    # A block that begins with "# file.py" is a file that later commands name.
    named = re.match(r"# ([\w/]+\.py)\n", code)
    if named:
        (tmp_path / named[1]).write_text(code)
    exec(compile(code, "block", "exec"), {"__name__": "__docs__"})


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_parses(text):
    assert yaml.safe_load(text) is not None


def module_at(words: list[str]) -> int | None:
    """Where a command names one of our programs behind ``-m``."""
    pairs = enumerate(pairwise(words), 1)
    return next((i for i, (flag, word) in pairs if flag == "-m" and word in MODULES), None)


def commands() -> list:
    found = []
    for block in blocks("bash"):
        for line in block.values[0].replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if module_at(words) is not None:
                found.append(pytest.param(words, id=" ".join(words)[-70:]))
    return found


@pytest.mark.parametrize("words", commands())
def test_commands_name_files_and_verbs_that_exist(words):
    at = module_at(words)
    module, rest = words[at], words[at + 1 :]
    verbs = {"fit", "validate", "test", "predict", "baselines", "sweep", "profile"}
    verbs |= {"bench", "boost"} if module == "mtl_tabular" else set()
    assert rest[0] in (VERBS if module == "export" else verbs)
    for flag, value in pairwise(rest):
        if flag == "-c" and value.startswith("configs/"):
            assert (ROOT / value).is_file(), value


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_decoder_of_the_readme_trains(tmp_path, monkeypatch):
    """The block of the README, in a file outside of the project, by the README's own command."""
    (block,) = [b.values[0] for b in blocks("python") if b.values[0].startswith("# my_decoder.py")]
    (command,) = [c.values[0] for c in commands() if "my_decoder.MyDecoder" in c.values[0]]
    assert len([line for line in block.splitlines() if line.strip()]) <= 15
    (tmp_path / "my_decoder.py").write_text(block)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.argv", ["mtl_vision"])
    sizes = ["--data.train_size=4", "--data.val_size=2", "--data.batch_size=2"]
    quick = ["--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"]
    main([*command[command.index("mtl_vision") + 1 :], *sizes, *quick])
