"""Inner products of the tasks' gradients in a training step, whoever works on that step."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtl_core.balancing.base import Balanceable
from mtl_core.balancing.feature import inner_over_ranks
from mtl_core.balancing.losses import TaskLosses
from mtl_core.balancing.ranks import share_labels, sum_over_ranks, world_size
from mtl_core.balancing.rows import RowBuffer, gramian, kept_graphs, trunk_gradient
from mtl_core.balancing.sharded import is_sharded
from mtl_core.balancing.surrogates import last_layer
from mtl_core.errors import BalancerError

Source = Literal["exact", "last_layer", "feature"]


class GradientRows:
    """The tasks' gradients of one accumulation window, read off graphs that stay whole.

    Nothing is written to ``.grad`` and no forward pass runs, so training goes on as if nobody had
    looked. Gradients are those of the mean losses over all labels of all ranks.

    Args:
        entries: of the run; their order is that of the rows.
        source: whose gradients. ``exact``: all shared parameters, one walk of the trunk an entry;
            ``last_layer``: those of one module; ``feature``: the features. The latter two do not
            walk the whole trunk.
        layer: name of the module for ``last_layer``; empty takes the last shared one that has a
            matrix of weights.
    """

    def __init__(self, entries: Sequence[str], source: Source = "exact", layer: str = "") -> None:
        self.entries = tuple(entries)
        self.source, self.layer = source, layer
        self.present: set[str] = set()
        self._buffer: RowBuffer | None = None
        self._inner = torch.zeros(len(entries), len(entries), dtype=torch.float64)

    def add(self, module: Balanceable, step: TaskLosses, scaled: Tensor) -> None:
        """Take in one micro-batch. Every rank has to call it.

        Args:
            module: whose parameters are trained.
            step: its losses, with their graph.
            scaled: the trainer's multiple of their sum.

        Raises:
            BalancerError: the shared parameters are sharded, or there are no features where the
                source needs them.
        """
        shared = module.network.split_parameters().shared
        if is_sharded(shared):
            raise BalancerError(
                "gradients can be looked at where parameters are whole, but the shared ones are "
                "sharded (FSDP2)."
            )
        means, shares = share_labels(step, self.entries, scaled.device)
        self.present |= set(means)
        if not shared:
            return
        (factors,) = torch.autograd.grad(scaled, [step.vector], retain_graph=True)
        outgoing = {e: f * shares[e] for e, f in zip(step.losses, factors.unbind(), strict=True)}
        with kept_graphs():
            if self.source == "feature":
                self._add_features(module, step, outgoing)
            else:
                self._add_rows(module, step, outgoing, shared)

    def _border(self, module: Balanceable, step: TaskLosses) -> list[Tensor] | None:
        if module.network.independent_decoders() and step.features is not None:
            return step.features.tensors()
        if self.source != "exact":
            raise BalancerError(
                f"source: {self.source} reads gradients of the features, which "
                f"{type(module.network).__name__} does not have. Use source: exact."
            )
        return None

    def _at_border(
        self, step: TaskLosses, border: Sequence[Tensor], outgoing: dict[str, Tensor], entry: str
    ) -> list[Tensor | None]:
        sides = step.cut[step.owner[entry]].tensors() if step.cut else list(border)
        known = [i for i, side in enumerate(sides) if side.requires_grad]
        found: list[Tensor | None] = [None] * len(sides)
        if known:
            gradients = torch.autograd.grad(
                step.losses[entry],
                [sides[i] for i in known],
                grad_outputs=outgoing[entry],
                retain_graph=True,
                allow_unused=True,
            )
            for i, gradient in zip(known, gradients, strict=True):
                found[i] = gradient
        return found

    def _add_rows(
        self,
        module: Balanceable,
        step: TaskLosses,
        outgoing: dict[str, Tensor],
        shared: list[nn.Parameter],
    ) -> None:
        border = self._border(module, step)
        parameters = shared
        if self.source == "last_layer":
            split = module.network.split_parameters()
            parameters = list(last_layer(module.network, split, self.layer))
        if self._buffer is None:
            self._buffer = RowBuffer(parameters, len(self.entries))
        for entry, loss in step.losses.items():
            row: list[Tensor | None]
            if border is None:
                row = list(
                    torch.autograd.grad(
                        loss, parameters, outgoing[entry], retain_graph=True, allow_unused=True
                    )
                )
            else:
                at = self._at_border(step, border, outgoing, entry)
                row = trunk_gradient(border, at, parameters, retain_graph=True)
            self._buffer.add(self.entries.index(entry), row)

    def _add_features(
        self, module: Balanceable, step: TaskLosses, outgoing: dict[str, Tensor]
    ) -> None:
        border = self._border(module, step)
        assert border is not None
        size = sum(t.numel() for t in border)
        rows = torch.zeros(len(self.entries), size, device=border[0].device)
        for entry in step.losses:
            parts = rows[self.entries.index(entry)].split([t.numel() for t in border])
            at = self._at_border(step, border, outgoing, entry)
            for part, gradient in zip(parts, at, strict=True):
                if gradient is not None:
                    part.copy_(gradient.flatten())
        # Features of other micro-batches are other columns: their products add up.
        self._inner += inner_over_ranks(rows)

    def gramian(self, scale: float = 1.0) -> Tensor | None:
        """Inner products (T, T) float64 of all entries' gradients. Every rank has to call it.

        Rows of entries without a label in the window are zero. None where nothing shared was
        trainable.

        Args:
            scale: loss scale, which is taken off.
        """
        inner: Tensor | None = None
        if self._buffer is not None:
            self._buffer.complete()
            rows = sum_over_ranks(self._buffer.rows) / world_size()
            inner = gramian(rows)
        elif self.source == "feature" and bool(self._inner.any()):
            inner = self._inner
        return None if inner is None else inner / scale**2
