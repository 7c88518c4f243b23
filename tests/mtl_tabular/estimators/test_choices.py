from functools import partial

import pytest

from mtl_core.balancing import PCGrad
from mtl_core.errors import UnknownNameError
from mtl_tabular.estimators.choices import (
    make_balancer,
    named_balancers,
    named_networks,
    network_factory,
)
from mtl_tabular.networks import SharedBottom


def test_names_are_those_of_the_files():
    assert {"multitab", "shared_bottom", "mmoe", "ple"} <= set(named_networks())
    assert {"equal", "pcgrad", "uw", "graddrop", "mgda_ub"} <= set(named_balancers())


def test_names_and_factories():
    assert network_factory("shared_bottom") is network_factory("Shared_Bottom") is SharedBottom
    factory = partial(SharedBottom, dropout=0.0)
    assert network_factory(factory) is factory
    assert make_balancer(None) is None
    assert isinstance(make_balancer("PCGrad"), PCGrad)
    assert make_balancer(partial(PCGrad, seed=3)).seed == 3


def test_unknown_names_meet_the_nearest():
    with pytest.raises(UnknownNameError, match=r"network.*Did you mean shared_bottom"):
        network_factory("shared_buttom")
    with pytest.raises(UnknownNameError, match=r"balancer.*Did you mean pcgrad"):
        make_balancer("pc_grad")
    with pytest.raises(TypeError, match="when called, found 3"):
        make_balancer(3)
