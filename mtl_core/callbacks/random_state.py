"""Random states in the checkpoint, so that a resumed run draws what the unbroken one would have."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist


class RandomState(L.Callback):
    """Saves the global random generators with every checkpoint and restores them on resume.

    Covers torch (CPU, and the process's own CUDA device), NumPy's legacy generator and Python's
    ``random``: dropout, stochastic depth and random balancing weights go on as if the run had not
    been stopped. With deterministic kernels, training is then bit-identical.

    Under several processes every rank's state is gathered into the checkpoint and given back to the
    same rank; a rank that the checkpoint does not know keeps the state of the new run.

    The states are those at the moment of saving, after validation where that came first. They are
    put back in ``on_train_start``, when models, loaders and the sanity check have drawn what they
    need and no batch was fetched yet. Callbacks that draw in their own ``on_train_start`` belong
    before this one.
    """

    def __init__(self) -> None:
        self._device = torch.device("cpu")
        self._loaded: list[dict[str, Any]] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Remember which device this process trains on."""
        self._device = trainer.strategy.root_device

    def state_dict(self) -> dict[str, Any]:
        """The state of every rank; called on all ranks together."""
        own = capture(self._device)
        if not (dist.is_available() and dist.is_initialized()):
            return {"ranks": [own]}
        ranks: list[dict[str, Any]] = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(ranks, own)
        return {"ranks": ranks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts."""
        self._loaded = list(state_dict["ranks"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put back the state of this rank, once."""
        loaded, self._loaded = self._loaded, []
        if trainer.global_rank < len(loaded):
            restore(loaded[trainer.global_rank], self._device)


def capture(device: torch.device | None = None) -> dict[str, Any]:
    """States of torch, NumPy and Python, as tensors, lists and numbers only.

    Args:
        device: also this CUDA device's generator; any other device adds nothing.

    Example:
        >>> state = capture()
        >>> before = torch.rand(2), random.random()
        >>> restore(state)
        >>> bool((torch.rand(2) == before[0]).all()), random.random() == before[1]
        (True, True)
    """
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, internal, next_gauss = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": [np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)],
        "python": [version, list(internal), next_gauss],
    }
    if device is not None and device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore(state: dict[str, Any], device: torch.device | None = None) -> None:
    """Put back what `capture` returned; a CUDA state only onto a CUDA device."""
    torch.set_rng_state(state["torch"].cpu())
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", np.array(keys, np.uint32), position, has_gauss, gauss))
    version, internal, next_gauss = state["python"]
    random.setstate((version, tuple(internal), next_gauss))
    if device is not None and device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
