"""Every method, ready to train the toy of `toys`; the tests over the whole catalogue walk this."""

from collections.abc import Callable

from mtl_core.balancing import MGDAUB, UW, Balancer, Equal, GradDrop, PCGrad

METHODS: dict[str, Callable[[], Balancer]] = {
    "Equal": Equal,
    "GradDrop": GradDrop,
    "MGDAUB": MGDAUB,
    "PCGrad": PCGrad,
    "UW": UW,
}
