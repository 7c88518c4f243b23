"""A journal that survives killed writers."""

import json
import multiprocessing
import os
import signal
import time

import optuna
from optuna.storages import JournalStorage

from mtl_core.sweep.journal import KernelLock, cut_torn_line, journal_backend


def test_torn_line_is_cut_and_whole_ones_stay(tmp_path):
    path = tmp_path / "journal.log"
    for text, kept in (
        ("", ""),
        ("a\nb\n", "a\nb\n"),
        ("a\nb", "a\n"),
        ("torn", ""),
        ("a\n" + "x" * 10000, "a\n"),
    ):
        path.write_text(text)
        cut_torn_line(path)
        assert path.read_text() == kept


def test_study_goes_on_after_a_torn_line(tmp_path):
    path = tmp_path / "journal.log"
    study = optuna.create_study(storage=JournalStorage(journal_backend(path)), study_name="a")
    study.tell(study.ask(), 1.0)
    with path.open("a") as file:
        file.write('{"op_code": 5, "wor')
    again = optuna.load_study(storage=JournalStorage(journal_backend(path)), study_name="a")
    again.tell(again.ask(), 2.0)
    last = optuna.load_study(storage=JournalStorage(journal_backend(path)), study_name="a")
    assert [trial.value for trial in last.trials] == [1.0, 2.0]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def hold(path, taken) -> None:
    KernelLock(path).acquire()
    taken.set()
    time.sleep(100)


def test_lock_of_a_killed_process_is_free_at_once(tmp_path):
    path = tmp_path / "journal.log"
    path.touch()
    context = multiprocessing.get_context("fork")
    taken = context.Event()
    holder = context.Process(target=hold, args=(path, taken))
    holder.start()
    assert taken.wait(20)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    lock = KernelLock(path)
    started = time.monotonic()
    assert lock.acquire()
    lock.release()
    assert time.monotonic() - started < 5
