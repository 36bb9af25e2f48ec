"""Assets as ComfyUI's own types have them: SPLAT, MESH and IMAGE. A batch holds the clip's frames, in order.

SPLAT has the axes of PLY files of Gaussians, y down and z away from a viewer of the front; MESH has those of glTF, y up
and z toward that viewer. ComfyUI is imported where a value is made, since tests and tools load nodes without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from ss4d.stages.export.scene import Scene
    from ss4d.stages.types import MeshClip


def as_splat(scene: Scene, frame: int | None) -> Any:
    """The frames of an asset, or one of them, as a SPLAT: padded with zeros to the largest, whose counts it tells."""
    from comfy_api.latest import Types

    from ss4d.stages.export.packing import SH_C0
    from ss4d.stages.export.scene import PLY_FROM_WORLD

    frames = [each for t, each in enumerate(scene.frames(PLY_FROM_WORLD)) if frame in (None, t)]
    return Types.SPLAT(
        pad_sequence([each.means.float() for each in frames], batch_first=True),
        pad_sequence([each.scales.float() for each in frames], batch_first=True),
        pad_sequence([torch.nn.functional.normalize(each.quats.float(), dim=1) for each in frames], batch_first=True),
        pad_sequence([each.opacities.float()[:, None] for each in frames], batch_first=True),
        pad_sequence([((each.colors.float() - 0.5) / SH_C0)[:, None] for each in frames], batch_first=True),
        counts=torch.tensor([len(each.means) for each in frames]),
    )


def as_mesh(meshes: MeshClip, from_world: Tensor, frame: int | None) -> Any:
    """Textured meshes as a MESH that shows its texture without light, since that has light in it already.

    Args:
        meshes: the frames.
        from_world: (3, 3), from their space to MESH's.
        frame: the only one to take; None: all.
    """
    from comfy_api.latest import Types

    times = range(meshes.num_frames) if frame is None else [frame]
    frames = [meshes.frame(t) for t in times]
    return Types.MESH(
        pad_sequence([each.vertices.float() @ from_world.float().T for each in frames], batch_first=True),
        pad_sequence([each.faces.long() for each in frames], batch_first=True),
        uvs=pad_sequence([each.uv.float() for each in frames], batch_first=True),
        texture=torch.cat([each.texture for each in frames]).float() / 255,
        vertex_counts=torch.tensor([len(each.vertices) for each in frames]),
        face_counts=torch.tensor([len(each.faces) for each in frames]),
        unlit=True,
    )


def as_images(pictures: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pictures (h, w, 4) of straight colors and alpha as IMAGE (b, h, w, 3) on white, and as MASK (b, h, w)."""
    batch = torch.stack(pictures).float()
    alpha = batch[..., 3:]
    return batch[..., :3] * alpha + (1 - alpha), alpha[..., 0]
