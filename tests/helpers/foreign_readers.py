"""Exported files read by programs that are not ours, as Gaussians in world space: what their users would get.

Each reader gives one clip of one frame. Axes are undone here, as whoever places the asset in a scene would.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from pxr import Usd, UsdGeom, UsdVol
from pygltflib import GLTF2
from torch import Tensor

from ss4d.stages.export.scene import GL_FROM_WORLD, PLY_FROM_WORLD
from ss4d.stages.ops.geometry import rotate_gaussians, rotate_mesh
from ss4d.stages.types import GaussianClip, MeshClip

# It compiles its loops for half a minute, which a few hundred Gaussians are not worth.
with pytest.MonkeyPatch.context() as patch:
    patch.setattr(numba.config, "DISABLE_JIT", True)
    import gsply

SH_C0 = 0.28209479177387814
DTYPES = {5126: np.float32, 5121: np.uint8, 5125: np.uint32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def read_with_gsply(path: Path) -> GaussianClip:
    """A PLY, compressed PLY or SPZ."""
    if path.suffix == ".spz":
        return _in_world(gsply.read_spz(path), GL_FROM_WORLD)
    return _in_world(gsply.plyread(path), PLY_FROM_WORLD)


def _in_world(data: Any, from_world: Tensor) -> GaussianClip:
    means, scales, quats, opacities, harmonics = (
        torch.from_numpy(np.array(column, np.float32))
        for column in (data.means, data.scales, data.quats, data.opacities, data.sh0)
    )
    made = gaussians(
        means, scales.exp(), quats, 0.5 + SH_C0 * harmonics.reshape(-1, 3), opacities.reshape(-1).sigmoid()
    )
    return rotate_gaussians(made, from_world * torch.tensor([1.0, -1, -1, -1]))


def gaussians(means: Tensor, scales: Tensor, quats: Tensor, colors: Tensor, opacities: Tensor) -> GaussianClip:
    return GaussianClip(
        means=means,
        scales=scales,
        quats=quats,
        colors=colors,
        opacities=opacities,
        offsets=torch.tensor([0, len(means)]),
    )


def read_zip(path: Path, t: int, folder: Path) -> GaussianClip:
    """Frame `t` of a 4d.zip; unzips it into `folder`."""
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    scene = json.loads((folder / "scene.json").read_text())
    return read_with_gsply(folder / scene["frames"][t]["file"])


class Glb:
    """A GLB as pygltflib reads it."""

    def __init__(self, path: Path) -> None:
        self.file = GLTF2.load(str(path))

    def array(self, number: int) -> np.ndarray:
        accessor = self.file.accessors[number]
        view = self.file.bufferViews[accessor.bufferView]
        width, kind = WIDTHS[accessor.type], DTYPES[accessor.componentType]
        data = self.file.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
        return np.frombuffer(data, kind)[: accessor.count * width].reshape(accessor.count, width)

    def gaussians(self, t: int) -> GaussianClip:
        primitive = self.file.meshes[self.file.nodes[t].mesh].primitives[0]
        names = ("POSITION", *(f"KHR_gaussian_splatting:{name}" for name in ("SCALE", "ROTATION", "OPACITY")))
        names += ("KHR_gaussian_splatting:SH_DEGREE_0_COEF_0",)
        columns = [self.array(getattr(primitive.attributes, name)) for name in names]
        means, scales, quats, opacities, harmonics = (torch.from_numpy(column.copy()) for column in columns)
        made = gaussians(means, scales, quats.roll(1, dims=1), 0.5 + SH_C0 * harmonics, opacities[:, 0])
        return rotate_gaussians(made, GL_FROM_WORLD * torch.tensor([1.0, -1, -1, -1]))

    def mesh(self, t: int) -> MeshClip:
        """The textured mesh that node `t` holds."""
        primitive = self.file.meshes[self.file.nodes[t].mesh].primitives[0]
        material = self.file.materials[primitive.material]
        texture = self.file.textures[material.pbrMetallicRoughness.baseColorTexture.index]
        view = self.file.bufferViews[self.file.images[texture.source].bufferView]
        picture = self.file.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
        points, uv = (self.array(getattr(primitive.attributes, name)) for name in ("POSITION", "TEXCOORD_0"))
        return textured(points, uv, self.array(primitive.indices).reshape(-1, 3), Image.open(io.BytesIO(picture)))

    def shown_at(self, seconds: float) -> list[int]:
        """The nodes whose scale is not 0 then, by the animation."""
        animation, shown = self.file.animations[0], []
        for channel in animation.channels:
            sampler = animation.samplers[channel.sampler]
            assert (sampler.interpolation, channel.target.path) == ("STEP", "scale")
            times, scales = self.array(sampler.input)[:, 0], self.array(sampler.output)
            if scales[max(0, int(np.searchsorted(times, seconds, side="right")) - 1)].any():
                shown.append(channel.target.node)
        return shown


def read_meshes(path: Path) -> dict[str, MeshClip]:
    """The meshes of a GLB by the names of their nodes, as trimesh has them."""
    scene = trimesh.load_scene(path, process=False)
    found = {}
    for node in scene.graph.nodes_geometry:
        _, name = scene.graph[node]
        mesh = scene.geometry[name]
        # trimesh counts from the texture's bottom.
        uv = mesh.visual.uv * [1, -1] + [0, 1]
        found[node] = textured(mesh.vertices, uv, mesh.faces, mesh.visual.material.baseColorTexture)
    return found


def textured(points: Any, uv: Any, faces: Any, picture: Image.Image) -> MeshClip:
    """A clip of one frame, from the axes of glTF."""
    texture = torch.from_numpy(np.asarray(picture.convert("RGB")).copy())[None]
    made = MeshClip(
        vertices=torch.from_numpy(np.array(points, np.float32)),
        uv=torch.from_numpy(np.array(uv, np.float32)),
        faces=torch.from_numpy(np.array(faces, np.int32)),
        texture=texture,
        deviation=torch.zeros(1),
        vertex_offsets=torch.tensor([0, len(points)]),
        face_offsets=torch.tensor([0, len(faces)]),
    )
    return rotate_mesh(made, GL_FROM_WORLD * torch.tensor([1.0, -1, -1, -1]))


def read_usd(path: Path, t: float) -> GaussianClip:
    """What a stage's one field of Gaussians holds at a time code."""
    stage = Usd.Stage.Open(str(path))
    assert UsdGeom.GetStageUpAxis(stage) == "Z"
    (prim,) = (prim for prim in stage.Traverse() if prim.IsA(UsdVol.ParticleField3DGaussianSplat))
    field = UsdVol.ParticleField3DGaussianSplat(prim)
    columns = [
        torch.from_numpy(np.array(attribute.Get(t), np.float32))
        for attribute in (
            field.GetPositionsAttr(),
            field.GetScalesAttr(),
            field.GetOpacitiesAttr(),
            field.GetRadianceSphericalHarmonicsCoefficientsAttr(),
        )
    ]
    quats = torch.tensor([[quat.real, *quat.imaginary] for quat in field.GetOrientationsAttr().Get(t)])
    means, scales, opacities, harmonics = columns
    return gaussians(means, scales, quats, 0.5 + SH_C0 * harmonics, opacities)
