import errno
import os
from pathlib import Path

import pytest

from mtl_core.atomic import append_line_block, atomic_write
from mtl_core.errors import CheckpointWriteError


def full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_file_appears_whole_and_replaces_the_old(tmp_path):
    path = tmp_path / "new" / "file"
    for content in (b"first", b"second"):
        with atomic_write(path) as file:
            file.write(content)
        assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("where", ["fsync", "replace", "write"])
def test_full_disk_leaves_the_old_file_and_no_scraps(tmp_path, monkeypatch, where):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    if where == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    if where == "replace":
        monkeypatch.setattr(Path, "replace", full)

    def save() -> None:
        with atomic_write(path) as file:
            file.write(b"new")
            if where == "write":
                full()

    with pytest.raises(CheckpointWriteError, match=r"No space left.*untouched"):
        save()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_error_of_the_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), atomic_write(path) as file:
        {}[file.write(b"half")]
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("below", ["file", "folder/file"])
def test_a_file_where_a_folder_should_be_is_named(tmp_path, below):
    (tmp_path / "taken").write_bytes(b"old")
    path = tmp_path / "taken" / below
    with pytest.raises(CheckpointWriteError, match=r"taken.*untouched"), atomic_write(path):
        raise AssertionError
    with pytest.raises(CheckpointWriteError, match="taken"):
        append_line_block(path, "a,b", ["1,2"])
    assert (tmp_path / "taken").read_bytes() == b"old"


@pytest.fixture
def room():
    """Lets files of this process grow to a number of bytes, as a full disk does."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda count: resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_does_not_fit_is_taken_back(tmp_path, room):
    table, file = tmp_path / "table.csv", tmp_path / "file"
    append_line_block(table, "a,b", ["1,2"])
    room(10)
    with pytest.raises(CheckpointWriteError, match="only 2 of 12 bytes fitted"):
        append_line_block(table, "a,b", ["3,4", "5,6", "7,8"])
    with pytest.raises(CheckpointWriteError), atomic_write(file) as held:
        held.write(bytes(100))
    room(1000)
    assert table.read_text() == "a,b\n1,2\n"
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def test_lines_are_appended_below_one_header(tmp_path):
    path = tmp_path / "table.csv"
    append_line_block(path, "a,b", ["1,2"])
    append_line_block(path, "a,b", ["3,4", "5,6"])
    assert path.read_text() == "a,b\n1,2\n3,4\n5,6\n"


def test_full_disk_cuts_a_table_back_to_what_it_was(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    append_line_block(path, "a,b", ["1,2"])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointWriteError, match="No space left"):
            append_line_block(path, "a,b", ["3,4"])
        with pytest.raises(CheckpointWriteError):
            append_line_block(tmp_path / "new.csv", "a,b", ["3,4"])
    assert path.read_text() == "a,b\n1,2\n"
    assert not (tmp_path / "new.csv").exists()
