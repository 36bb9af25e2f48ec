"""The appearance fit: Gaussians toward the frames of the clip, frame by frame left alone where that makes it no better.

Axes: t frame, n Gaussian, v view; images as in `ss4d.stages.fitting.pictures`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ss4d.stages.decoding import decode_gaussians
from ss4d.stages.decoding_config import DecodingConfig
from ss4d.stages.errors import InputError
from ss4d.stages.evaluation.metrics import iou, psnr
from ss4d.stages.fitting.closing import closed
from ss4d.stages.fitting.config import AppearanceFitConfig, LatentFitConfig, PictureFitConfig
from ss4d.stages.fitting.descent import Aim, Terms, descended, halved
from ss4d.stages.fitting.dots import strengthened, without_dots
from ss4d.stages.fitting.gaussians import GaussianStart
from ss4d.stages.fitting.guard import doubted, said
from ss4d.stages.fitting.hidden import brightened, hidden_from, smoothed
from ss4d.stages.fitting.hull import within_masks
from ss4d.stages.fitting.latents import LatentStart
from ss4d.stages.fitting.pictures import KEPT_ASIDE, around, drawn, resized, targets, unpacked
from ss4d.stages.input_camera import in_grid, yaw_in_grid
from ss4d.stages.nn.gaussian_decoder import SLatGaussianDecoder
from ss4d.stages.types import (
    Camera,
    Clip,
    FittedGaussians,
    GaussianClip,
    InputCamera,
    Progress,
    StructuredLatents,
    silent,
)

LOG = logging.getLogger("ss4d")
SSIM = 0.2  # weight of structural similarity
SLACK = 0.15  # by which outlines from other sides may be less alike than the limit if those of a frame beside are not
FINER = 2  # times as many pixels as the loss compares in the end: what a frame's gain is measured with


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a fitted frame must reach.

    Attributes:
        overlap: of outline and mask after the fit.
        likeness: of outlines before and after, from views that the loss does not see.
    """

    overlap: float
    likeness: float


# From a camera that was found, and may be wrong, a good shape is asked for: a wrong one gives none. Where the direction
# is known, a poor one is the model's own, and is worth painting as long as its other sides stay.
FOUND = Limits(overlap=0.72, likeness=0.82)
KNOWN = Limits(overlap=0.55, likeness=0.7)


@dataclass(frozen=True, eq=False, kw_only=True)
class Scene:
    """The input, and what saw it.

    Attributes:
        clip: the input.
        camera: that saw it, in the frame of the Gaussians.
        yaw: of that camera, degrees from the front.
        device: to compute on.
        doubts: other cameras that may have seen it instead.
        limits: what a fitted frame must reach.
    """

    clip: Clip
    camera: Camera
    yaw: float
    device: torch.device
    doubts: Sequence[Camera] = ()
    limits: Limits = FOUND

    @classmethod
    def of(cls, clip: Clip, camera: InputCamera, size: int, device: torch.device | str) -> "Scene":
        """Of a run, in the model's grid."""
        doubts = doubted(camera, size)
        return cls(
            clip=clip,
            camera=in_grid(camera, size),
            yaw=yaw_in_grid(camera),
            device=torch.device(device),
            doubts=doubts,
            limits=FOUND if doubts else KNOWN,
        )

    def pixel(self, size: int) -> float:
        """What a pixel of a picture of `size` pixels spans at the object, world units."""
        distance = abs(self.camera.world_to_camera[2][3])
        return distance * self.camera.width / (self.camera.focal * size)

    def pictures(self, size: int) -> Tensor:
        """What the camera should see (t, size, size, 4)."""
        return targets(self.clip, size, self.device)


def fit_appearance(
    config: AppearanceFitConfig,
    gaussians: GaussianClip,
    clip: Clip,
    camera: InputCamera,
    device: torch.device | str,
    *,
    progress: Progress = silent,
) -> FittedGaussians:
    """The Gaussians, fitted to the frames as `camera` saw them; see `fit_seen`."""
    return fit_seen(config, gaussians, Scene.of(clip, camera, config.size, device), progress=progress)


