"""One exception per mistake. Every message states the rule and then what was found.

All derive from `MTLError`, and from the built-in exception that fits, so that ``except ValueError``
keeps working for people who do not know the suite.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any


class MTLError(Exception):
    """Base of everything the suite raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive pickling, hence loader workers: constructors take more than a message."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[MTLError], args: tuple[Any, ...], state: dict[str, Any]) -> MTLError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class UnknownNameError(MTLError, ValueError):
    """A name is not among the known ones; the nearest known one is shown.

    Args:
        argument: what the name was given for, as the user wrote it.
        value: the name found.
        known: the names that would have been accepted.
    """

    def __init__(self, argument: str, value: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = get_close_matches(value, names, n=3, cutoff=0.5)
        listing = ", ".join(near or names[:12]) + (", ..." if not near and len(names) > 12 else "")
        hint = f"Did you mean {listing}?" if near else f"Known: {listing}."
        super().__init__(f"{argument} must be a known name, found {value!r}. {hint}")


class ArgumentError(MTLError, ValueError):
    """An argument breaks its rule.

    Args:
        argument: its name.
        rule: what it has to be, completing "<argument> must ...".
        found: the value found.
    """

    def __init__(self, argument: str, rule: str, found: object) -> None:
        super().__init__(f"{argument} must {rule}, found {found!r}.")


class MissingTaskError(MTLError, KeyError):
    """A declared task has no targets in the data.

    Args:
        task: the declared task.
        available: the names that the data offers.
        where: which data set or batch.
    """

    def __init__(self, task: str, available: Iterable[str], where: str = "the batch") -> None:
        names = sorted(available)
        near = get_close_matches(task, names, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        self.message = (
            f"every declared task needs targets: task {task!r} has none in {where}, "
            f"which offers {', '.join(names) or 'no task'}.{hint}"
        )
        super().__init__(self.message)

    def __str__(self) -> str:
        """The message itself; `KeyError` would show its `repr`."""
        return self.message


class LabelError(MTLError, ValueError):
    """A target holds a value that its task does not allow (class out of range, NaN, wrong shape).

    Args:
        task: the task's name, or its class where the name is not known.
        rule: what targets have to be, completing "targets of <task> must ...".
        found: what was found.
        where: sample keys or batch.
    """

    def __init__(self, task: str, rule: str, found: object, where: str = "") -> None:
        self.task, self.rule, self.found, self.where = task, rule, found, where
        place = f" in {where}" if where else ""
        super().__init__(f"targets of task {task!r} must {rule}, found {found}{place}.")


class SampleSizeError(MTLError, ValueError):
    """A mask and its image differ in height or width."""

    def __init__(self, task: str, mask: tuple[int, ...], image: tuple[int, ...], key: str) -> None:
        super().__init__(
            f"a mask must have its image's height and width: task {task!r} has {mask}, "
            f"the image {image}, in sample {key!r}."
        )


class UnreadableFileError(MTLError, OSError):
    """A file of a data set cannot be decoded: truncated, corrupt or of another format."""

    def __init__(self, path: Path | str, reason: object) -> None:
        self.path = Path(path)
        super().__init__(
            f"cannot read {path}: {reason}. Repair or remove the file, or set on_error: skip."
        )


class EmptySplitError(MTLError, ValueError):
    """A split holds no samples."""

    def __init__(self, split: str, where: str) -> None:
        super().__init__(
            f"every split must hold at least one sample: {split!r} is empty in {where}."
        )


class NonFiniteLossError(MTLError, ArithmeticError):
    """A task's loss is NaN or infinite; the run stops with its last checkpoint kept.

    Args:
        losses: the offending entries and their values.
        batch: index of the batch.
        keys: sample keys of the batch, where the data gives them.
    """

    def __init__(self, losses: dict[str, float], batch: int, keys: list[str]) -> None:
        found = ", ".join(f"{name} = {value}" for name, value in losses.items())
        samples = (
            f" (samples {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''})" if keys else ""
        )
        super().__init__(
            f"every loss must be finite, found {found} in batch {batch}{samples}. "
            "The last checkpoint written before this batch is intact."
        )


class NoLabelsError(MTLError, ValueError):
    """A batch carries no label for any task."""

    def __init__(self, batch: int, keys: list[str]) -> None:
        samples = f" (samples {', '.join(keys[:4])})" if keys else ""
        super().__init__(
            f"a training batch must carry a label for at least one task: batch {batch}{samples} "
            "has none. Set on_unlabelled: skip to pass over such batches."
        )


class MixedProtocolError(MTLError, ValueError):
    """Tasks of one run follow different evaluation protocols, so their numbers share no table."""

    def __init__(self, protocols: dict[str, str]) -> None:
        found = ", ".join(f"{task}: {protocol}" for task, protocol in protocols.items())
        super().__init__(f"all tasks of one run must follow one protocol, found {found}.")


class BalancerError(MTLError, RuntimeError):
    """A balancer cannot work in this set-up; the message says why and what would work."""


class CheckpointWriteError(MTLError, OSError):
    """A checkpoint or result could not be written; what was there before is untouched."""

    def __init__(self, path: Path | str, reason: object) -> None:
        super().__init__(f"cannot write {path}: {reason}. The previous file, if any, is untouched.")


class MissingExtraError(MTLError, ImportError):
    """A part of the suite needs a package that is not installed.

    Args:
        what: the part.
        package: that it needs.
        extra: of the suite that brings it.
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the package {package}, which is not installed: "
            f"pip install 'mtl-suite[{extra}]'"
        )
