r"""The exact Gramian from activations and signals, without the rows.

A linear layer with inputs :math:`a` and signals :math:`\delta_t` (gradients at its output) adds
:math:`\sum_{b,b'} (\delta_t[b] \cdot \delta_s[b']) (a[b] \cdot a[b'] + 1)` to :math:`G_{ts}`. The
signals of T tasks cost half a walk of the trunk each, the weights' gradients are formed once. It
pays where samples times tokens are fewer than a layer is wide, as in perceptrons on tables. Layers
for which it would not pay, and parameters of other modules, contribute by their rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mtl_core.balancing.losses import Step, TaskLosses
from mtl_core.balancing.rows import (
    RowBuffer,
    accumulate,
    combine,
    decoder_pass,
    gramian,
)
from mtl_core.errors import BalancerError
from mtl_core.nn.parts import ParameterSplit, SharedNetwork


@dataclass
class _Layer:
    """What one linear layer saw in a window: inputs (M, d_in), signals (T, M, d_out)."""

    module: nn.Linear
    inputs: list[Tensor] = field(default_factory=list)
    signals: list[Tensor] = field(default_factory=list)


class Ghost:
    """Listens to the linear layers of a network's shared part.

    Args:
        network: to listen to; `close` ends it.
    """

    def __init__(self, network: SharedNetwork) -> None:
        owners: dict[int, int] = {}
        linear = [m for _, m in network.named_modules() if isinstance(m, nn.Linear)]
        for _, module in network.named_modules():
            for parameter in module.parameters(recurse=False):
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
        # A weight that several modules hold is no affair of one of them.
        self._modules = [m for m in linear if owners[id(m.weight)] == 1]
        self._calls: list[tuple[nn.Linear, Tensor, Tensor]] = []
        self._layers: dict[int, _Layer] = {}
        self._others: RowBuffer | None = None
        self._hooks = [m.register_forward_hook(self._heard) for m in self._modules]

    def close(self) -> None:
        """Stop listening."""
        for hook in self._hooks:
            hook.remove()

    def _heard(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if torch.is_grad_enabled() and output.requires_grad and module.training:
            assert isinstance(module, nn.Linear)
            self._calls.append((module, inputs[0].detach(), output))

    def collect(
        self, step: TaskLosses, scaled: Tensor, split: ParameterSplit, entries: Sequence[str]
    ) -> None:
        """Take in one micro-batch: decoders once, one walk of signals a task.

        Args:
            step: losses on cut copies of the features.
            scaled: the trainer's multiple of the summed loss.
            split: whose parameters are whose.
            entries: of the run.
        """
        if step.features is None:
            raise BalancerError(
                "gram: ghost needs decoders behind a border (in a hand-written loop, decoders that "
                "work on the sides of `cut`)."
            )
        shared = {id(p) for p in split.shared}
        calls = [c for c in self._calls if id(c[0].weight) in shared]
        self._calls = []
        heard = {id(p) for module, _, _ in calls for p in (module.weight, module.bias)}
        others = [p for p in split.shared if id(p) not in heard]
        buffer = self._buffer(others, len(entries))
        factors, aux_factor = step.factors(scaled)
        if step.aux is not None and step.aux.requires_grad:
            everything = [*split.shared, *split.all_own()]
            found = torch.autograd.grad(
                step.aux, everything, aux_factor, retain_graph=True, allow_unused=True
            )
            accumulate(everything, found)
        at_cut, own = decoder_pass(step, factors, split)
        for entry in step.losses:
            accumulate(split.own[step.owner[entry]], own[entry])
        outputs = [output for _, _, output in calls]
        signals = [
            torch.zeros(len(entries), *o.shape, dtype=torch.float32, device=o.device)
            for o in outputs
        ]
        features = step.features.tensors()
        for turn, entry in enumerate(step.losses):
            reached = [
                (f, g)
                for f, g in zip(features, at_cut[entry], strict=True)
                if g is not None and f.requires_grad
            ]
            if not reached:
                continue
            found = torch.autograd.grad(
                [f for f, _ in reached],
                [*outputs, *others],
                [g for _, g in reached],
                retain_graph=turn < len(step.losses) - 1,
                allow_unused=True,
            )
            place = entries.index(entry)
            for signal, gradient in zip(signals, found, strict=False):
                if gradient is not None:
                    signal[place] = gradient
            if buffer is not None:
                buffer.add(place, found[len(outputs) :])
        for (module, inputs, _), signal in zip(calls, signals, strict=True):
            layer = self._layers.setdefault(id(module), _Layer(module))
            layer.inputs.append(inputs.float().reshape(-1, module.in_features))
            layer.signals.append(signal.reshape(len(entries), -1, module.out_features))

    def _buffer(self, others: list[nn.Parameter], entries: int) -> RowBuffer | None:
        if not others:
            self._others = None
        elif self._others is None or [id(p) for p in others] != [
            id(p) for p in self._others.parameters
        ]:
            self._others = RowBuffer(others, entries)
        return self._others

    def gramian(self, entries: Sequence[str], step: Step) -> Tensor:
        """Gramian (T, T) float64 of the window, of the entries in `step`, loss scale included."""
        total = torch.zeros(len(entries), len(entries), dtype=torch.float64)
        if self._others is not None:
            self._others.complete()
            total += gramian(self._others.rows)
        for layer in self._layers.values():
            layer.inputs = [torch.cat(layer.inputs)]
            layer.signals = [torch.cat(layer.signals, 1)]
            total += layer_gramian(layer.inputs[0], layer.signals[0], layer.module.bias is not None)
        return total[step.present][:, step.present]

    def write(self, weights: Tensor, step: Step) -> None:
        """Make the weighted sum of the rows, plus what ``.grad`` holds, the ``.grad``; forget all.

        Args:
            weights: (T,) of the entries in `step`.
            step: the update.
        """
        for layer in self._layers.values():
            signals = layer.signals[0][step.present.to(layer.signals[0].device)]
            merged = torch.tensordot(weights.to(signals), signals, 1)
            module = layer.module
            for parameter, gradient in (
                (module.weight, merged.t() @ layer.inputs[0]),
                (module.bias, merged.sum(0)),
            ):
                if parameter is not None and parameter.requires_grad:
                    accumulate([parameter], [gradient.to(parameter.dtype)])
        if self._others is not None:
            direction = combine(self._others.rows[step.present], weights)
            sizes = self._others.sizes
            for parameter, part in zip(
                self._others.parameters, direction.split(sizes), strict=True
            ):
                accumulate([parameter], [part.view(parameter.shape).to(parameter.dtype)])
            self._others.reset()
        self._layers = {}


def layer_gramian(inputs: Tensor, signals: Tensor, bias: bool) -> Tensor:
    """A linear layer's part of the Gramian, by activations or by rows, whichever is cheaper.

    Args:
        inputs: (M, d_in) float32.
        signals: (T, M, d_out) float32.
        bias: whether the layer has one.

    Returns:
        (T, T) float64 on the CPU.
    """
    tasks, samples, width = signals.shape
    depth = inputs.shape[1]
    with torch.autocast(inputs.device.type, enabled=False):
        by_rows = tasks * samples * depth * width + tasks**2 * depth * width
        by_pairs = samples**2 * (depth + tasks * width) + tasks**2 * samples * width
        if by_rows < by_pairs:
            rows = torch.matmul(signals.transpose(1, 2), inputs).flatten(1)
            if bias:
                rows = torch.cat([rows, signals.sum(1)], 1)
            return gramian(rows)
        kernel = inputs @ inputs.t() + float(bias)
        passed = torch.matmul(kernel, signals).flatten(1)
        return (signals.flatten(1).double() @ passed.double().t()).cpu()
