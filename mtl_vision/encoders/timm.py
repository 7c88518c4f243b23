"""Any timm model as an encoder."""

from typing import Any, Literal, Self, TypeAlias

import timm
from torch import Tensor, nn

from mtl_core.errors import ArgumentError, MTLError, UnknownNameError
from mtl_core.nn import FeatureInfo, Features
from mtl_vision.encoders.base import Encoder, EncoderFactory

ModelArgs: TypeAlias = dict[str, bool | int | float | str | list[int] | None]
"""Plain values only: nothing in it can name a class to be instantiated."""

_OWN_ARGUMENTS = {
    "drop_path_rate": "drop_path",
    "features_only": "out_indices",
    "img_size": "img_size",
    "in_chans": "in_chans",
    "num_classes": "",
    "out_indices": "out_indices",
    "output_stride": "output_stride",
    "pretrained": "pretrained",
}


class PretrainedWeightsError(MTLError, RuntimeError):
    """Pretrained weights cannot be had, or do not fit the model as it is configured."""

    def __init__(self, name: str, reason: object) -> None:
        super().__init__(
            f"cannot load pretrained weights of {name!r} ({reason}). They are downloaded on "
            "first use and kept in the cache of the Hugging Face hub; without network, or with "
            "model_args that change the shapes of the weights, set pretrained: false."
        )


