"""A component is complete: public, described, exported, tested and configured.

Nothing here runs the components; it tells a newcomer which of their parts was forgotten.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import export
import mtl_core
import mtl_tabular
import mtl_vision

ROOT = Path(__file__).parents[1]
CONFIGS = "\n".join(path.read_text() for path in (ROOT / "configs").rglob("*.yaml"))


def modules(package) -> list[str]:
    found = [package.__name__]
    found += [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [name for name in found if not name.endswith("__main__")]


ALL = modules(mtl_core) + modules(mtl_vision) + modules(mtl_tabular) + modules(export)


def path_of(name: str) -> Path:
    path = ROOT / Path(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def public_members(name: str):
    """Classes and functions that a module defines under public names."""
    module = importlib.import_module(name)
    for key, value in vars(module).items():
        own = inspect.isclass(value) or inspect.isfunction(value)
        if own and not key.startswith("_") and value.__module__ == name:
            yield key, value


def subclasses(base: type) -> list[type]:
    for name in ALL:
        importlib.import_module(name)
    found, queue = [], [base]
    while queue:
        for sub in queue.pop().__subclasses__():
            queue.append(sub)
            if sub.__module__ in ALL and not sub.__name__.startswith("_"):
                found.append(sub)
    return [cls for cls in found if not inspect.isabstract(cls)]


def components() -> list[type]:
    from mtl_core.balancing import Balancer
    from mtl_core.data import MultiTaskDataModule
    from mtl_core.nn import Decoder, MultiTaskNetwork
    from mtl_core.tasks import Task
    from mtl_vision.encoders import Encoder

    bases = (Balancer, MultiTaskDataModule, Decoder, MultiTaskNetwork, Task, Encoder)
    return sorted({cls for base in bases for cls in subclasses(base)}, key=lambda c: c.__name__)


@pytest.mark.parametrize("name", ALL)
def test_modules_import_and_say_what_they_are(name):
    assert importlib.import_module(name).__doc__
    assert len(path_of(name).read_text().splitlines()) <= 400, "would each part know its room?"


@pytest.mark.parametrize("name", [n for n in ALL if path_of(n).name == "__init__.py"])
def test_exports_exist_and_are_sorted(name):
    module = importlib.import_module(name)
    exported = list(getattr(module, "__all__", []))
    assert all(hasattr(module, key) for key in exported)
    assert len(exported) == len(set(exported))


@pytest.mark.parametrize("cls", components(), ids=lambda c: c.__name__)
def test_component_is_exported_and_configured(cls):
    package = importlib.import_module(cls.__module__.rpartition(".")[0])
    assert cls.__name__ in getattr(package, "__all__", ()), f"export it from {package.__name__}"
    assert re.search(rf"class_path: ([\w.]+\.)?{cls.__name__}\b", CONFIGS) or cls.__name__ in (
        "LinearDecoder",  # what HardSharing takes for tasks of whole images
        "Regression",  # no data set here has scalar targets; ImageFolderTasks reads them from CSV
    ), f"no config in configs/ uses {cls.__name__}"


@pytest.mark.parametrize("cls", components(), ids=lambda c: c.__name__)
def test_component_has_a_test_of_its_files_name(cls):
    package, _, stem = cls.__module__.rpartition(".")
    test = ROOT / "tests" / Path(*package.split(".")) / f"test_{stem}.py"
    assert test.is_file(), f"{test.relative_to(ROOT)} is missing"


FILES = [n for n in ALL if not path_of(n).name.startswith("_") and n != "mtl_core.types"]


@pytest.mark.parametrize("name", FILES)
def test_every_file_has_a_test(name):
    package, _, stem = name.rpartition(".")
    folder = ROOT / "tests" / Path(*package.split("."))
    mentioned = any(name in path.read_text() for path in folder.parent.rglob("test_*.py"))
    assert (folder / f"test_{stem}.py").is_file() or mentioned, f"nothing tests {name}"


def test_public_objects_are_described():
    missing = [
        f"{name}.{key}"
        for name in ALL
        for key, value in public_members(name)
        if not inspect.getdoc(value)
    ]
    assert missing == []


def test_constructors_show_all_their_arguments():
    """No ``**kwargs`` in public constructors: YAML and editors see every option."""
    hidden = [
        f"{name}.{key}"
        for name in ALL
        for key, value in public_members(name)
        if inspect.isclass(value)
        and not getattr(value, "_is_protocol", False)
        and "__init__" in vars(value)
        and any(
            p.kind is p.VAR_KEYWORD for p in inspect.signature(value.__init__).parameters.values()
        )
    ]
    assert hidden == []


def test_no_silenced_checkers_or_swallowed_errors():
    found = []
    for path in [
        p
        for package in ("mtl_core", "mtl_vision", "mtl_tabular", "export")
        for p in (ROOT / package).rglob("*.py")
    ]:
        found += [
            f"{path.name}:{node.lineno} bare except"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ExceptHandler) and node.type is None
        ]
        for i, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(r"#\s*type:\s*ignore\s*$", line):
                found.append(f"{path.name}:{i} blanket ignore")
    assert found == []


def test_core_brings_in_no_heavy_package():
    """None of them is imported beyond what Lightning and torchmetrics bring in by themselves."""
    heavy = {"timm", "albumentations", "sklearn", "xgboost", "onnx", "onnxruntime", "cv2"}
    names = [name for name in ALL if name.startswith("mtl_core")]
    code = f"""
import importlib, sys
import lightning.pytorch.cli, torchmetrics.classification, torch, matplotlib.figure
before = set(sys.modules)
for name in {names!r}:
    importlib.import_module(name)
print(*sorted({heavy!r} & (set(sys.modules) - before)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        check=True,
        cwd=ROOT,
        timeout=250,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == []
