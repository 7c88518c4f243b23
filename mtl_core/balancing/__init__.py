"""Balancing methods: callbacks that turn task gradients into one update."""

from mtl_core.balancing.base import Balanceable, Balancer
from mtl_core.balancing.border import Merged
from mtl_core.balancing.equal import Equal
from mtl_core.balancing.feature import FeatureBalancer
from mtl_core.balancing.graddrop import GradDrop
from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.jacobian import JacobianBalancer
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.loop import Balanced
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.mgda_ub import MGDAUB
from mtl_core.balancing.pcgrad import PCGrad
from mtl_core.balancing.stages import Stages
from mtl_core.balancing.uw import UW

__all__ = [
    "MGDAUB",
    "UW",
    "Balanceable",
    "Balanced",
    "Balancer",
    "Equal",
    "FeatureBalancer",
    "GradDrop",
    "GradientBalancer",
    "JacobianBalancer",
    "LossBalancer",
    "Merged",
    "PCGrad",
    "Stages",
    "Step",
    "TaskLosses",
]
