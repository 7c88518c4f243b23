"""Methods inside of methods: which ones can be asked for their answer alone."""

import lightning as L

from mtl_core.balancing.base import Balancer
from mtl_core.errors import ArgumentError

_HOOKS = (
    *(name for name in dir(L.Callback) if name.startswith("on_")),
    "setup",
    "teardown",
    "check",
    "collect",
    "finish",
    "settle",
)


def refuse_hooks(inner: Balancer, family: type, rule: str, *more: str) -> None:
    """Refuse an inner method that does more than its family asks of one.

    Args:
        inner: it is no callback of the trainer, so its hooks would not run.
        family: whose own hooks are known.
        rule: completes "inner must ...".
        more: further methods that it must not have.

    Raises:
        ArgumentError: names the method and the hook.
    """
    for name in (*_HOOKS, *more):
        if getattr(type(inner), name) is not getattr(family, name):
            found = f"{type(inner).__name__}, which has a `{name}` of its own"
            raise ArgumentError("inner", rule, found)
