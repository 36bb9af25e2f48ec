"""How a model is trained: its networks, and for each step how long, how fast, and on what clips."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ss4d.stages.roles import (
    GAUSSIAN_DECODER,
    IMAGE_ENCODER,
    LATENT_ENCODER,
    LATENT_FLOW,
    STRUCTURE_DECODER,
    STRUCTURE_ENCODER,
    STRUCTURE_FLOW,
)
from ss4d.stages.training import small
from ss4d.stages.training.settings import TrainSettings
from ss4d.stages.training.tiny import ENCODERS, PUBLISHED, Networks, changed

# Samplers, and whatever else is chosen, are judged by clips of the seeds from here on (`ss4d eval --seed 1000000`):
# results that are told of come from others.
TUNING_SEED = 1_000_000


@dataclass(frozen=True, kw_only=True)
class PoolPlan:
    """Clips that are made once, kept, and drawn from.

    Attributes:
        size: clips.
        num_frames: of each.
        span: frames over which its object moves, see `ClipSpec`.
        num_views: cameras besides the input's.
        view_size: side of their pictures in pixels.
        first: number of the first clip: equal numbers are equal objects in all pools.
    """

    size: int
    num_frames: int
    num_views: int = 1
    view_size: int = 8
    first: int = 0
    span: int | None = None

    def decides(self) -> dict[str, Any]:
        """What a training is known by; what came later counts where it is used, so that earlier trainings go on."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """One step of training.

    Attributes:
        pool: where its clips come from; records are used in its place where there are some.
        settings: of the loop.
        vary: whether clips of the pool are shown mirrored and with other colors, too.
    """

    pool: PoolPlan
    settings: TrainSettings
    vary: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How one model is trained.

    Attributes:
        name: as the command knows it.
        networks: by role, encoders included.
        plans: by step that trains.
        measured: number of clips of the flow of structures that latents are measured on.
        asset_clips: how many clips of assets are made, where there are assets.
        asset_share: of what is shown that they have.
    """

    name: str
    networks: Networks
    plans: Mapping[str, StepPlan]
    measured: int
    asset_clips: int
    asset_share: float = 0.3


# For the image encoder: neighbors look alike, so a few frames of many clips teach more. They are of longer clips: an
# object that moves for two frames fills the crop in both, and an encoder of such is worse in use than before.
IMAGES = PoolPlan(size=44000, num_frames=2, span=16, first=100000)
MOTION = PoolPlan(size=3000, num_frames=16, first=30000)
SHAPES = PoolPlan(size=12000, num_frames=8)
# Not seen by the flows: of what they saw, their samples are better than in use.
LOOKS = PoolPlan(size=2500, num_frames=8, num_views=4, view_size=96, first=20000)
TINY = TrainingRecipe(
    name="tiny",
    networks={**PUBLISHED, **ENCODERS},
    plans={
        "images": StepPlan(
            pool=IMAGES,
            settings=TrainSettings(
                steps=6000, batch=32, learning_rate=2e-3, matrix_rate=3e-3, warmup=50, ema=0.995, bfloat16=True
            ),
            vary=True,
        ),
        "occupancy": StepPlan(
            pool=SHAPES,
            settings=TrainSettings(steps=1200, batch=6, learning_rate=2e-3, warmup=50, ema=0.99, bfloat16=True),
            vary=True,
        ),
        "appearance": StepPlan(
            pool=LOOKS,
            settings=TrainSettings(steps=700, batch=3, learning_rate=1e-3, matrix_rate=2.5e-3, warmup=40, ema=0.99),
            vary=True,
        ),
        "structure": StepPlan(
            pool=SHAPES,
            settings=TrainSettings(
                steps=1200, batch=48, learning_rate=1e-3, matrix_rate=2.5e-3, warmup=50, ema=0.995, bfloat16=True
            ),
            vary=True,
        ),
        "latents": StepPlan(
            pool=MOTION,
            settings=TrainSettings(
                steps=1200, batch=8, learning_rate=1e-3, matrix_rate=2.5e-3, warmup=50, ema=0.995, bfloat16=True
            ),
            vary=True,
        ),
        "voxels": StepPlan(
            pool=LOOKS,
            settings=TrainSettings(steps=600, batch=6, learning_rate=3e-4, warmup=20, ema=0.99, bfloat16=True),
            vary=True,
        ),
        "gaussians": StepPlan(
            pool=LOOKS,
            settings=TrainSettings(steps=500, batch=3, learning_rate=3e-4, warmup=20, ema=0.99),
            vary=True,
        ),
    },
    measured=256,
    asset_clips=2400,
)

