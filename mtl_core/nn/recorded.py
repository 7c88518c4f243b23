"""Modules that remember what they were built with."""

import inspect
from typing import Any, Self


class RecordsArguments:
    """Mixin that keeps the constructor's arguments, from which a saved module is rebuilt.

    The arguments stand outside the module's state dict and follow it through copies.

    Example:
        >>> class Scale(RecordsArguments):
        ...     def __init__(self, factor, *, bias=0.0):
        ...         self.weight = factor
        >>> Scale(2.0).arguments()
        {'factor': 2.0, 'bias': 0.0}
    """

    _given: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record, and construct as usual."""
        instance = super().__new__(cls)
        instance.__dict__["_given"] = (args, kwargs)
        return instance

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments by name, defaults filled in."""
        args, kwargs = self._given
        bound = inspect.signature(type(self)).bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)
