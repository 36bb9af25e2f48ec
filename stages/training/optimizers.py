"""Which optimizer moves which weights: Muon the matrices of blocks, AdamW all others."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ss4d.stages.training.settings import TrainSettings

BETAS = (0.9, 0.95)


def optimizers_of(
    weights: Mapping[str, Tensor], settings: TrainSettings, device: torch.device
) -> list[torch.optim.Optimizer]:
    """One optimizer, or two: `full_rate` of each group is what the schedule takes its share of."""
    matrices = [
        weight
        for name, weight in weights.items()
        if "blocks." in name and weight.ndim == 2 and name.endswith(".weight")
    ]
    if settings.matrix_rate is None or not matrices:
        return [_adamw(weights.values(), settings, device)]
    chosen = {id(weight) for weight in matrices}
    muon = torch.optim.Muon(
        [{"params": matrices, "full_rate": settings.matrix_rate}],
        lr=settings.matrix_rate,
        weight_decay=settings.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, _adamw([weight for weight in weights.values() if id(weight) not in chosen], settings, device)]


def _adamw(weights: Iterable[Tensor], settings: TrainSettings, device: torch.device) -> torch.optim.AdamW:
    weights = list(weights)
    rate = settings.learning_rate
    groups = [
        {
            "params": [weight for weight in weights if weight.ndim > 1],
            "weight_decay": settings.weight_decay,
            "full_rate": rate,
        },
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0, "full_rate": rate},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=BETAS, fused=device.type == "cuda")