# For 25 minutes of one H100 and 16 cores beside it, which first make the clips. It was tried at smoke size alone: no
# step count below has met a card, so that `--minutes 25` should bound the first run.
SMALL = TrainingRecipe(
    name="small",
    networks=small.NETWORKS,
    plans={
        "images": StepPlan(
            pool=replace(IMAGES, size=24000),
            settings=TrainSettings(steps=3000, batch=16, learning_rate=1e-3, matrix_rate=2e-3, warmup=100, ema=0.995),
            vary=True,
        ),
        "occupancy": StepPlan(
            pool=replace(SHAPES, size=5000),
            settings=TrainSettings(steps=1500, batch=4, learning_rate=1e-3, warmup=50, ema=0.99),
            vary=True,
        ),
        "appearance": StepPlan(
            pool=replace(LOOKS, size=1200, view_size=160),
            settings=TrainSettings(steps=1500, batch=2, learning_rate=6e-4, matrix_rate=1.5e-3, warmup=50, ema=0.99),
            vary=True,
        ),
        "structure": StepPlan(
            pool=replace(SHAPES, size=5000),
            settings=TrainSettings(steps=2500, batch=16, learning_rate=6e-4, matrix_rate=1.5e-3, warmup=100, ema=0.995),
            vary=True,
        ),
        "latents": StepPlan(
            pool=replace(MOTION, size=1200),
            settings=TrainSettings(steps=2000, batch=4, learning_rate=6e-4, matrix_rate=1.5e-3, warmup=100, ema=0.995),
            vary=True,
        ),
        "voxels": StepPlan(
            pool=replace(LOOKS, size=1200, view_size=160),
            settings=TrainSettings(steps=400, batch=2, learning_rate=2e-4, warmup=20, ema=0.99),
            vary=True,
        ),
        "gaussians": StepPlan(
            pool=replace(LOOKS, size=1200, view_size=160),
            settings=TrainSettings(steps=400, batch=2, learning_rate=2e-4, warmup=20, ema=0.99),
            vary=True,
        ),
    },
    measured=128,
    asset_clips=1200,
)

# Networks on a grid of 8 cells, which learn nothing worth seeing: to try a machine in seconds.
MICRO: dict[str, dict[str, Any]] = {
    IMAGE_ENCODER: {"image_size": 32, "resolution": 8, "cell_channels": 3, "channels": (8, 16), "patch_size": 4},
    STRUCTURE_FLOW: {
        "in_channels": 8 + 2**3 * 3,
        "model_channels": 32,
        "cond_channels": 24,
        "num_blocks": 1,
        "num_heads": 2,
        "resolution": 4,
    },
    STRUCTURE_DECODER: {"channels": (16, 8)},
    STRUCTURE_ENCODER: {"channels": (8, 16)},
    LATENT_FLOW: {
        "resolution": 8,
        "in_channels": 8 + 3,
        "model_channels": 24,
        "cond_channels": 24,
        "num_blocks": 1,
        "num_heads": 2,
        "patch_size": 2,
        "io_block_channels": (16,),
        "io_block_channels_t": (24,),
    },
    GAUSSIAN_DECODER: {"resolution": 8, "model_channels": 24, "num_blocks": 2, "num_heads": 2},
    LATENT_ENCODER: {"resolution": 8, "model_channels": 24, "num_blocks": 1, "num_heads": 2},
}
_FEW = PoolPlan(size=4, num_frames=4, num_views=2, view_size=16)
_BRIEFLY = TrainSettings(
    steps=4,
    batch=2,
    learning_rate=1e-3,
    matrix_rate=1e-3,
    warmup=2,
    save_every=2,
    picture_every=4,
    log_every=2,
    ema=0.5,
)
SMOKE = TrainingRecipe(
    name="smoke",
    networks=changed(TINY.networks, MICRO),
    plans={step: StepPlan(pool=_FEW, settings=_BRIEFLY) for step in TINY.plans},
    measured=4,
    asset_clips=6,
)

RECIPES: Mapping[str, TrainingRecipe] = {recipe.name: recipe for recipe in (TINY, SMALL, SMOKE)}
