"""An exponential moving average of the weights: what is kept in the end; tensors have the weights' own shapes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """The average of `weights` over the steps so far.

    Args:
        weights: by name; changed by an optimizer, in place.
        decay: share of the average that stays at each step, once many steps are done.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self._weights = dict(weights)
        self.average = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after `step`; early ones are forgotten faster, so that the start leaves no trace."""
        keep = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), [w.detach() for w in self._weights.values()], 1 - keep)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The networks work with the average inside the block, and with their weights again after it."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the weights and their average."""
        for name, weight in self._weights.items():
            held = weight.clone()
            weight.copy_(self.average[name])
            self.average[name].copy_(held)
