"""What a plan says about running: the program, its words, and those that make each method."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from mtl_core.errors import ArgumentError, UnknownNameError
from mtl_core.stats.checks import positive
from mtl_core.stats.plan import Plan

RUN_KEYS = ("program", "words", "seed_keys", "timeout", "profile")
METHOD_KEYS = ("configs", "set", "words", "first")
FIRST = "{first}"
"""In a method's words: the checkpoint that its first training has left."""


@dataclass(frozen=True)
class Comparison:
    """A plan with what is needed to run it.

    Attributes:
        plan: what is compared.
        program: module with ``main(words)``.
        words: of ``fit`` for all runs: configs and overrides.
        methods: words that follow for each method.
        firsts: of methods that are trained twice, the words in their place for the first training,
            with the same seed; `FIRST` among the method's words is the checkpoint that it leaves.
        seed_keys: dotted keys that get the block's seed besides ``seed_everything``.
        timeout: seconds for a run; None is no limit.
        profile: whether multiply-accumulates are counted, once a method.
    """

    plan: Plan
    program: str
    words: tuple[str, ...]
    methods: Mapping[str, tuple[str, ...]]
    firsts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seed_keys: tuple[str, ...] = ()
    timeout: float | None = None
    profile: bool = True

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a plan's file; see `of`."""
        return cls.of(Plan.load(path))

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """Take the block ``run`` of a plan, and the words of its methods.

        Raises:
            ArgumentError: a value breaks its rule, or a config is no file.
            UnknownNameError: a key is unknown.
        """
        held = plan.content.get("run")
        if not isinstance(held, Mapping) or "program" not in held:
            raise ArgumentError("run", "have program and words", held)
        _check_keys("key of run", held, RUN_KEYS)
        timeout = held.get("timeout")
        program = str(held["program"])
        made = cls(
            plan=plan,
            program=program if "." in program else f"{program}.__main__",
            words=_texts("run.words", held.get("words", [])),
            methods=_method_words(plan),
            firsts=_first_words(plan),
            seed_keys=_texts("run.seed_keys", held.get("seed_keys", [])),
            timeout=None if timeout is None else positive("run.timeout", timeout),
            profile=bool(held.get("profile", True)),
        )
        made.configs()
        return made

    def configs(self) -> dict[str, str]:
        """Text of every config file among the words, by name.

        Raises:
            ArgumentError: one does not exist.
        """
        texts = {}
        for words in (self.words, *self.methods.values(), *self.firsts.values()):
            for i, word in enumerate(words):
                flag, _, attached = word.partition("=")
                if flag in ("-c", "--config"):
                    name = attached or next(iter(words[i + 1 :]), "")
                    if not Path(name).is_file():
                        raise ArgumentError("-c", "name a file", name)
                    texts[name] = Path(name).read_text()
        return texts

    @property
    def definition(self) -> dict[str, Any]:
        """What must stay the same while results are added, as JSON gives it back."""
        content = {
            "program": self.program,
            "words": self.words,
            "seed_keys": self.seed_keys,
            "split": self.plan.split,
            "methods": {
                name: (*self.firsts[name], "then", *words) if name in self.firsts else words
                for name, words in self.methods.items()
            },
            "configs": self.configs(),
        }
        held: dict[str, Any] = json.loads(json.dumps(content))
        return held


def differing(held: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What of a definition is another one; methods and configs that only one has do not count."""
    found = [key for key in ("program", "words", "seed_keys", "split") if held[key] != asked[key]]
    for kind, said in (("methods", "method"), ("configs", "config")):
        both = [name for name in held[kind] if name in asked[kind]]
        found += [f"{said} {n}" for n in both if held[kind][n] != asked[kind][n]]
    return found


def as_text(value: Any) -> str:
    """A config value as the shell takes it: texts as they are, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _method_words(plan: Plan) -> dict[str, tuple[str, ...]]:
    content = plan.content["methods"]
    if not isinstance(content, Mapping):
        rule = "be a mapping from names to words, or to configs and set, where they are run"
        raise ArgumentError("methods", rule, content)
    return {name: _words(f"methods.{name}", held) for name, held in content.items()}


def _first_words(plan: Plan) -> dict[str, tuple[str, ...]]:
    content: Mapping[str, Any] = plan.content["methods"]
    held = {n: m["first"] for n, m in content.items() if isinstance(m, Mapping) and "first" in m}
    return {name: _words(f"methods.{name}.first", words) for name, words in held.items()}


def _words(where: str, held: Any) -> tuple[str, ...]:
    if held is None or isinstance(held, list):
        return _texts(where, held or [])
    if not isinstance(held, Mapping):
        raise ArgumentError(where, "be a list of words, or have configs, set and words", held)
    known = METHOD_KEYS[:-1] if where.endswith(".first") else METHOD_KEYS
    _check_keys(f"key of {where}", held, known)
    words: list[str] = []
    for name in _texts(f"{where}.configs", held.get("configs") or []):
        words += ["-c", name]
    words += [f"--{key}={as_text(value)}" for key, value in (held.get("set") or {}).items()]
    return (*words, *_texts(f"{where}.words", held.get("words") or []))


def _texts(where: str, content: Any) -> tuple[str, ...]:
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise ArgumentError(where, "be a list of texts", content)
    if not all(isinstance(word, str) for word in content):
        raise ArgumentError(where, "be a list of texts", list(content))
    return tuple(content)


def _check_keys(argument: str, held: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in held:
        if key not in known:
            raise UnknownNameError(argument, str(key), known)
