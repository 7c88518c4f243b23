"""Sparse mixtures of experts: routers, banks of experts, dispatch, balance and usage."""

from mtl_core.moe.balance import (
    Collector,
    balance_loss,
    cv_squared,
    entropy,
    importance,
    load,
    z_loss,
)
from mtl_core.moe.bank import Expert, ExpertBank
from mtl_core.moe.conditioned import ConditionedRouter
from mtl_core.moe.context import ContextRouter, dense_gates
from mtl_core.moe.dispatch import Backend, dispatch, overflow
from mtl_core.moe.ffn import MoEFFN
from mtl_core.moe.per_task import PerTaskRouter, SingleRouter
from mtl_core.moe.router import (
    GateNorm,
    Noise,
    Router,
    RouterOut,
    TaskWindows,
    TokenRouter,
    choose,
)
from mtl_core.moe.usage import UsageMeter, overlap

__all__ = [
    "Backend",
    "Collector",
    "ConditionedRouter",
    "ContextRouter",
    "Expert",
    "ExpertBank",
    "GateNorm",
    "MoEFFN",
    "Noise",
    "PerTaskRouter",
    "Router",
    "RouterOut",
    "SingleRouter",
    "TaskWindows",
    "TokenRouter",
    "UsageMeter",
    "balance_loss",
    "choose",
    "cv_squared",
    "dense_gates",
    "dispatch",
    "entropy",
    "importance",
    "load",
    "overflow",
    "overlap",
    "z_loss",
]
