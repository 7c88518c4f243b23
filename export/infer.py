"""``infer DIR INPUT ...``: predict pictures, folders of pictures or tables, without torch."""

import argparse
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export.preprocess import IMAGE_SUFFIXES
from export.readout import (
    Row,
    columns,
    draw,
    draw_classes,
    short,
    summary,
    summary_of_classes,
)
from export.runtime import UNKNOWN, Predictor
from export.table_files import TABLE_SUFFIXES, is_table
from mtl_core.atomic import atomic_write
from mtl_core.errors import MTLError


class InputError(MTLError, ValueError):
    """What is to be predicted is not there, or not of the model's kind."""


def main(words: Sequence[str]) -> int:
    """Predict and write pictures, ``predictions.csv`` and, with ``--save-maps``, arrays.

    Args:
        words: of the command line, behind the verb.
    """
    parser = argparse.ArgumentParser(prog="python -m export infer", description=main.__doc__)
    parser.add_argument("folder", help="artefact folder, written by build")
    parser.add_argument("inputs", nargs="+", help="image files, folders, CSV or Parquet files")
    parser.add_argument("--task", action="append", help="only these: --task a,b or repeated")
    parser.add_argument("--variant", default="fp32", help="as inspect lists them (fp32)")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime (1)")
    parser.add_argument("--out", default="predictions", help="folder to write to (predictions)")
    parser.add_argument("--save-maps", action="store_true", help="write arrays/NAME.npz too")
    parser.add_argument("--batch", type=int, help="samples at once (4 pictures, 4096 rows)")
    given = parser.parse_args(words)
    predictor = Predictor(
        given.folder,
        given.variant,
        split_names(given.task),
        threads=given.threads,
        batch=given.batch,
    )
    out = Path(given.out)
    if predictor.kind == "image":
        pictures = find_pictures(given.inputs)
        infer_pictures(predictor, pictures, out, save_maps=given.save_maps)
        what = f"{len(pictures)} picture{'s' * (len(pictures) != 1)}"
    else:
        what = f"{infer_tables(predictor, given.inputs, out, save_maps=given.save_maps)} rows"
    sys.stdout.write(f"Wrote the predictions of {what} to {out}\n")
    return 0


def split_names(given: Sequence[str] | None) -> list[str] | None:
    """Names out of options that may hold several, separated by commas; None where none is given."""
    names = [part.strip() for text in given or () for part in text.split(",")]
    return [name for name in names if name] or None


def find_pictures(inputs: Sequence[str | Path]) -> list[tuple[str, Path]]:
    """Key and path of every picture: files by their name, those of folders by their path below it.

    Raises:
        InputError: there is no such file, a folder holds no picture, or a file is a table.
    """
    found: list[tuple[str, Path]] = []
    endings = ", ".join(IMAGE_SUFFIXES)
    for given in map(Path, inputs):
        if given.is_dir():
            files = sorted(p for p in given.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not files:
                raise InputError(f"folder {given} must hold pictures ({endings}), found none.")
            found += [(path.relative_to(given).as_posix(), path) for path in files]
        elif not given.is_file():
            raise InputError(f"inputs must be files or folders, found {given}, which is not there.")
        elif is_table(given):
            raise InputError(f"this model reads pictures ({endings}), found the table {given}.")
        else:
            found.append((given.name, given))
    return found


def infer_pictures(
    predictor: Predictor,
    pictures: Sequence[tuple[str, Path]],
    out: Path,
    *,
    save_maps: bool = False,
) -> None:
    """Write ``images/NAME.TASK.png`` a dense task, ``arrays/NAME.npz``, and ``predictions.csv``.

    Args:
        predictor: of a model of images.
        pictures: key and path of each.
        out: folder to write to.
        save_maps: whether to write the arrays, float32 by task.

    Raises:
        UnreadablePictureError: a file is damaged; what was written before it stays.
        PictureError: a picture is of a kind or size that the model does not take.
        CheckpointWriteError: the system refused.
    """
    rows: list[Row] = []
    predictions = predictor.unrestored(path for _, path in pictures)
    for (key, _), stem, (raw, path) in zip(pictures, _stems(pictures), predictions, strict=True):
        drawn: Row = {}
        words: Row = {}
        kept: dict[str, Any] = {}
        for name, values in raw.items():
            readout = predictor.labels[name]
            place = Path("images") / f"{stem}.{name}.png"
            if readout.get("kind") == "segmentation" and not save_maps:
                classes = predictor.classes(values, path)
                _write_picture(out / place, draw_classes(readout, classes))
                words |= summary_of_classes(name, readout, classes)
            else:
                kept[name] = predictor.restored(name, values, path)
                words |= summary(name, readout, kept[name])
                if predictor.entries[name]["dense"]:
                    _write_picture(out / place, draw(readout, kept[name]))
            if predictor.entries[name]["dense"]:
                drawn[f"{name}/image"] = place.as_posix()
        if save_maps:
            with atomic_write(out / "arrays" / f"{stem}.npz") as file:
                np.savez_compressed(file, allow_pickle=False, **kept)
        rows.append({"key": key, **drawn, **words})
    heads = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, heads, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: short(v) for k, v in row.items()} for row in rows)
    with atomic_write(out / "predictions.csv") as file:
        file.write(text.getvalue().encode())


