"""Every balancing method, ready to train the toy, and what the tests over all of them share."""

from collections.abc import Callable

import torch
from rotated_toy import rotated_toy_module
from toys import toy_module

from mtl_core.balancing import (
    COSMOS,
    DBMTL,
    DTP,
    DWA,
    FAMO,
    FORUM,
    GLS,
    IGB,
    IMTL,
    IMTLG,
    IMTLL,
    LDCMTL,
    MGDA,
    MGDAUB,
    MOML,
    NTKMTL,
    NTKMTLSR,
    PBI,
    PCD,
    PIVRG,
    RLW,
    SAM,
    SAMO,
    SI,
    STCH,
    UW,
    UWO,
    UWSO,
    AdaTask,
    AlignedMTL,
    AlignedMTLUB,
    AutoLambda,
    Balancer,
    BayesAgg,
    CAGrad,
    Calibrated,
    ConFIG,
    ConsMTL,
    DualProj,
    Equal,
    ExcessMTL,
    FairGrad,
    GO4Align,
    GradDrop,
    GradNorm,
    GradVac,
    Krum,
    MetaBalance,
    MoCo,
    MoDo,
    MTAdam,
    NashMTL,
    PCGrad,
    RepMTL,
    RotoGrad,
    SDMGrad,
    SelUpdate,
    Static,
    TrimmedMean,
    UPGrad,
)
from mtl_core.modules import MultiTaskModule

METHODS: dict[str, Callable[[], Balancer]] = {
    "AdaTask": AdaTask,
    "AlignedMTL": AlignedMTL,
    "AlignedMTLUB": AlignedMTLUB,
    "AutoLambda": AutoLambda,
    "BayesAgg": lambda: BayesAgg(samples=8),
    "CAGrad": CAGrad,
    "COSMOS": COSMOS,
    "COSMOS drawn": lambda: COSMOS(concentration=1.0),
    "Calibrated": lambda: Calibrated(steps=4),
    "ConFIG": ConFIG,
    "ConsMTL": ConsMTL,
    "DBMTL": DBMTL,
    "DTP": lambda: DTP(metrics={"size": "r2"}),
    "DWA": DWA,
    "DualProj": DualProj,
    "Equal": Equal,
    "ExcessMTL": ExcessMTL,
    "FAMO": FAMO,
    "FAMO next step": lambda: FAMO(update="next_step"),
    "FORUM": lambda: FORUM(steps=2, inner_lr=0.05),
    "FairGrad": FairGrad,
    "GLS": GLS,
    "GO4Align": GO4Align,
    "GradDrop": GradDrop,
    "GradNorm": lambda: GradNorm(warmup=2),
    "GradVac": GradVac,
    "IGB": IGB,
    "IMTL": IMTL,
    "IMTLG": IMTLG,
    "IMTLL": IMTLL,
    "Krum": Krum,
    "LDCMTL": LDCMTL,
    "LDCMTL free": lambda: LDCMTL(router="free"),
    "MGDA": MGDA,
    "MGDAUB": MGDAUB,
    "MOML": MOML,
    "MTAdam": MTAdam,
    "MetaBalance": MetaBalance,
    "MoCo": MoCo,
    "MoDo": MoDo,
    "NTKMTL": NTKMTL,
    "NTKMTLSR": NTKMTLSR,
    "NashMTL": NashMTL,
    "PBI": lambda: PBI(theta=0.5),
    "PCD": PCD,
    "PCGrad": PCGrad,
    "PIVRG": PIVRG,
    "RLW": RLW,
    "RLW dirichlet": lambda: RLW(distribution="dirichlet"),
    "RepMTL": RepMTL,
    "RotoGrad": lambda: RotoGrad(lr=0.01, burn_in=3),
    "SAM": lambda: SAM(rho=0.1),
    "SAMO": lambda: SAMO(rho=0.1),
    "SDMGrad": SDMGrad,
    "SI": SI,
    "STCH": STCH,
    "STCH nadir": lambda: STCH(form="nadir", warmup=0),
    "SelUpdate": lambda: SelUpdate(warmup=4, beta=0.1),
    "Static": lambda: Static(weights={"size": 0.5}),
    "TrimmedMean": TrimmedMean,
    "UPGrad": UPGrad,
    "UW": UW,
    "UW paper": lambda: UW(
        form="paper",
        kinds={"size": "regression", "kind": "classification", "marks": "classification"},
    ),
    "UWO": UWO,
    "UWSO": UWSO,
}

# Acts on every micro-batch of a window by itself: at the border, with a surrogate of the Gramian,
# at moved weights, or with weights that are a function of that micro-batch's losses.
PER_BATCH = {
    "AlignedMTLUB", "AutoLambda", "BayesAgg", "COSMOS", "COSMOS drawn", "Calibrated", "ConsMTL",
    "FAMO",
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
    "AlignedMTLUB", "BayesAgg", "Calibrated", "ConsMTL", "GradNorm", "MGDAUB", "NTKMTLSR",
    "RotoGrad",
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
