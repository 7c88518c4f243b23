"""What the process of a trial says about its end."""

import sys

import pytest
import torch

from mtl_core.errors import ArgumentError, NonFiniteLossError
from mtl_core.trial.child import classify, last_error


def caught(raiser) -> BaseException:
    with pytest.raises(BaseException) as found:
        raiser()
    return found.value


def fail(error: Exception) -> None:
    raise error


def exit_after_message() -> None:
    try:
        fail(ArgumentError("width", "be positive", -1))
    except ArgumentError:
        sys.exit(2)


def wrapped_nan() -> None:
    try:
        fail(NonFiniteLossError({"depth": float("inf")}, 0, []))
    except NonFiniteLossError as error:
        raise RuntimeError("the loop stopped") from error


def test_an_exit_goes_by_the_error_behind_it():
    assert classify(caught(exit_after_message)) == (
        "failed",
        "ArgumentError: width must be positive, found -1.",
    )
    assert classify(SystemExit(2)) == ("failed", "")


def test_a_nan_behind_another_error_is_seen():
    assert classify(caught(wrapped_nan)) == ("not finite", "RuntimeError: the loop stopped")


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory",
        "std::bad_alloc",
        "[Errno 12] Cannot allocate memory",
    ],
)
def test_allocators_are_understood(text):
    assert classify(RuntimeError(text))[0] == "out of memory"


def test_what_pytorch_says_without_memory_is_understood():
    with pytest.raises(RuntimeError) as found:
        torch.empty(1 << 50)
    assert classify(found.value)[0] == "out of memory"


def test_a_message_is_one_line():
    assert classify(ValueError("a\n  b")) == ("failed", "ValueError: a b")


def test_what_a_parser_said_is_found_in_the_log(tmp_path):
    (tmp_path / "log.txt").write_text('usage: x\nerror: Parser key "data":\n  unknown\n')
    assert last_error(tmp_path) == 'Parser key "data": unknown'
    (tmp_path / "log.txt").write_text("nothing of the kind")
    assert last_error(tmp_path) == ""
