"""Networks and balancers by name: the name of the file that holds them."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import mtl_core.balancing
import mtl_tabular.networks
from mtl_core.balancing import Balancer
from mtl_core.errors import UnknownNameError
from mtl_tabular.networks import TableNetwork

NetworkFactory = Callable[..., TableNetwork]
"""Called with the tasks and ``schema=``; a class or a `functools.partial` of one."""


def named_networks() -> dict[str, type[TableNetwork]]:
    """Networks by the name of their file.

    >>> named_networks()["shared_bottom"].__name__
    'SharedBottom'
    """
    return _by_file(mtl_tabular.networks, TableNetwork)


def named_balancers() -> dict[str, type[Balancer]]:
    """Balancers by the name of their file.

    >>> named_balancers()["pcgrad"].__name__
    'PCGrad'
    """
    return _by_file(mtl_core.balancing, Balancer)


def network_factory(network: str | NetworkFactory) -> NetworkFactory:
    """What builds the network.

    Raises:
        UnknownNameError: no file has that name.
    """
    factory: NetworkFactory = _chosen("network", network, named_networks())
    return factory


def make_balancer(balancer: str | Callable[[], Balancer] | None) -> Balancer | None:
    """A fresh balancer, None for equal weights.

    Raises:
        UnknownNameError: no file has that name.
    """
    if balancer is None:
        return None
    made: Balancer = _chosen("balancer", balancer, named_balancers())()
    return made


def _by_file(package: Any, base: type[Any]) -> dict[str, type[Any]]:
    members: Mapping[str, Any] = {name: getattr(package, name) for name in package.__all__}
    return {
        member.__module__.rpartition(".")[2]: member
        for member in members.values()
        if inspect.isclass(member) and issubclass(member, base) and not inspect.isabstract(member)
    }


def _chosen(argument: str, value: Any, known: Mapping[str, Any]) -> Any:
    if not isinstance(value, str):
        if not callable(value):
            raise TypeError(
                f"{argument} must be one of {', '.join(sorted(known))}, or something that makes "
                f"one when called, found {value!r}."
            )
        return value
    if value.lower() not in known:
        raise UnknownNameError(argument, value.lower(), known)
    return known[value.lower()]
