"""An asset as two USD files over time, z up as world space is: Gaussians, and points for what shows no Gaussians.

Needs the package usd-core (the extra `usd`), which is imported where a file is written.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ss4d.stages.export.packages import check_packages
from ss4d.stages.export.packing import SH_C0, Floats, linear_light
from ss4d.stages.export.scene import Scene
from ss4d.stages.types import GaussianClip, Progress

GAUSSIANS, POINTS = "gaussians.usdc", "points.usdc"
ROOT = "/asset"
REACH = 3.0  # standard deviations of a Gaussian within its bounds
# A point has one width: that of the disc which covers as much as the two larger axes of the Gaussian at this reach.
POINT_REACH = 1.5


def write_usd(scene: Scene, folder: Path, *, progress: Progress) -> tuple[str, ...]:
    """Writes `gaussians.usdc` (ParticleField3DGaussianSplat) and `points.usdc` (Points of a width and a color each).

    Frame t is time code t; a file has its frames' rate. Blender shows the points, which it can play.

    Raises:
        InputError: usd-core is not installed.
    """
    pxr = _usd()
    stages = {name: _new_stage(pxr, folder / name, scene) for name in (GAUSSIANS, POINTS)}
    field = pxr["UsdVol"].ParticleField3DGaussianSplat.Define(stages[GAUSSIANS], f"{ROOT}/gaussians")
    points = pxr["UsdGeom"].Points.Define(stages[POINTS], f"{ROOT}/points")
    field.CreateRadianceSphericalHarmonicsDegreeAttr(0)
    colors = (
        pxr["UsdGeom"]
        .PrimvarsAPI(points)
        .CreatePrimvar("displayColor", pxr["Sdf"].ValueTypeNames.Color3fArray, pxr["UsdGeom"].Tokens.vertex)
    )
    for t in range(scene.num_frames):
        frame = scene.gaussians.frame(t)
        _add_gaussians(pxr, field, frame, t)
        _add_points(pxr, points, colors, frame, t)
        progress(t + 1, scene.num_frames)
    for stage in stages.values():
        stage.Save()
    return (GAUSSIANS, POINTS)


def _usd() -> Mapping[str, Any]:
    """The modules of usd-core that are used."""
    check_packages(["usd"])
    return {name: import_module(f"pxr.{name}") for name in ("Gf", "Sdf", "Usd", "UsdGeom", "UsdVol", "Vt")}


def _new_stage(pxr: Mapping[str, Any], path: Path, scene: Scene) -> Any:
    stage = pxr["Usd"].Stage.CreateNew(str(path))
    pxr["UsdGeom"].SetStageUpAxis(stage, pxr["UsdGeom"].Tokens.z)
    pxr["UsdGeom"].SetStageMetersPerUnit(stage, 1.0)
    stage.SetDefaultPrim(pxr["UsdGeom"].Xform.Define(stage, ROOT).GetPrim())
    stage.SetTimeCodesPerSecond(scene.fps)
    stage.SetFramesPerSecond(scene.fps)
    stage.SetStartTimeCode(0)
    stage.SetEndTimeCode(scene.num_frames - 1)
    return stage


def _add_gaussians(pxr: Mapping[str, Any], field: Any, frame: GaussianClip, time: float) -> None:
    vt = pxr["Vt"]
    quats = torch.nn.functional.normalize(frame.quats, dim=1).roll(-1, dims=1)  # (x, y, z, w)
    field.CreatePositionsAttr().Set(vt.Vec3fArray.FromNumpy(_floats(frame.means)), time)
    field.CreateOrientationsAttr().Set(vt.QuatfArray.FromNumpy(_floats(quats)), time)
    field.CreateScalesAttr().Set(vt.Vec3fArray.FromNumpy(_floats(frame.scales)), time)
    field.CreateOpacitiesAttr().Set(vt.FloatArray.FromNumpy(_floats(frame.opacities)), time)
    harmonics = vt.Vec3fArray.FromNumpy(_floats((frame.colors - 0.5) / SH_C0))
    field.CreateRadianceSphericalHarmonicsCoefficientsAttr().Set(harmonics, time)
    field.CreateExtentAttr().Set(_extent(pxr, frame), time)


def _add_points(pxr: Mapping[str, Any], points: Any, colors: Any, frame: GaussianClip, time: float) -> None:
    vt = pxr["Vt"]
    radius = frame.scales.topk(2, dim=1).values.prod(dim=1).sqrt() * POINT_REACH
    points.CreatePointsAttr().Set(vt.Vec3fArray.FromNumpy(_floats(frame.means)), time)
    points.CreateWidthsAttr().Set(vt.FloatArray.FromNumpy(_floats(2 * radius)), time)
    colors.Set(vt.Vec3fArray.FromNumpy(_floats(linear_light(frame.colors.clamp(0, 1)))), time)
    points.CreateExtentAttr().Set(_extent(pxr, frame), time)


def _extent(pxr: Mapping[str, Any], frame: GaussianClip) -> Any:
    """The box around all Gaussians; an empty one for none."""
    if not len(frame.means):
        return pxr["Vt"].Vec3fArray.FromNumpy(np.zeros((2, 3), np.float32))
    reach = REACH * frame.scales.amax(dim=1, keepdim=True)
    ends = torch.stack([(frame.means - reach).amin(0), (frame.means + reach).amax(0)])
    return pxr["Vt"].Vec3fArray.FromNumpy(_floats(ends))


def _floats(values: torch.Tensor) -> Floats:
    return np.ascontiguousarray(values.numpy(), np.float32)