class TimmEncoder(Encoder):
    """A timm model without its head: the pyramid of a hierarchical model, or taps of a plain ViT.

    Plain transformers keep one stride throughout; their maps are the patch tokens after the chosen
    blocks, class and register tokens left out, the last map after the model's final norm (where it
    has one before pooling). `Features.tokens` is then the whole final sequence (B, N, D), prefix
    tokens first. By default four evenly spaced blocks are tapped, the last one included: 3, 6, 9,
    12 of ViT-B and 6, 12, 18, 24 of ViT-L, counted from 1, as in InvPT (Ye & Xu, ECCV 2022).
    Hierarchical models (ResNet, ConvNeXt, Swin, ...) give every level of stride 4 and more, always
    channels first.

    Shapes: images (B, in_chans, H, W) → maps (B, C_l, ceil(H / stride_l), ceil(W / stride_l)).

    Position embeddings are made for `img_size` at construction (pretrained ones are resampled by
    timm); models with a fixed input size therefore accept that size only, which has to be a
    multiple of the patch.

    Args:
        name: timm name, best with its tag (``vit_small_patch16_224.augreg_in21k``): default tags
            move.
        pretrained: load the published weights of that tag.
        img_size: (H, W) of all images. None: timm's default where the size is fixed (224 for most
            transformers), any size elsewhere.
        out_indices: blocks of a plain transformer or levels of a pyramid, counted from 0,
            ascending; negative ones count from the end. None: see above. Layers behind the last
            one are removed.
        output_stride: coarsest stride of a convolutional pyramid, 8 or 16 trade stride for
            dilation; only for models where timm offers it.
        drop_path: rate of stochastic depth, in [0, 1).
        in_chans: image channels.
        frozen: ``none``; ``norm``: batch norm keeps its statistics and weights; ``all``: nothing
            is trained and the encoder stays in evaluation mode.
        grad_checkpointing: recompute activations in the backward pass (non-reentrant).
        model_args: further plain arguments of the timm model (``patch_size``, ``embed_dim``,
            ``depth``, ``num_heads``, ...).

    Raises:
        UnknownNameError: timm knows no such model or tag.
        ArgumentError: an argument does not fit the model.
        PretrainedWeightsError: the weights cannot be downloaded or do not fit.

    Example:
        >>> shape = {"embed_dim": 48, "depth": 4}
        >>> encoder = TimmEncoder("vit_tiny_patch16_224", img_size=(64, 96), model_args=shape)
        >>> encoder.info.strides
        (16, 16, 16, 16)
    """

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = False,
        img_size: tuple[int, int] | None = None,
        out_indices: tuple[int, ...] | None = None,
        output_stride: int | None = None,
        drop_path: float = 0.0,
        in_chans: int = 3,
        frozen: Literal["none", "norm", "all"] = "none",
        grad_checkpointing: bool = False,
        model_args: ModelArgs | None = None,
    ) -> None:
        model, size = _create(
            name, pretrained, img_size, output_stride, drop_path, in_chans, model_args or {}
        )
        levels = [(int(f["num_chs"]), int(f["reduction"])) for f in model.feature_info]
        plain = len({stride for _, stride in levels}) == 1
        indices = _indices(out_indices, [stride for _, stride in levels], plain)
        if size is not None and any(side % levels[0][1] for side in size):
            stride = levels[0][1]
            nearest = tuple(max(1, round(side / stride)) * stride for side in size)
            rule = f"be a multiple of {stride}, the patch of {name} (nearest: {nearest})"
            raise ArgumentError("img_size", rule, size)
        super().__init__(
            FeatureInfo(
                channels=tuple(levels[i][0] for i in indices),
                strides=tuple(levels[i][1] for i in indices),
                size=size,
            )
        )
        self.name = name
        self.indices = indices
        self.plain = plain
        self.frozen = frozen
        model.prune_intermediate_layers(list(indices), prune_norm=not plain, prune_head=True)
        if grad_checkpointing:
            _enable_checkpointing(model, name)
        self.model = model
        for module in self._frozen_modules():
            module.requires_grad_(False)
        self.train()

    def forward(self, images: Tensor) -> Features:
        """Features of images (B, in_chans, H, W); `ArgumentError` at another size than fixed."""
        self.check_size(images)
        size = (images.shape[-2], images.shape[-1])
        final, maps = self.model.forward_intermediates(
            images, indices=list(self.indices), norm=False, output_fmt="NCHW"
        )
        if not self.plain or final.ndim != 3:
            return Features(maps=list(maps), size=size)
        height, width = maps[-1].shape[-2:]
        patches = final[:, final.shape[1] - height * width :]
        last = patches.transpose(1, 2).reshape(final.shape[0], final.shape[2], height, width)
        return Features(maps=[*maps[:-1], last], size=size, tokens=final)

    def train(self, mode: bool = True) -> Self:
        """Training mode, except for what is frozen."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen == "none":
            return []
        if self.frozen == "all":
            return [self.model]
        norms: list[nn.Module] = [m for m in self.model.modules() if isinstance(m, nn.BatchNorm2d)]
        if not norms:
            rule = f"be none or all, {self.name} has no batch norm"
            raise ArgumentError("frozen", rule, self.frozen)
        return norms


def build_encoder(
    encoder: str | EncoderFactory,
    *,
    pretrained: bool = False,
    img_size: tuple[int, int] | None = None,
) -> Encoder:
    """The encoder that a network's arguments describe.

    Args:
        encoder: a timm name, or a factory that carries all its arguments itself.
        pretrained: for a timm name.
        img_size: (H, W) for a timm name.
    """
    if isinstance(encoder, str):
        return TimmEncoder(encoder, pretrained=pretrained, img_size=img_size)
    if pretrained or img_size is not None:
        raise ArgumentError(
            "pretrained and img_size",
            "stand in the encoder's own init_args where it is given as a class",
            {"pretrained": pretrained, "img_size": img_size},
        )
    return encoder()


def _create(
    name: str,
    pretrained: bool,
    img_size: tuple[int, int] | None,
    output_stride: int | None,
    drop_path: float,
    in_chans: int,
    model_args: ModelArgs,
) -> tuple[Any, tuple[int, int] | None]:
    """The timm model without classifier, and the input size that it is fixed to."""
    _check_name(name)
    for key in model_args.keys() & _OWN_ARGUMENTS.keys():
        own = _OWN_ARGUMENTS[key]
        rule = (
            f"leave {key} to the argument {own}"
            if own
            else f"leave out {key}, there is no classifier"
        )
        raise ArgumentError("model_args", rule, model_args)
    if not 0 <= drop_path < 1:
        raise ArgumentError("drop_path", "lie in [0, 1)", drop_path)
    config = timm.get_pretrained_cfg(name)
    if pretrained and not (config and config.has_weights):
        raise ArgumentError(
            "pretrained", f"be false, no weights of {name!r} are published", pretrained
        )
    arguments: dict[str, Any] = {**model_args, "num_classes": 0, "in_chans": in_chans}
    if config and config.fixed_input_size:
        img_size = img_size or (config.input_size[-2], config.input_size[-1])
        arguments["img_size"] = img_size
    if output_stride is not None:
        arguments["output_stride"] = output_stride
    if drop_path:
        arguments["drop_path_rate"] = drop_path
    try:
        model = timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:  # downloads fail in many ways
        if pretrained and not isinstance(error, AssertionError | TypeError):
            raise PretrainedWeightsError(name, error) from error
        shown = {key: value for key, value in arguments.items() if key != "num_classes"}
        raise ArgumentError(
            "name, img_size, output_stride, drop_path and model_args",
            f"fit the timm model {name!r} ({error or type(error).__name__})",
            shown,
        ) from error
    if not hasattr(model, "forward_intermediates"):
        raise ArgumentError("name", "be a timm model that can return intermediate features", name)
    return model, img_size


def _check_name(name: str) -> None:
    """Refuse architectures and tags that timm does not know."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise UnknownNameError("the encoder's name", name, timm.list_models())
    if tag:
        tagged = timm.list_pretrained(f"{architecture}.*")
        if name not in tagged:
            raise UnknownNameError("the encoder's name", name, tagged or [architecture])


def _indices(given: tuple[int, ...] | None, strides: list[int], plain: bool) -> tuple[int, ...]:
    """Levels to return, counted from 0."""
    count = len(strides)
    if given is None:
        if plain:
            taps = min(4, count)
            return tuple(round((i + 1) * count / taps) - 1 for i in range(taps))
        return tuple(i for i, stride in enumerate(strides) if stride >= 4) or (count - 1,)
    indices = tuple(i + count if i < 0 else i for i in given)
    inside = all(0 <= i < count for i in indices)
    if not indices or not inside or list(indices) != sorted(set(indices)):
        raise ArgumentError("out_indices", f"ascend within 0..{count - 1}", given)
    return indices


def _enable_checkpointing(model: Any, name: str) -> None:
    try:
        model.set_grad_checkpointing(True)
    except (AssertionError, AttributeError) as error:
        raise ArgumentError(
            "grad_checkpointing", f"be false, timm does not offer it for {name}", True
        ) from error
