"""What holds for every method that looks at halves of the batch."""

import pytest
import torch
from toys import fit, parameters_of, toy_loader, toy_module, toy_trainer

from mtl_core.errors import ArgumentError, UnknownNameError


def random_gramian(count, seed, *, raw=False):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, 8, dtype=torch.float64, generator=generator)
    return rows if raw else rows @ rows.t()


class BilevelLaws:
    """A subclass gives `make`."""

    def test_weights_of_the_model_are_bit_identical_after_the_look(self, monkeypatch):
        """Also those of BatchNorm's buffers, and the stream of random numbers."""
        seen = []
        method = self.make()
        original = type(method).look

        def look(self, ahead):
            network = module.network
            before = [*(p.detach().clone() for p in network.parameters())]
            buffers = [b.clone() for b in network.buffers()]
            state = torch.get_rng_state()
            found = original(self, ahead)
            assert all(torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True))
            assert all(torch.equal(a, b) for a, b in zip(network.buffers(), buffers, strict=True))
            assert torch.equal(torch.get_rng_state(), state)
            seen.append(found)
            return found

        monkeypatch.setattr(type(method), "look", look)
        module = toy_module(dropout=0.3, norm=True)
        fit(method, module=module, max_epochs=1)
        assert seen
        assert all(found is not None for found in seen)

    def test_resumed_run_goes_on_equally(self, tmp_path):
        unbroken = fit(self.make(), max_epochs=2)
        module = toy_module()
        trainer = toy_trainer(self.make(), max_epochs=1)
        trainer.fit(module, toy_loader(), toy_loader(count=16, seed=1))
        trainer.save_checkpoint(tmp_path / "one.ckpt")
        resumed = fit(self.make(), max_epochs=2, ckpt_path=tmp_path / "one.ckpt")
        assert torch.equal(resumed, unbroken)

    def test_the_logits_learn(self):
        method = self.make()
        fit(method)
        assert float(method.scalars.values.abs().max()) > 1e-3
        assert bool(torch.isfinite(method.scalars.values).all())

    def test_batches_too_small_to_split_are_passed_over(self):
        method, module = self.make(), toy_module()
        trainer = toy_trainer(method, max_epochs=1)
        loader = toy_loader(batch_size=2, count=6, partial=False)
        trainer.fit(module, loader, loader)
        assert float(method.scalars.values.abs().max()) == 0
        assert bool(torch.isfinite(parameters_of(module)).all())

    @pytest.mark.parametrize("options", [{"lr": 0.0}, {"inner_lr": -1.0}])
    def test_numbers_are_checked(self, options):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            self.make(**options)

    def test_unknown_scale(self):
        with pytest.raises(UnknownNameError, match="scale"):
            self.make(scale="mean")
