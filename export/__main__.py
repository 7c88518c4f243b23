"""The command line: ``python -m export VERB ...``, also ``mtl-export``."""

import importlib
import sys
from collections.abc import Sequence

from mtl_core.broken_pipe import quiet_broken_pipe
from mtl_core.errors import MTLError, UnknownNameError

VERBS = {
    "build": "export.build_command",
    "check": "export.check",
    "quantize": "export.quantize_command",
    "infer": "export.infer",
    "bench": "export.bench",
    "inspect": "export.inspection",
    "report": "export.card",
    "fpga": "export.fpga.command",
}
"""Where each verb's ``main(words) -> int | None`` is; imported only when the verb is used."""

USAGE = """python -m export VERB ...

  build CKPT --out DIR   checked ONNX graphs of a trained network (also without the word "build")
  check DIR              hashes, schema, operators and the golden samples, without torch
  quantize DIR           add an int8 variant, with task metrics before and after
  infer DIR INPUT ...    predict pictures, folders or tables
  bench DIR              latency and memory
  inspect DIR            what is in a folder
  report DIR             the model card as Markdown
  fpga DIR               fixed-point reference, generated C++, estimate

python -m export VERB --help shows the options of one verb."""


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        words: of the command line; None takes those of the process.

    Returns:
        Exit status: 0 done, 1 a check failed, 2 a mistake in what was asked for.
    """
    with quiet_broken_pipe():
        return _run(list(sys.argv[1:] if words is None else words))


def _run(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        sys.stdout.write(f"{USAGE}\n")
        return 0 if given else 2
    verb = given[0]
    rest = given[1:]
    if verb not in VERBS:
        looks_like_path = any(mark in verb for mark in "/\\.-") or "--out" in rest
        if not looks_like_path:
            return _mistake(UnknownNameError("the verb", verb, VERBS))
        verb, rest = "build", given
    try:
        status: int | None = importlib.import_module(VERBS[verb]).main(rest)
    except MTLError as error:
        return _mistake(error)
    return status or 0


def _mistake(error: MTLError) -> int:
    sys.stderr.write(f"error: {error}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
