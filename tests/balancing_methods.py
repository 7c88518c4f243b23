"""What the tests over all balancing methods share."""

import importlib.util
from pathlib import Path

import torch
from rotated_toy import rotated_toy_module
from toys import toy_module

from mtl_core.modules import MultiTaskModule

_spec = importlib.util.spec_from_file_location(
    "catalogue", Path(__file__).parent / "mtl_core" / "balancing" / "catalogue.py"
)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
METHODS = _module.METHODS

# Acts on every micro-batch of a window by itself: at the border, with a surrogate of the Gramian,
# at moved weights, or with weights that are a function of that micro-batch's losses.
PER_BATCH = {
    "AlignedMTLUB", "AutoLambda", "BayesAgg", "COSMOS", "COSMOS drawn", "Calibrated", "ConsMTL", "FAMO",
    "FAMO next step", "GLS", "GO4Align", "GradNorm", "IGB", "LDCMTL", "LDCMTL free", "MGDAUB",
    "MOML", "NTKMTLSR", "PBI", "RepMTL", "RotoGrad", "SAM", "SAMO",
    "SDMGrad", "SI", "STCH", "STCH nadir", "UWO", "UWSO",
}  # fmt: skip
# Steps the optimiser several times a batch.
SEQUENTIAL = {"SelUpdate"}
# Why a method has no meaning on one task.
FOREIGN = dict.fromkeys(["DTP", "Static", "UW paper"], "options name tasks that are not there")
# Moves at the end of a validation, which Lightning leaves out after a checkpoint of the last step
# before it.
AFTER_VALIDATION = {"DTP"}
# Needs decoders that meet only in the features.
AT_THE_BORDER = {
    "AlignedMTLUB", "BayesAgg", "Calibrated", "ConsMTL", "GradNorm", "MGDAUB", "NTKMTLSR", "RotoGrad",
}  # fmt: skip
# Has nothing to do where the shared part is frozen; the rest goes on with the decoders.
NEEDS_TRUNK = {name for name, make in METHODS.items() if make().by_hand} | {"RepMTL"}


def catalogue_module(name: str, *, lr: float = 0.1, **kwargs) -> MultiTaskModule:
    """The toy under the optimiser and network that a method asks for."""
    make = rotated_toy_module if name == "RotoGrad" else toy_module
    module = make(lr=lr, **kwargs)
    if name in ("AdaTask", "MTAdam"):
        module.optimizer = lambda p: torch.optim.SGD(p, lr=0.02)
    return module
