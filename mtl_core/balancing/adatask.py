"""Adam with moments by task."""

import torch
from torch import Tensor

from mtl_core.balancing.losses import Step
from mtl_core.balancing.task_adam import TaskAdam


class AdaTask(TaskAdam):
    r"""Every task takes its own Adam step on the shared parameters.

    Yang et al., "AdaTask: A Task-aware Adaptive Learning Rate Approach to Multi-task Learning",
    AAAI 2023: :math:`\theta \leftarrow \theta - \eta \sum_t \hat m_t / (\sqrt{\hat v_t} +
    \varepsilon)`, so that no task dominates the second moments. It takes the place of the
    optimiser: the module's has to be plain ``torch.optim.SGD``, whose learning rate is Adam's
    (other optimisers are refused), and with weight decay it is decoupled (the authors' code
    ignores the argument). Decoders get their own Adam steps, as published.

    Degree zero: neither the scale of the gradients nor that of any loss matters, as long as
    gradients are well above `eps`. Tasks that agree step T times as far as one. Switch the
    trainer's gradient clipping off: it would clip finished steps. State: two numbers a parameter
    and task. Neither LibMTL nor TorchJD has it.

    Args:
        betas: shares of the former first and second moments, in [0, 1).
        eps: beside the root of the second moment, positive.
        seed: unused; every balancer has one.
    """

    source = "Yang et al., AAAI 2023"

    def aggregate(self, jacobian: Tensor, losses: Tensor, step: Step) -> Tensor:
        """Sum of the tasks' steps."""
        first, second, factors = self.advance(jacobian, step)
        direction = torch.zeros_like(jacobian[0])
        for t in range(len(jacobian)):
            root = self.denominator(second[t], factors[1, t])
            direction.addcdiv_(first[t], root, value=float(factors[0, t]))
        return direction
