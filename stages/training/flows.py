"""The two flows' objectives: rectified flow on occupancy latents and on structured latents of whole clips.

x_t = (1 - t) x_0 + (sigma_min + (1 - sigma_min) t) eps, and the network learns v = (1 - sigma_min) eps - x_0, with one
t for each clip. Axes: b clip, t frame, s pixel, l image token, c channel; sparse rows are (b, t, x, y, z).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from ss4d.stages.data.clip import TrainingClip
from ss4d.stages.evaluation.metrics import iou
from ss4d.stages.nn.gaussian_decoder import SLatGaussianDecoder
from ss4d.stages.nn.guide import GuidedLatentFlow, GuidedStructureFlow
from ss4d.stages.nn.image_encoders import ImageEncoder, fit_images
from ss4d.stages.nn.latent_encoder import SLatEncoder
from ss4d.stages.nn.latent_flow import SLatFlow4DModel
from ss4d.stages.nn.occupancy import SparseStructureDecoder, SparseStructureEncoder
from ss4d.stages.nn.structure_flow import SparseStructureFlow4DModel
from ss4d.stages.ops.coords import Sites, SparseTensor
from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera
from ss4d.stages.ops.kernel_choice import draw_on
from ss4d.stages.ops.splat import Views, splat
from ss4d.stages.roles import LATENT_FLOW, STRUCTURE_FLOW
from ss4d.stages.sampler_params import LatentNormalization, SamplerParams
from ss4d.stages.sampling import Velocity, network_time, one_by_one, sample, time_grid
from ss4d.stages.training import losses
from ss4d.stages.training.batches import batch_coords, batch_feats, occupancy_grids, window
from ss4d.stages.training.clips import cut
from ss4d.stages.training.objective import Losses
from ss4d.stages.training.occlusion import occlude
from ss4d.stages.training.show import beside, picture, voxel_picture
from ss4d.stages.training.tiny import SIGMA_MIN, SLAT_SAMPLER, STRUCTURE_SAMPLER

TIME_MEAN, TIME_STD = 1.0, 1.0  # of the logit of t
DROPPED = 0.1  # share of clips whose condition is left out, for classifier-free guidance
LEAST_FRAMES = 4  # of structured latents, which are merged over time
FIRST_STEPS = 0.25  # share of clips of the structure that begin where its sampler does
VOXELS_WEIGHT = 1.0  # of the voxels' cross-entropy and Dice, beside the velocity of the structure
PICTURE_SIZE = 128
PICTURE_YAWS = (FRONT_YAW, FRONT_YAW + 90)


Flow = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # (x, times, tokens) -> velocity


class StructureFlow:
    """Trains the flow of occupancy latents; the image encoder stays as it is.

    Besides the velocity, the loss has the voxels that the data which it points at decode to. A quarter of the clips
    begin where the sampler does, at noise of its temperature.

    Args:
        flow: to train.
        image_encoder: trained.
        encoder: gives the latents; its scale must be folded in.
        decoder: of the latents; stays as it is.
        sampler: as the model is used.
    """

    name = "structure"

    def __init__(
        self,
        flow: SparseStructureFlow4DModel,
        image_encoder: ImageEncoder,
        encoder: SparseStructureEncoder,
        decoder: SparseStructureDecoder,
        sampler: SamplerParams = STRUCTURE_SAMPLER,
    ) -> None:
        self.flow, self._guided = flow, GuidedStructureFlow(flow)
        self._image_encoder = image_encoder.eval().requires_grad_(False)
        self._encoder, self._decoder = encoder.eval().requires_grad_(False), decoder.eval().requires_grad_(False)
        self._sampler = sampler

    def trained(self) -> dict[str, nn.Module]:
        return {STRUCTURE_FLOW: self.flow}

    def loss(self, clips: Sequence[TrainingClip], generator: Generator) -> Losses:
        device = self.flow.pos_emb.device
        span = self.flow.args.window_size  # and frames of two neighboring windows, which meet in every other block
        clips = window(clips, generator, 1, span and 2 * span, 1)
        with torch.no_grad():
            cond = dropped(image_tokens(self._image_encoder, clips, device, generator), generator)
        data = self.latents(clips, device)
        noise = torch.randn(data.shape, generator=generator).to(device)
        t = random_times(len(clips), generator).to(device)
        first = (torch.rand(len(clips), generator=generator) < FIRST_STEPS).to(device)
        loudness = torch.where(first, self._sampler.temperature, 1.0).view(-1, 1, 1, 1, 1, 1)
        at = torch.where(first, 1.0, t).view(-1, 1, 1, 1, 1, 1)
        x, v = bridge(data, loudness * noise, at)
        predicted = self._guided(x, frame_times(at.flatten(), data.shape[1]), cond).float()
        logits = self._decoder((x - at * predicted).flatten(0, 1)).float()
        truth = occupancy_grids(clips, device).flatten(0, 1)[:, None]
        parts = {
            "velocity": functional.mse_loss(predicted, v),
            "bce": losses.bce(logits, truth),
            "dice": losses.dice(logits, truth),
        }
        total = parts["velocity"] + VOXELS_WEIGHT * (parts["bce"] + parts["dice"])
        parts["iou"] = iou(logits > 0, truth > 0).mean()
        return Losses(total, {name: part.detach() for name, part in parts.items()})

    @torch.no_grad()
    def latents(self, clips: Sequence[TrainingClip], device: torch.device) -> Tensor:
        """Occupancy latents (b, t, c, r, r, r), in float32 whatever the precision around."""
        grids = occupancy_grids(clips, device)
        with torch.autocast(device.type, enabled=False):
            mean: Tensor = self._encoder(grids.flatten(0, 1)[:, None])[0]
        return mean.view(*grids.shape[:2], *mean.shape[1:])

    @torch.no_grad()
    def pictures(self, clips: Sequence[TrainingClip]) -> dict[str, Tensor]:
        """Input, then true and sampled voxels of the middle frame from the front, then from the side."""
        device = self.flow.pos_emb.device
        rows = []
        for number, clip in enumerate(clips):
            middle = clip.num_frames // 2
            cond = image_tokens(self._image_encoder, [clip], device)
            truth = occupancy_grids([clip], device)[0, middle] > 0.5
            noise = torch.randn(self.latents([clip], device).shape, generator=Generator().manual_seed(number))
            latent = sampled(self._guided, noise.to(device), cond, STRUCTURE_SAMPLER)
            guess = self._decoder(latent[0, middle][None])[0, 0] > 0
            sides = [voxel_picture(grid, side, PICTURE_SIZE) for side in ("front", "side") for grid in (truth, guess)]
            rows.append(beside([picture(clip.frames[middle], PICTURE_SIZE), *sides]))
        return {"voxels": torch.cat(rows)}


class LatentsFlow:
    """Trains the flow of structured latents on the true voxels; the image encoder stays as it is.

    Args:
        flow: to train.
        image_encoder: as trained with the other flow.
        encoder: gives the latents.
        normalization: of the latents.
        decoder: for pictures.
    """

    name = "latents"

    def __init__(
        self,
        flow: SLatFlow4DModel,
        image_encoder: ImageEncoder,
        encoder: SLatEncoder,
        normalization: LatentNormalization,
        decoder: SLatGaussianDecoder,
    ) -> None:
        self.flow = flow
        self._image_encoder = image_encoder.eval().requires_grad_(False)
        self._encoder, self._decoder = encoder.eval().requires_grad_(False), decoder.eval().requires_grad_(False)
        self._mean, self._std = torch.tensor(normalization.mean), torch.tensor(normalization.std)

    def trained(self) -> dict[str, nn.Module]:
        return {LATENT_FLOW: self.flow}

    def loss(self, clips: Sequence[TrainingClip], generator: Generator) -> Losses:
        device = self.flow.out_layer.weight.device
        clips = window(clips, generator, LEAST_FRAMES, None, self.flow.frame_multiple)
        with torch.no_grad():
            cond = dropped(image_tokens(self._image_encoder, clips, device, generator), generator)
        sites, data = self.latents(clips, device)
        noise = torch.randn(data.shape, generator=generator).to(device)
        t = random_times(len(clips), generator).to(device)
        x, v = bridge(data, noise, t[sites.coords[:, 0].long(), None])
        predicted = GuidedLatentFlow(self.flow, sites)(x, frame_times(t, cond.shape[1]), cond)
        return Losses(functional.mse_loss(predicted.float(), v), {})

    @torch.no_grad()
    def latents(self, clips: Sequence[TrainingClip], device: torch.device) -> tuple[Sites, Tensor]:
        """Voxels, and their normalized latents (n, c) in float32 whatever the precision around."""
        sites = Sites(batch_coords(clips).to(device))
        with torch.autocast(device.type, enabled=False):
            mean, _ = self._encoder(SparseTensor(sites, batch_feats(clips).to(device)))
        return sites, (mean - self._mean.to(device)) / self._std.to(device)

    @torch.no_grad()
    def pictures(self, clips: Sequence[TrainingClip]) -> dict[str, Tensor]:
        """Input, then the object decoded from true and from sampled latents, from the front, then from the side."""
        device = self.flow.out_layer.weight.device
        rows = []
        for number, whole in enumerate(clips):
            clip = cut(whole, 0, whole.num_frames // self.flow.frame_multiple * self.flow.frame_multiple)
            middle = clip.num_frames // 2
            cond = image_tokens(self._image_encoder, [clip], device)
            sites, data = self.latents([clip], device)
            noise = torch.randn(data.shape, generator=Generator().manual_seed(number)).to(device)
            guess = sampled(GuidedLatentFlow(self.flow, sites), noise, cond, SLAT_SAMPLER)
            truth, made = (self._draw(sites, latents, clip.num_frames, middle) for latents in (data, guess))
            pairs = [side for pair in zip(truth, made, strict=True) for side in pair]
            rows.append(beside([picture(clip.frames[middle], PICTURE_SIZE), *pairs]))
        return {"objects": torch.cat(rows)}

    def _draw(self, sites: Sites, latents: Tensor, num_frames: int, frame: int) -> list[Tensor]:
        """Pictures of one frame from the front and from the side, over white."""
        device, count = latents.device, self._decoder.representation.num_gaussians
        x = SparseTensor(sites, latents * self._std.to(device) + self._mean.to(device))
        gaussians = self._decoder.activate(self._decoder.split(self._decoder(x), sites.coords))
        sizes = torch.bincount(sites.coords[:, 1], minlength=num_frames) * count
        cameras = [orbit_camera(yaw, 15, size=PICTURE_SIZE) for yaw in PICTURE_YAWS]
        views = Views(
            frames=torch.full((len(cameras),), frame, device=device),
            world_to_camera=torch.tensor([camera.world_to_camera for camera in cameras], device=device),
            focals=torch.tensor([camera.focal for camera in cameras], device=device),
            backgrounds=torch.ones(len(cameras), 3, device=device),
            height=PICTURE_SIZE,
            width=PICTURE_SIZE,
        )
        rgb, _ = splat(gaussians, functional.pad(sizes.cumsum(0), (1, 0)), views, draw_on(sizes.device))
        return list((rgb.clamp(0, 1) * 255).round().byte().cpu())


def bridge(data: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The noisy x at flow time `t`, which broadcasts, and the velocity there."""
    return (1 - t) * data + (SIGMA_MIN + (1 - SIGMA_MIN) * t) * noise, (1 - SIGMA_MIN) * noise - data


