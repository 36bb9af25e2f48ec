"""Pictures of a clip of Gaussians as uint8 frames (h, w, 3)."""

from collections.abc import Iterable, Iterator

from torch import Tensor

from ss4d.stages.ops.rasterize import Color, Rasterize
from ss4d.stages.types import Camera, GaussianClip

WHITE: Color = (1.0, 1.0, 1.0)


def render_frames(
    gaussians: GaussianClip, shots: Iterable[tuple[int, Camera]], *, render: Rasterize, background: Color = WHITE
) -> Iterator[Tensor]:
    """One picture for each shot, drawn when asked for.

    Args:
        gaussians: the clip.
        shots: which frame of the clip to show, and from where.
        render: the rasterizer.
        background: RGB behind the object, 0 to 1.

    Yields:
        RGB (h, w, 3) uint8.
    """
    for frame, camera in shots:
        rgb, _ = render(gaussians.frame(frame), camera, background=background)
        yield (rgb.clamp(0, 1) * 255).round().byte().cpu()
