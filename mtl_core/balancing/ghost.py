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
from mtl_core.balancing.ranks import world_size
from mtl_core.balancing.rows import (
    RowBuffer,
    accumulate,
    combine,
    decoder_pass,
    full_precision,
    gramian,
    stack_or_zeros,
)
from mtl_core.errors import BalancerError
from mtl_core.nn.parts import ParameterSplit, SharedNetwork

COVERED = 0.9
"""Share of the shared numbers that has to lie in linear layers for ``gram: auto`` to use them."""

SAVED = 0.55
"""Operations, over those of rows, below which it does."""


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

    def forget(self) -> None:
        """Drop what was heard in a forward pass that needs no Gramian."""
        self._calls = []

    def pays(self, step: TaskLosses, split: ParameterSplit, tasks: int) -> bool:
        """Whether activations need fewer operations than rows, by the forward pass just heard.

        Args:
            step: the micro-batch of that pass; without cut features it has to be rows.
            split: whose parameters are whose.
            tasks: T.
        """
        if not step.cut or step.features is None or world_size() > 1:
            return False
        shared = {id(p): p.numel() for p in split.shared}
        held = sum(shared.values())
        pairs = rows = covered = 0
        for module, inputs, _ in self._calls:
            covered += shared.pop(id(module.weight), 0)
            samples = inputs.numel() // module.in_features
            costs = _operations(tasks, samples, module.in_features, module.out_features)
            pairs, rows = pairs + min(costs), rows + costs[1]
        return covered >= COVERED * held and pairs <= SAVED * rows

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
        self._prepare(others, len(entries))
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
        self._walk(
            calls,
            step.features.tensors(),
            [at_cut[e] for e in step.losses],
            others,
            [entries.index(e) for e in step.losses],
            len(entries),
        )

    def _walk(
        self,
        calls: Sequence[tuple[nn.Linear, Tensor, Tensor]],
        features: Sequence[Tensor],
        gradients: Sequence[Sequence[Tensor | None]],
        others: Sequence[nn.Parameter],
        places: Sequence[int],
        entries: int,
    ) -> None:
        """One vectorised walk of the trunk for the signals of all tasks."""
        outputs = [output for _, _, output in calls]
        reached = [i for i, f in enumerate(features) if f.requires_grad]
        found: Sequence[Tensor | None] = [None] * (len(outputs) + len(others))
        if gradients and reached:
            stacked = [stack_or_zeros([g[i] for g in gradients], features[i]) for i in reached]
            found = torch.autograd.grad(
                [features[i] for i in reached],
                [*outputs, *others],
                stacked,
                is_grads_batched=True,
                allow_unused=True,
            )
        whole = list(places) == list(range(entries))
        for (module, inputs, output), gradient in zip(calls, found, strict=False):
            if gradient is not None and whole:
                signal = gradient.float()
            else:
                signal = torch.zeros(entries, *output.shape, device=output.device)
                if gradient is not None:
                    signal[list(places)] = gradient.float()
            layer = self._layers.setdefault(id(module), _Layer(module))
            layer.inputs.append(inputs.float().reshape(-1, module.in_features))
            layer.signals.append(signal.reshape(entries, -1, module.out_features))
        if self._others is not None:
            rows = found[len(outputs) :]
            for turn, place in enumerate(places):
                self._others.add(place, [None if r is None else r[turn] for r in rows])

    def _prepare(self, others: list[nn.Parameter], entries: int) -> None:
        known = None if self._others is None else [id(p) for p in self._others.parameters]
        if not others:
            self._others = None
        elif known != [id(p) for p in others]:
            self._others = RowBuffer(others, entries)

    def gramian(self, entries: Sequence[str], step: Step) -> Tensor:
        """Gramian (T, T) float64 of the window, of the entries in `step`, loss scale included."""
        total = torch.zeros(len(entries), len(entries), dtype=torch.float64)
        if self._others is not None:
            self._others.complete()
            total += gramian(self._others.rows)
        for layer in self._layers.values():
            if len(layer.inputs) > 1:
                layer.inputs = [torch.cat(layer.inputs)]
                layer.signals = [torch.cat(layer.signals, 1)]
            bias = layer.module.bias
            moves = bias is not None and bias.requires_grad
            total += layer_gramian(layer.inputs[0], layer.signals[0], moves)
        return total[step.present][:, step.present]

    def write(self, weights: Tensor, step: Step) -> None:
        """Make the weighted sum of the rows, plus what ``.grad`` holds, the ``.grad``; forget all.

        Args:
            weights: (T,) of the entries in `step`.
            step: the update.
        """
        for layer in self._layers.values():
            signals = layer.signals[0]
            if len(step.present) < len(signals):
                signals = signals[step.present.to(signals.device)]
            merged = torch.tensordot(weights.to(signals), signals, 1)
            module = layer.module
            for parameter, gradient in (
                (module.weight, merged.t() @ layer.inputs[0]),
                (module.bias, merged.sum(0)),
            ):
                if isinstance(parameter, nn.Parameter) and parameter.requires_grad:
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
        by_pairs, by_rows = _operations(tasks, samples, depth, width)
        if by_rows < by_pairs:
            rows = torch.matmul(signals.transpose(1, 2), inputs).flatten(1)
            if bias:
                rows = torch.cat([rows, signals.sum(1)], 1)
            return gramian(rows)
        kernel = inputs @ inputs.t() + float(bias)
        left, right = signals.flatten(1), torch.matmul(kernel, signals).flatten(1)
        if not full_precision(left):
            left, right = left.double(), right.double()
        return (left @ right.t()).double().cpu()


def _operations(tasks: int, samples: int, depth: int, width: int) -> tuple[int, int]:
    """Multiplications of a linear layer's part of the Gramian by activations, and by rows."""
    by_pairs = samples**2 * (depth + tasks * width) + tasks**2 * samples * width
    return by_pairs, tasks * samples * depth * width + tasks**2 * depth * width
