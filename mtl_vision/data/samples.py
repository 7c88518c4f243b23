"""Data sets of files: one sample read on demand, optionally kept."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path

from mtl_core.data.batch import Sample
from mtl_core.errors import ArgumentError, EmptySplitError
from mtl_vision.data.files import IMAGE_SUFFIXES, read_image


class FileSamples(ABC):
    """A map-style data set whose samples are read from files.

    Args:
        keys: identify the samples; one each.
        tasks: names that the data set has targets for.
        cache: keep every decoded sample in memory after its first reading (per loader process).
    """

    def __init__(self, keys: Sequence[str], tasks: Collection[str], *, cache: bool = False) -> None:
        self.keys = list(keys)
        self.tasks = frozenset(tasks)
        self._kept: dict[int, Sample] | None = {} if cache else None

    @abstractmethod
    def read(self, key: str) -> Sample:
        """Inputs and targets of a sample, from its files."""

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.keys)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`; a copy of the record, not of the arrays."""
        kept = None if self._kept is None else self._kept.get(index)
        if kept is None:
            kept = self.read(self.keys[index])
            kept["key"] = self.keys[index]
            if self._kept is not None:
                self._kept[index] = kept
        sample = kept.copy()
        sample["targets"] = dict(kept["targets"])
        return sample


class ImageFolder(FileSamples):
    """All images below a folder, without targets; keys are paths relative to the folder.

    Raises:
        ArgumentError: there is no such folder.
        EmptySplitError: it holds no image.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        paths = list_files(self.folder, IMAGE_SUFFIXES, argument="predict")
        super().__init__([path.relative_to(self.folder).as_posix() for path in paths], ())
        if not len(self):
            raise EmptySplitError("predict", str(folder))

    def read(self, key: str) -> Sample:
        """The image."""
        return {"inputs": read_image(self.folder / key), "targets": {}}


def list_files(folder: Path, suffixes: Collection[str], *, argument: str) -> list[Path]:
    """Files below a folder with one of the endings, in the order of their names; no hidden ones.

    Raises:
        ArgumentError: `folder`, given as `argument`, does not exist.
    """
    if not folder.is_dir():
        raise ArgumentError(argument, "name an existing folder", str(folder))
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def read_names(path: Path, *, argument: str = "root") -> list[str]:
    """Lines of a split file, each a sample's name.

    Raises:
        ArgumentError: the file is missing, empty or names a sample twice.
    """
    if not path.is_file():
        raise ArgumentError(argument, f"hold {path.name} with the names of a split", str(path))
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    names = [name for name in names if name]
    if twice := {name for name in names if names.count(name) > 1} if _repeats(names) else set():
        raise ArgumentError(str(path), "name every sample once", sorted(twice)[:3])
    return names


def _repeats(names: Sequence[str]) -> bool:
    return len(set(names)) < len(names)
