"""What every writer of a format is given, and the axes of their files."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ss4d.stages.export.turntable import Turntable
from ss4d.stages.ops.geometry import rotate_gaussians
from ss4d.stages.types import Clip, GaussianClip, InputCamera, MeshClip, Progress

HALF = math.sqrt(0.5)
# Quarter turns about x of world space, where z is up and the front is -y.
PLY_FROM_WORLD = torch.tensor([HALF, HALF, 0.0, 0.0], dtype=torch.float64)  # up is -y, the front -z
GL_FROM_WORLD = torch.tensor([HALF, -HALF, 0.0, 0.0], dtype=torch.float64)  # up is y, the front z


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An asset as it is exported.

    Attributes:
        gaussians: in world space, upright; a frame may be empty.
        meshes: of as many frames, likewise; None where no format is made of them.
        fps: frames per second, above 0.
        camera: the input's, if it is known.
        turntable: the turn around the asset.
        name: a word or two for a title.
        clip: the input, as many frames as the asset; None where it is not shown.
    """

    gaussians: GaussianClip
    fps: float
    camera: InputCamera | None
    turntable: Turntable
    meshes: MeshClip | None = None
    name: str = "asset"
    clip: Clip | None = None

    @property
    def num_frames(self) -> int:
        return self.gaussians.num_frames

    def frames(self, rotation: Tensor) -> Iterator[GaussianClip]:
        """Each frame turned about the origin by the quaternion `rotation` (4,), made when asked for."""
        return (self.frame(t, rotation) for t in range(self.num_frames))

    def frame(self, t: int, rotation: Tensor) -> GaussianClip:
        """Frame `t` turned about the origin by the quaternion `rotation` (4,)."""
        return rotate_gaussians(self.gaussians.frame(t), rotation)


def write_frames(
    scene: Scene,
    folder: Path,
    names: str,
    encode: Callable[[GaussianClip], bytes],
    rotation: Tensor,
    progress: Progress,
) -> tuple[str, ...]:
    """Writes a file for each frame and gives their names, relative to `folder`.

    Args:
        scene: what to write.
        folder: where; it exists.
        names: such as "spz/frame{:04d}.spz"; frames are counted from 1.
        encode: a clip of one frame as the file's bytes.
        rotation: from world space to the file's, a quaternion.
        progress: told after each frame.
    """
    written = []
    for t, frame in enumerate(scene.frames(rotation)):
        name = names.format(t + 1)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(encode(frame))
        written.append(name)
        progress(t + 1, scene.num_frames)
    return tuple(written)