def fit_latents(
    config: LatentFitConfig,
    decoder: SLatGaussianDecoder,
    latents: StructuredLatents,
    gaussians: GaussianClip,
    clip: Clip,
    camera: InputCamera,
    device: torch.device | str,
    *,
    progress: Progress = silent,
) -> FittedGaussians:
    """The Gaussians, fitted to the frames as `camera` saw them by way of their latents; see `fit_latents_seen`."""
    scene = Scene.of(clip, camera, config.size, device)
    return fit_latents_seen(config, decoder, latents, gaussians, scene, progress=progress)


def fit_seen(
    config: AppearanceFitConfig,
    gaussians: GaussianClip,
    scene: Scene,
    *,
    progress: Progress = silent,
) -> FittedGaussians:
    """The Gaussians, fitted to the frames; those of a frame that the fit does not make better are as they were.

    A frame is kept only if, measured by what the loss does not see, it gained: in finer pictures than were fitted it
    looks more like the input, its outline is that of the mask, and its outline from other sides is still much what it
    was; how much of both is asked for depends on whether the direction of the camera is known, and a little less of
    the last is enough beside a frame that is kept. Where the camera may as well have been, it must not look less like
    the input than before.

    Args:
        config: how.
        gaussians: of the clip; a frame may have none.
        scene: the input and its camera.
        progress: told after every step.
    """
    moved, losses = _painted(config, gaussians, scene, progress)
    return _kept(config, gaussians, moved, scene, losses)


def fit_latents_seen(
    config: LatentFitConfig,
    decoder: SLatGaussianDecoder,
    latents: StructuredLatents,
    gaussians: GaussianClip,
    scene: Scene,
    *,
    progress: Progress = silent,
) -> FittedGaussians:
    """As `fit_seen`, after steps on the latents that the frozen decoder made the Gaussians from.

    Args:
        config: how.
        decoder: of the latents, on the scene's device.
        latents: of the clip.
        gaussians: what the decoder makes of them.
        scene: the input and its camera.
        progress: told after every step.

    Raises:
        InputError: if the Gaussians do not come from the latents.
    """
    if len(gaussians.means) != len(latents.coords) * decoder.representation.num_gaussians:
        raise InputError(
            f"appearance_fit.method=latents needs decoding.method=gaussians: {len(gaussians.means)} Gaussians do not "
            f"come from {len(latents.coords)} latents"
        )
    start = LatentStart.of(latents, decoder)
    steps = config.latent_steps
    terms = Terms(
        ssim=SSIM,
        temporal=config.latent_temporal,
        spatial=config.latent_spatial,
        others=config.others,
        stay=config.latent_stay,
    )
    by, losses = descended(
        start,
        Aim.of(start, scene.pictures(config.size), scene.camera, scene.yaw),
        steps=steps,
        rate=config.latent_rate,
        terms=terms,
        progress=lambda done, _: progress(done, steps + config.steps),
    )
    middle = decode_gaussians(DecodingConfig(), decoder, start.all_moved(by))
    moved, more = _painted(config, middle, scene, lambda done, _: progress(steps + done, steps + config.steps))
    return _kept(config, gaussians, moved, scene, [*losses, *more])


def _painted(
    config: PictureFitConfig, gaussians: GaussianClip, scene: Scene, progress: Progress
) -> tuple[GaussianClip, list[float]]:
    """The Gaussians, without dots, nets and faint or missing parts, after all steps on them, and the loss of each."""
    wanted = scene.pictures(halved(config.size))
    if len(gaussians.means):
        hidden = hidden_from(gaussians, scene.camera, config.size, scene.device)
        gaussians = smoothed(brightened(gaussians, hidden, wanted, scene.camera), hidden)
    pictures = scene.pictures(config.size)
    gaussians = within_masks(strengthened(without_dots(gaussians)), pictures[..., 3], scene.camera)
    gaussians = closed(gaussians, wanted, scene.camera, scene.yaw)
    start = GaussianStart.of(gaussians, config.reach, scene.pixel(config.size), scene.device)
    aim = Aim.of(start, pictures, scene.camera, scene.yaw)
    terms = Terms(ssim=SSIM, temporal=config.temporal, spatial=config.spatial, others=config.others, grain=config.grain)
    by, losses = descended(start, aim, steps=config.steps, rate=config.rate, terms=terms, progress=progress)
    moved = without_dots(start.all_moved(gaussians, by))  # a fringe that faded leaves new ones
    return within_masks(moved, pictures[..., 3], scene.camera), losses


