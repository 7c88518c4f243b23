"""Balancing methods: callbacks that turn task gradients into one update."""

from mtl_core.balancing.adatask import AdaTask
from mtl_core.balancing.aligned_mtl import AlignedMTL
from mtl_core.balancing.aligned_mtl_ub import AlignedMTLUB
from mtl_core.balancing.auto_lambda import AutoLambda
from mtl_core.balancing.base import Balanceable, Balancer
from mtl_core.balancing.bayes_agg import BayesAgg
from mtl_core.balancing.border import Merged
from mtl_core.balancing.cagrad import CAGrad
from mtl_core.balancing.calibrated import Calibrated
from mtl_core.balancing.con_fig import ConFIG
from mtl_core.balancing.cons_mtl import ConsMTL
from mtl_core.balancing.cosmos import COSMOS
from mtl_core.balancing.db_mtl import DBMTL
from mtl_core.balancing.dtp import DTP
from mtl_core.balancing.dualproj import DualProj
from mtl_core.balancing.dwa import DWA
from mtl_core.balancing.equal import Equal
from mtl_core.balancing.excess_mtl import ExcessMTL
from mtl_core.balancing.fairgrad import FairGrad
from mtl_core.balancing.famo import FAMO
from mtl_core.balancing.feature import FeatureBalancer
from mtl_core.balancing.forum import FORUM
from mtl_core.balancing.gls import GLS
from mtl_core.balancing.go4align import GO4Align
from mtl_core.balancing.graddrop import GradDrop
from mtl_core.balancing.gradient import GradientBalancer
from mtl_core.balancing.gradnorm import GradNorm
from mtl_core.balancing.gradvac import GradVac
from mtl_core.balancing.igb import IGB
from mtl_core.balancing.imtl import IMTL
from mtl_core.balancing.imtlg import IMTLG
from mtl_core.balancing.imtll import IMTLL
from mtl_core.balancing.jacobian import JacobianBalancer
from mtl_core.balancing.krum import Krum
from mtl_core.balancing.ldc_mtl import LDCMTL
from mtl_core.balancing.loop import Balanced
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.metabalance import MetaBalance
from mtl_core.balancing.mgda import MGDA
from mtl_core.balancing.mgda_ub import MGDAUB
from mtl_core.balancing.moco import MoCo
from mtl_core.balancing.modo import MoDo
from mtl_core.balancing.moml import MOML
from mtl_core.balancing.mtadam import MTAdam
from mtl_core.balancing.nash_mtl import NashMTL
from mtl_core.balancing.ntkmtl import NTKMTL
from mtl_core.balancing.ntkmtl_sr import NTKMTLSR
from mtl_core.balancing.pbi import PBI
from mtl_core.balancing.pcd import PCD
from mtl_core.balancing.pcgrad import PCGrad
from mtl_core.balancing.pivrg import PIVRG
from mtl_core.balancing.rep_mtl import RepMTL
from mtl_core.balancing.rlw import RLW
from mtl_core.balancing.rotograd import RotoGrad
from mtl_core.balancing.sam import SAM
from mtl_core.balancing.samo import SAMO
from mtl_core.balancing.sdmgrad import SDMGrad
from mtl_core.balancing.sel_update import SelUpdate
from mtl_core.balancing.si import SI
from mtl_core.balancing.stages import Stages
from mtl_core.balancing.static import Static
from mtl_core.balancing.stch import STCH
from mtl_core.balancing.trimmed_mean import TrimmedMean
from mtl_core.balancing.upgrad import UPGrad
from mtl_core.balancing.uw import UW
from mtl_core.balancing.uwo import UWO
from mtl_core.balancing.uwso import UWSO

__all__ = [
    "COSMOS",
    "DBMTL",
    "DTP",
    "DWA",
    "FAMO",
    "FORUM",
    "GLS",
    "IGB",
    "IMTL",
    "IMTLG",
    "IMTLL",
    "LDCMTL",
    "MGDA",
    "MGDAUB",
    "MOML",
    "NTKMTL",
    "NTKMTLSR",
    "PBI",
    "PCD",
    "PIVRG",
    "RLW",
    "SAM",
    "SAMO",
    "SI",
    "STCH",
    "UW",
    "UWO",
    "UWSO",
    "AdaTask",
    "AlignedMTL",
    "AlignedMTLUB",
    "AutoLambda",
    "Balanceable",
    "Balanced",
    "Balancer",
    "BayesAgg",
    "CAGrad",
    "Calibrated",
    "ConFIG",
    "ConsMTL",
    "DualProj",
    "Equal",
    "ExcessMTL",
    "FairGrad",
    "FeatureBalancer",
    "GO4Align",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "GradientBalancer",
    "JacobianBalancer",
    "Krum",
    "LossBalancer",
    "MTAdam",
    "Merged",
    "MetaBalance",
    "MoCo",
    "MoDo",
    "NashMTL",
    "PCGrad",
    "RepMTL",
    "RotoGrad",
    "SDMGrad",
    "SelUpdate",
    "Stages",
    "Static",
    "Step",
    "TaskLosses",
    "TrimmedMean",
    "UPGrad",
]
