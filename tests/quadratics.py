"""The two-task reference problem of sharpness-aware methods."""

import torch

from mtl_core.balancing import Balanced, GradientBalancer


class Sum(GradientBalancer):
    def weigh(self, gramian, losses, step):
        return torch.ones_like(losses)


class Reference:
    """The two-task quadratic problem of the specification, with one weight a decoder."""

    curvatures = (torch.tensor([[3.0, 0], [0, 1]]), torch.tensor([[1.0, 0.5], [0.5, 2]]))
    slopes = (torch.tensor([-1.0, 1]), torch.tensor([-4.0, 2]))
    mixes = (torch.tensor([1.0, -1]), torch.tensor([0.5, 1]))
    masses = (2.0, 4.0)

    def __init__(self, balancer):
        self.theta = torch.nn.Parameter(torch.tensor([1.0, -1.0], dtype=torch.float64))
        self.psi = [
            torch.nn.Parameter(torch.tensor([x], dtype=torch.float64)) for x in (0.5, -0.25)
        ]
        self.seen: list[list[torch.Tensor]] = []
        own = {"a": [self.psi[0]], "b": [self.psi[1]]}
        self.balanced = Balanced(balancer, shared=[self.theta], own=own)

    def losses(self):
        self.seen.append([self.theta.detach().clone(), *(p.detach().clone() for p in self.psi)])
        found = {}
        parts = zip(
            "ab", self.curvatures, self.slopes, self.mixes, self.masses, self.psi, strict=True
        )
        for name, h, b, u, m, psi in parts:
            at = self.theta
            loss = 0.5 * at @ h.double() @ at + b.double() @ at
            found[name] = loss + (psi * (u.double() @ at) + 0.5 * m * psi**2).sum()
        return found

    def run(self):
        with self.balanced as balanced:
            balanced.backward(self.losses(), closure=self.losses)
        return self.theta.grad, [p.grad for p in self.psi]