def _kept(
    config: PictureFitConfig, before: GaussianClip, after: GaussianClip, scene: Scene, losses: list[float]
) -> FittedGaussians:
    """The fitted Gaussians of the frames that came out better, and those of the others as they were."""
    kept = better(before, after, scene, config)
    LOG.info("appearance_fit: %s", said(kept))
    return FittedGaussians(
        **_of_frames(before, after, kept),
        offsets=before.offsets,
        loss=torch.tensor(losses, dtype=torch.float32),
        fitted=kept.to(torch.uint8),
    )


def better(before: GaussianClip, after: GaussianClip, scene: Scene, config: PictureFitConfig) -> Tensor:
    """Which frames (t) the fit made better, on the CPU; none if it made no more than half of them better.

    Frames that are fitted and frames that are left look different, which flickers where they alternate. So one that
    is sure but for outlines from other sides, less alike than the limit by no more than `SLACK`, is kept where one
    beside it is.
    """
    half = halved(config.size)
    coarse, fine = scene.pictures(half), scene.pictures(FINER * config.size)
    sure, nearly = [], []
    for t in range(len(fine)):
        old, new = (Shown.of(clip, t, scene, half, len(fine[t])) for clip in (before, after))
        target, mask = fine[t : t + 1], fine[t : t + 1, ..., 3] > 0.5
        gained = (
            bool((_likeness(new.front, target) > _likeness(old.front, target)).all())
            and bool((_likeness(new.doubts, coarse[t]) >= _likeness(old.doubts, coarse[t])).all())
            and float(iou(old.front[..., 3] > 0.5, mask)) >= config.overlap
            and float(iou(new.front[..., 3] > 0.5, mask)) >= scene.limits.overlap
        )
        likeness = float(iou(old.sides[..., 3] > 0.5, new.sides[..., 3] > 0.5).mean())
        sure.append(gained and likeness >= scene.limits.likeness)
        nearly.append(gained and likeness >= scene.limits.likeness - SLACK)
    kept = _with_neighbors(torch.tensor(sure), torch.tensor(nearly))
    return kept if kept.float().mean() > 0.5 else torch.zeros_like(kept)


def _with_neighbors(sure: Tensor, nearly: Tensor) -> Tensor:
    """The frames (t) that are sure, and those that nearly are and hang on to them."""
    kept = sure
    while True:
        beside = kept.clone()
        beside[1:] |= kept[:-1]
        beside[:-1] |= kept[1:]
        more = kept | (nearly & beside)
        if torch.equal(more, kept):
            return kept
        kept = more


def _likeness(pictures: Tensor, wanted: Tensor) -> Tensor:
    """PSNR (k) of pictures (k, s, s, 4) over black, dB."""
    return psnr(pictures[..., :3], wanted[..., :3].expand_as(pictures[..., :3]))


@dataclass(frozen=True, eq=False)
class Shown:
    """A frame as the input camera sees it, from the sides that are kept aside, and from where it may have been.

    Attributes:
        front: (1, f, f, 4), finer than the loss compares.
        sides: (v, s, s, 4).
        doubts: (k, s, s, 4).
    """

    front: Tensor
    sides: Tensor
    doubts: Tensor

    @classmethod
    def of(cls, clip: GaussianClip, t: int, scene: Scene, size: int, fine: int) -> "Shown":
        gaussians, offsets = unpacked(clip.frame(t), scene.device)
        views = [*around(scene.yaw, KEPT_ASIDE, size), *(resized(view, size) for view in scene.doubts)]
        with torch.no_grad():
            front = drawn(gaussians, offsets, torch.zeros(1, dtype=torch.int64), [resized(scene.camera, fine)])
            pictures = drawn(gaussians, offsets, torch.zeros(len(views), dtype=torch.int64), views)
        return cls(front, pictures[: len(KEPT_ASIDE)], pictures[len(KEPT_ASIDE) :])


def _of_frames(before: GaussianClip, after: GaussianClip, chosen: Tensor) -> dict[str, Tensor]:
    """The arrays of `after` for the chosen frames (t), and those of `before` for the others."""
    counts = before.offsets[1:] - before.offsets[:-1]
    rows = chosen.repeat_interleave(counts)
    return {
        name: torch.where(rows if name == "opacities" else rows[:, None], getattr(after, name), getattr(before, name))
        for name in ("means", "scales", "quats", "colors", "opacities")
    }
