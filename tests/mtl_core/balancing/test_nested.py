import pytest

from mtl_core.balancing import Equal
from mtl_core.balancing.loss import LossBalancer
from mtl_core.balancing.nested import refuse_hooks
from mtl_core.errors import ArgumentError

RULE = "be a plain loss balancer"


def with_a(name):
    """`Equal` with one method of its own."""
    return type("Busy", (Equal,), {name: lambda self, *args: None})()


def test_a_method_that_only_weighs_is_taken():
    refuse_hooks(Equal(), LossBalancer, RULE)
    refuse_hooks(with_a("weigh"), LossBalancer, RULE)


@pytest.mark.parametrize(
    "hook", ["on_train_start", "on_before_zero_grad", "setup", "check", "collect", "finish"]
)
def test_a_method_with_a_hook_is_refused_by_name(hook):
    with pytest.raises(ArgumentError, match=f"inner.*{RULE}.*Busy.*`{hook}`"):
        refuse_hooks(with_a(hook), LossBalancer, RULE)


def test_further_methods_are_refused_where_named_only():
    inner = with_a("advance")
    refuse_hooks(inner, LossBalancer, RULE)
    with pytest.raises(ArgumentError, match="`advance`"):
        refuse_hooks(inner, LossBalancer, RULE, "advance")


def test_hooks_are_compared_with_the_familys():
    inner = with_a("setup")
    refuse_hooks(inner, type(inner), RULE)