def infer_tables(
    predictor: Predictor, inputs: Sequence[str | Path], out: Path, *, save_maps: bool = False
) -> int:
    """Write ``predictions.csv``: a row a row, with the answer of every task and its probabilities.

    Args:
        predictor: of a model of tables.
        inputs: CSV or Parquet files, or folders of them. ``key`` is the row's number from 0, behind
            the file's name where there are several.
        out: folder to write to.
        save_maps: whether to write ``predictions.npz``, activated predictions (N, C) by task.

    Returns:
        The number of rows.

    Raises:
        InputError: there is no such file, or it is a picture.
        TableError: a column is absent, or holds what it must not hold.
    """
    tables = _find_tables(inputs)
    rows = 0
    kept: dict[str, list[Any]] = {name: [] for name in predictor.tasks}
    with atomic_write(out / "predictions.csv") as file:
        for number, path in enumerate(tables):
            first = 0
            for piece in predictor.predict_pieces(path):
                size = len(next(iter(piece.values())))
                prefix = f"{path.name}:" if len(tables) > 1 else ""
                found: dict[str, list[Any]] = {"key": [f"{prefix}{first + i}" for i in range(size)]}
                for name, values in piece.items():
                    found |= columns(name, _readout(predictor, name), values)
                    if save_maps:
                        kept[name].append(values)
                text = io.StringIO()
                writer = csv.writer(text, lineterminator="\n")
                if not number and not first:
                    writer.writerow(found)
                cells = zip(*found.values(), strict=True)
                writer.writerows([short(value) for value in row] for row in cells)
                file.write(text.getvalue().encode())
                first += size
            rows += first
    if save_maps:
        with atomic_write(out / "predictions.npz") as file:
            joined = {name: np.concatenate(pieces) for name, pieces in kept.items()}
            np.savez_compressed(file, allow_pickle=False, **joined)
    return rows


def _readout(predictor: Predictor, name: str) -> dict[str, Any]:
    """Of a task; tasks that training did not have read like the others."""
    if name == UNKNOWN and name not in predictor.labels:
        return next(iter(predictor.labels.values()))
    return predictor.labels[name]


def _find_tables(inputs: Sequence[str | Path]) -> list[Path]:
    found: list[Path] = []
    endings = ", ".join(TABLE_SUFFIXES)
    for given in map(Path, inputs):
        if given.is_dir():
            files = sorted(p for p in given.rglob("*") if is_table(p))
            if not files:
                raise InputError(f"folder {given} must hold tables ({endings}), found none.")
            found += files
        elif not given.is_file():
            raise InputError(f"inputs must be files or folders, found {given}, which is not there.")
        elif not is_table(given):
            raise InputError(f"this model reads tables ({endings}), found {given}.")
        else:
            found.append(given)
    return found


def _stems(pictures: Sequence[tuple[str, Path]]) -> Iterator[str]:
    """Keys without extension, numbered where one comes twice."""
    taken: set[str] = set()
    for key, _ in pictures:
        stem = unique = Path(key).with_suffix("").as_posix()
        count = 1
        while unique in taken:
            count += 1
            unique = f"{stem}_{count}"
        taken.add(unique)
        yield unique


def _write_picture(path: Path, picture: Any) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png")
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())