def random_times(count: int, generator: Generator) -> Tensor:
    """Flow times (count) in 0 to 1, their logit normal."""
    return torch.sigmoid(TIME_MEAN + TIME_STD * torch.randn(count, generator=generator))


def frame_times(t: Tensor, num_frames: int) -> Tensor:
    """Flow times (b) as the networks take them: (b, t), x 1000."""
    return (1000 * t)[:, None].expand(-1, num_frames)


def dropped(cond: Tensor, generator: Generator) -> Tensor:
    """Tokens (b, t, l, c), those of some clips all zero."""
    kept = torch.rand(len(cond), generator=generator) >= DROPPED
    return cond * kept.to(cond.device, cond.dtype)[:, None, None, None]


def image_tokens(
    encoder: ImageEncoder, clips: Sequence[TrainingClip], device: torch.device, generator: Generator | None = None
) -> Tensor:
    """Image tokens (b, t, l, c) of the clips' input views over black, partly hidden if there is a `generator`."""
    tokens: Tensor = encoder(input_images(encoder, clips, device, generator))
    return tokens.view(len(clips), -1, *tokens.shape[1:])


def input_images(
    encoder: ImageEncoder, clips: Sequence[TrainingClip], device: torch.device, generator: Generator | None
) -> Tensor:
    """Images (b t, c, s, s) of the clips as the encoder takes them, see `image_tokens`."""
    frames = torch.stack([clip.frames for clip in clips]).to(device).float() / 255
    if generator is not None:
        frames = occlude(frames, generator)
    seen = torch.cat([frames[..., :3] * frames[..., 3:], frames[..., 3:]], -1).permute(0, 1, 4, 2, 3).flatten(0, 1)
    return fit_images(seen[:, : encoder.image_channels], encoder.args.image_size)


def sampled(flow: Flow, noise: Tensor, cond: Tensor, sampler: SamplerParams, learned_steps: int = 0) -> Tensor:
    """What the `noise` of each clip flows to under `cond` (b, t, l, c), with gradients of the last `learned_steps`."""
    times = time_grid(sampler.steps, sampler.rescale_t)
    learned_from = times[-1 - min(learned_steps, sampler.steps)]

    def velocity(condition: Tensor | None) -> Velocity:
        def of(x: Tensor, t: float) -> Tensor:
            frames = network_time(t, cond.shape[1], cond.device).expand(len(cond), -1)
            with torch.set_grad_enabled(torch.is_grad_enabled() and t <= learned_from):
                return flow(x, frames, condition)

        return of

    under_cond = velocity(cond)
    return sample(under_cond, one_by_one(under_cond, velocity(None)), noise, sampler)
