"""The `appearance` objective: voxels of a few frames through encoder and decoder to Gaussians, held to pictures.

Axes: b clip, f frame chosen (of all clips, one after the other), n voxel, k picture, p pixel along one side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from ss4d.stages.data.clip import TrainingClip, lit
from ss4d.stages.evaluation.metrics import psnr, ssim
from ss4d.stages.nn.gaussian_decoder import PARTS, SLatGaussianDecoder
from ss4d.stages.nn.latent_encoder import SLatEncoder
from ss4d.stages.ops.coords import Sites, SparseTensor
from ss4d.stages.ops.kernel_choice import draw_on
from ss4d.stages.ops.rasterize import ScreenFilter
from ss4d.stages.ops.splat import Gaussians, Views, splat
from ss4d.stages.roles import GAUSSIAN_DECODER, LATENT_ENCODER
from ss4d.stages.training import losses
from ss4d.stages.training.batches import batch_coords, batch_feats
from ss4d.stages.training.clips import cut
from ss4d.stages.training.objective import Losses
from ss4d.stages.training.show import beside

START_SCALE = 0.3  # of a Gaussian, in cells
START_LOGVAR = -4.0
QUIET = 0.1  # factor on the weights of the decoder's last layer before training


@dataclass(frozen=True, kw_only=True)
class AppearanceSettings:
    """What a step looks at, and what each term of the loss weighs; the absolute difference of colors weighs 1.

    The weights are TRELLIS's but for two: that of `volume` is for products in cells (see `losses.volume`), and `color`
    is of this package, where steps are few.

    Attributes:
        num_frames: consecutive frames of each clip, at most; the decoder's attention windows span frames.
        num_views: pictures of each frame, from views chosen at random, the same for all frames of a clip.
        ssim: of 1 - SSIM.
        kl: of the KL divergence; tiny, as latents are normalized before the flow anyway.
        transparency: of the opacity regulariser.
        volume: of the volume regulariser.
        color: of the absolute difference between a voxel's own color and the mean color of its Gaussians, which
            pictures alone teach slowly.
        motion: of the absolute difference between the change from a picture to that of the next frame and the true
            change. For what flows make: without it, frames that are each about right may flicker.
    """

    num_frames: int = 4
    num_views: int = 2
    ssim: float = 0.2
    kl: float = 1e-6
    transparency: float = 1e-3
    volume: float = 0.04
    color: float = 0.2
    motion: float = 0.0


@dataclass(frozen=True, eq=False)
class Scene:
    """Voxels, and pictures to hold them to.

    Attributes:
        sites: voxels (b, t, x, y, z).
        sizes: (f) how many voxels each frame has.
        views: k pictures.
        targets: (k, p, p, 4) straight RGBA, 0 to 1.
        followed: (2, m) a picture, and that of the same view in the next frame.
    """

    sites: Sites
    sizes: Tensor
    views: Views
    targets: Tensor
    followed: Tensor


@dataclass(frozen=True, eq=False)
class Choice:
    """Some frames of a clip that begin at frame `start` of it, and views (f, v) of each to look at."""

    clip: TrainingClip
    start: int
    views: Tensor

    @property
    def frames(self) -> Tensor:
        """The frame that each picture shows."""
        return torch.arange(len(self.views)).repeat_interleave(self.views.shape[1])

    @property
    def seen(self) -> Tensor:
        """The view that each picture shows."""
        return self.views.flatten()

    @property
    def followed(self) -> Tensor:
        """A picture, and that of the same view in the next frame (2, m)."""
        frames, views = self.views.shape
        same = (self.views[1:] == self.views[:-1]).flatten()
        first = torch.arange((frames - 1) * views)[same]
        return torch.stack([first, first + views])


class AppearanceAutoencoder:
    """Trains the encoder of structured latents and the decoder to Gaussians.

    Args:
        encoder: to train.
        decoder: to train; `start_decoder` makes a new one ready, `start_encoder` a new encoder.
        settings: weights and amounts.
        learn_decoder: whether the decoder learns, too, or the encoder alone learns to code for it.
    """

    name = "appearance"

    def __init__(
        self,
        encoder: SLatEncoder,
        decoder: SLatGaussianDecoder,
        settings: AppearanceSettings = AppearanceSettings(),
        *,
        learn_decoder: bool = True,
    ) -> None:
        decoder.requires_grad_(learn_decoder)
        self._learn_decoder = learn_decoder
        self.encoder, self.decoder, self.settings = encoder, decoder, settings
        self.screen_filter = ScreenFilter(decoder.representation.screen_filter, compensate=True)

    def trained(self) -> dict[str, nn.Module]:
        return {LATENT_ENCODER: self.encoder, **({GAUSSIAN_DECODER: self.decoder} if self._learn_decoder else {})}

    def loss(self, clips: Sequence[TrainingClip], generator: Generator) -> Losses:
        choices = [self.choose(clip, generator) for clip in clips]
        return self.coded_loss(choices, self.scene(choices, backgrounds(choices, generator)), generator)

    def coded_loss(self, choices: Sequence[Choice], scene: Scene, generator: Generator) -> Losses:
        """The loss of true voxels that were encoded and decoded."""
        settings = self.settings
        mean, logvar = self._encode(choices, scene)
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        gaussians = self._decode(scene, losses.sample(mean, logvar, noise))
        seen = self._seen(scene, gaussians)
        own = {
            "kl": losses.gaussian_kl(mean, logvar),
            "color": losses.l1(gaussians.colors.view(len(mean), -1, 3).mean(1), self._lit(choices)),
        }
        total = seen.total + settings.kl * own["kl"] + settings.color * own["color"]
        return Losses(total, {**seen.parts, **{name: part.detach() for name, part in own.items()}})

    def decoded_loss(self, scene: Scene, latents: Tensor) -> Losses:
        """The loss of what the decoder makes of `latents` (n, c) on the scene's voxels, wherever they come from."""
        return self._seen(scene, self._decode(scene, latents))

    def _seen(self, scene: Scene, gaussians: Gaussians) -> Losses:
        """How far Gaussians look from the targets, and how they break the rules for good ones."""
        images, _ = self._draw(scene, gaussians)
        targets = over(scene.targets, scene.views.backgrounds)
        parts = {
            "l1": losses.l1(images, targets),
            "dssim": 1 - ssim(images, targets).mean(),
            "transparency": losses.transparency(gaussians.opacities),
            "volume": losses.volume(gaussians.scales, self.decoder.args.resolution),
            "motion": losses.motion(images, targets, scene.followed),
        }
        settings = self.settings
        weights = (1.0, settings.ssim, settings.transparency, settings.volume, settings.motion)
        total = torch.stack([weight * part for weight, part in zip(weights, parts.values(), strict=True)]).sum()
        parts["psnr"] = psnr(images.clamp(0, 1), targets).mean()
        return Losses(total, {name: part.detach() for name, part in parts.items()})

    @torch.no_grad()
    def pictures(self, clips: Sequence[TrainingClip]) -> dict[str, Tensor]:
        """Each clip's middle frame from two opposite views: the target beside the rendering."""
        rows = []
        for clip in clips:
            choice = self.middle(clip)
            scene = self.scene([choice], white([choice]))
            rows.append(self.compared(scene, self._encode([choice], scene)[0]))
        return {"objects": torch.cat(rows)}

    @torch.no_grad()
    def compared(self, scene: Scene, latents: Tensor) -> Tensor:
        """Picture (h, w, 3) uint8 of the middle frame of one choice, view by view the target beside the rendering."""
        images, _ = self._draw(scene, self._decode(scene, latents))
        pairs = torch.stack([over(scene.targets, scene.views.backgrounds), images], dim=1)
        middle = int(scene.views.frames[-1] + 1) // 2
        shown = pairs[scene.views.frames == middle].flatten(0, 1)
        return beside(list((shown.clamp(0, 1) * 255).round().byte().cpu()))

    def middle(self, clip: TrainingClip) -> Choice:
        """The window in the middle of a clip, seen from two opposite views."""
        count = min(self.settings.num_frames, clip.num_frames)
        start = (clip.num_frames - count) // 2
        return Choice(cut(clip, start, count), start, torch.tensor([0, len(clip.views) // 2]).expand(count, 2))

    def choose(self, clip: TrainingClip, generator: Generator) -> Choice:
        """A window of a clip, and views of it chosen at random."""
        count = min(self.settings.num_frames, clip.num_frames)
        start = int(torch.randint(clip.num_frames - count + 1, (), generator=generator))
        order = torch.randperm(len(clip.views), generator=generator)
        return Choice(cut(clip, start, count), start, order[: self.settings.num_views].expand(count, -1))

    def scene(self, choices: Sequence[Choice], colors: Tensor) -> Scene:
        """The choices' voxels and pictures over plain `colors` (k, 3), on the networks' device."""
        device = self.decoder.out_layer.weight.device
        clips = [choice.clip for choice in choices]
        # Frames keep their place in the whole clip, so that windows of attention are cut wherever they can be.
        places = torch.tensor([[0, choice.start, 0, 0, 0] for choice in choices], dtype=torch.int32)
        coords = batch_coords(clips)
        coords += places[coords[:, 0].long()]
        firsts = torch.tensor([0, *(clip.num_frames for clip in clips)]).cumsum(0)
        pictures = torch.tensor([0, *(choice.views.numel() for choice in choices)]).cumsum(0)
        sizes = torch.cat([torch.bincount(clip.coords[:, 1], minlength=clip.num_frames) for clip in clips])
        return Scene(
            sites=Sites(coords.to(device)),
            sizes=sizes.to(device),
            views=Views(
                frames=torch.cat([choice.frames + firsts[b] for b, choice in enumerate(choices)]).to(device),
                world_to_camera=torch.cat([choice.clip.view_cameras[choice.seen] for choice in choices]).to(device),
                focals=torch.cat([choice.clip.view_focals[choice.seen] for choice in choices]).to(device),
                backgrounds=colors.to(device),
                height=clips[0].views.shape[2],
                width=clips[0].views.shape[3],
            ),
            targets=torch.cat([choice.clip.views[choice.seen, choice.frames] for choice in choices]).to(device) / 255,
            followed=torch.cat([choice.followed + pictures[b] for b, choice in enumerate(choices)], dim=1).to(device),
        )

    def _feats(self, choices: Sequence[Choice]) -> Tensor:
        """Features (n, 9) of the true voxels."""
        return batch_feats([choice.clip for choice in choices]).to(self.decoder.out_layer.weight.device)

    def _lit(self, choices: Sequence[Choice]) -> Tensor:
        """Colors (n, 3) of the true voxels, as the views show them."""
        colors = [lit(choice.clip.feats, choice.clip.upright) for choice in choices]
        return torch.cat(colors).to(self.decoder.out_layer.weight.device)

    def _encode(self, choices: Sequence[Choice], scene: Scene) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (n, c) in float32."""
        mean, logvar = self.encoder(SparseTensor(scene.sites, self._feats(choices)))
        return mean.float(), logvar.float()

    def _decode(self, scene: Scene, latents: Tensor) -> Gaussians:
        raw = self.decoder(SparseTensor(scene.sites, latents)).float()
        return self.decoder.activate(self.decoder.split(raw, scene.sites.coords))

    def _draw(self, scene: Scene, gaussians: Gaussians) -> tuple[Tensor, Tensor]:
        sizes = scene.sizes * self.decoder.representation.num_gaussians
        offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        return splat(gaussians, offsets, scene.views, draw_on(offsets.device), screen_filter=self.screen_filter)


def over(rgba: Tensor, colors: Tensor) -> Tensor:
    """Straight RGBA (k, p, p, 4) over plain backgrounds (k, 3)."""
    alpha = rgba[..., 3:]
    return rgba[..., :3] * alpha + colors[:, None, None] * (1 - alpha)


def white(choices: Sequence[Choice]) -> Tensor:
    """White (k, 3) behind every picture."""
    return torch.ones(num_pictures(choices), 3)


def num_pictures(choices: Sequence[Choice]) -> int:
    """How many pictures are looked at, k."""
    return sum(choice.views.numel() for choice in choices)


def backgrounds(choices: Sequence[Choice], generator: Generator) -> Tensor:
    """Plain colors (k, 3) behind the pictures, one for each view of a choice; a third of them black and a third white.

    Behind one color alone, Gaussians of that color could float anywhere without being seen.
    """
    count = sum(choice.views.shape[1] for choice in choices)
    kind = torch.randint(3, (count, 1), generator=generator)
    colors = torch.rand(count, 3, generator=generator)
    colors = torch.where(kind == 0, 0.0, torch.where(kind == 1, 1.0, colors))
    parts = torch.split(colors, [choice.views.shape[1] for choice in choices])
    return torch.cat([part.repeat(len(choice.views), 1) for part, choice in zip(parts, choices, strict=True)])


@torch.no_grad()
def start_decoder(decoder: SLatGaussianDecoder) -> None:
    """Makes a new decoder ready to learn, in place.

    It begins with every voxel alike: small weights of its last layer make gray Gaussians, spread evenly in
    the voxel and round, a third of a cell wide and of the representation's opacity. Each then shows in some ten pixels
    of a picture of the whole object, so that each has a gradient for its place; sharper ones fall between pixels,
    and wider or more opaque ones hide each other.
    """
    representation, resolution = decoder.representation, decoder.args.resolution
    decoder.out_layer.weight.mul_(QUIET)
    decoder.out_layer.bias.zero_()
    columns = torch.split(decoder.out_layer.bias, [representation.num_gaussians * width for width in PARTS.values()])
    softplus_inverse = (
        math.log(math.expm1(scale)) for scale in (START_SCALE / resolution, representation.scaling_bias)
    )
    wanted, neutral = softplus_inverse
    columns[list(PARTS).index("_scaling")].fill_((wanted - neutral) / representation.factors["_scaling"])


@torch.no_grad()
def start_encoder(encoder: SLatEncoder) -> None:
    """Makes a new encoder ready to learn, in place.

    It begins with little noise in its latents: with as much noise as signal, a decoder would first learn not to
    listen.
    """
    mean, logvar = encoder.out_layer.bias.chunk(2)
    encoder.out_layer.weight.chunk(2)[1].mul_(QUIET)
    logvar.fill_(START_LOGVAR)
    mean.zero_()
