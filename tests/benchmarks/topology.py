"""One mesh that moves against a mesh for each frame: how near it stays, how far it slides, and what it costs.

`python -m tests.benchmarks.topology quadruped bird snake --frames 9` makes procedural objects, whose every point is
known over time, sets Gaussians on them frame by frame, and takes those through the mesh stage's steps. With `--amberg`,
trimesh's `nricp_amberg` registers two frames of each, for which it needs the package rtree.
"""

import argparse
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
import trimesh
from scipy.spatial import cKDTree

from ss4d.stages.data.mesh import AnimatedMesh
from ss4d.stages.data.objects import make_object
from ss4d.stages.meshing.atlas import unwrap
from ss4d.stages.meshing.bake import bake
from ss4d.stages.meshing.config import MeshConfig
from ss4d.stages.meshing.isosurface import marching_cubes
from ss4d.stages.meshing.mesh import FoundSurface, find_surface, textured
from ss4d.stages.meshing.registration import register
from ss4d.stages.meshing.shell import Shell
from ss4d.stages.meshing.surface_points import Doubles, gap, spread_points, unit_normals
from ss4d.stages.meshing.topology import key_frame
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.ops.triangles import see_triangles
from ss4d.stages.types import GaussianClip, MeshClip
from tests.helpers.true_gaussians import gaussians_on, likeness

SEED, GAUSSIANS = 3, 12_000
CONFIG = MeshConfig(grid=64, views=24, faces=5000, texture=256, surface="marching_cubes")


@dataclass(frozen=True, eq=False)
class Made:
    """A clip: the object, its Gaussians, and the surface found for each frame."""

    truth: AnimatedMesh
    frames: list[GaussianClip]
    found: list[FoundSurface]

    @property
    def shells(self) -> list[Shell]:
        return [each.shell for each in self.found]


def clip(family: str, num_frames: int) -> Made:
    """A procedural object over time."""
    truth = make_object(family, SEED, num_frames)
    frames, found = [], []
    for t in range(num_frames):
        frame, _ = gaussians_on(replace(truth, vertices=truth.vertices[t : t + 1]), GAUSSIANS, SEED)
        surface = find_surface(CONFIG, frame, marching_cubes)
        assert surface is not None
        frames.append(frame)
        found.append(surface)
    return Made(truth, frames, found)


def slid(made: Made, key: int, vertices: np.ndarray) -> list[Doubles]:
    """How far each vertex is from where the object's own point went that it was on in the key frame, frame by frame."""
    at_key = Shell(made.truth.vertices[key], made.truth.faces)
    spots = spread_points(at_key, 100_000)
    facing = spots.of(unit_normals(at_key.vertices, at_key.faces))
    own = unit_normals(vertices[key], made.found[key].shell.faces)
    tree = cKDTree(np.hstack([spots.of(at_key.vertices), 0.02 * facing]))
    _, rows = tree.query(np.hstack([vertices[key], 0.02 * own]))
    return [
        np.linalg.norm(places - spots.of(made.truth.vertices[t])[rows], axis=1) for t, places in enumerate(vertices)
    ]


def turned(vertices: np.ndarray, faces: np.ndarray) -> float:
    """The share of triangles that face away from the surface around them."""
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return float(((normals * unit_normals(vertices, faces)[faces].mean(axis=1)).sum(axis=1) < 0).mean())


def textures(made: Made, key: int, vertices: np.ndarray) -> dict[str, float]:
    """PSNR against the Gaussians, in dB over all frames, by texture: each frame's own, their mean, the key frame's."""
    charts = unwrap(made.found[key].shell, CONFIG.texture)
    meshes = []
    for frame, found, places in zip(made.frames, made.found, vertices, strict=True):
        atlas = charts.on(Shell(places, made.found[key].shell.faces))
        texture = bake(frame, atlas, found.cameras, CONFIG.texture, found.cell, rasterize, see_triangles)
        meshes.append(textured(atlas, texture))
    mean = torch.stack([mesh.texture.float() for mesh in meshes]).mean(0).round().byte()
    ways = {"own": None, "mean": mean, "key": meshes[key].texture}
    return {
        name: float(np.mean([_likeness(mesh, texture, made.frames[t]) for t, mesh in enumerate(meshes)]))
        for name, texture in ways.items()
    }


def _likeness(mesh: MeshClip, texture: torch.Tensor | None, frame: GaussianClip) -> float:
    return likeness(mesh if texture is None else replace(mesh, texture=texture), frame, size=192, views=4)


def measure(family: str, num_frames: int, amberg: bool) -> None:
    made = clip(family, num_frames)
    key = key_frame(made.shells)
    begun = time.process_time()
    vertices = register(made.shells, key)
    seconds = (time.process_time() - begun) / (num_frames - 1)
    faces = made.found[key].shell.faces
    gaps = [gap(Shell(places, faces), own) for places, own in zip(vertices, made.shells, strict=True)]
    others = [each for t, each in enumerate(gaps) if t != key]
    neighbors = [gap(one, other).chamfer for one, other in zip(made.shells, made.shells[1:], strict=False)]
    far = np.array([[each.mean(), np.quantile(each, 0.95)] for each in slid(made, key, vertices)])
    print(
        f"{family}: {num_frames} frames, key {key + 1}, {len(vertices[0])} vertices, {seconds:.2f} CPU s a frame; "
        f"Chamfer of neighbors {np.mean(neighbors):.4f}, registered {np.mean([g.chamfer for g in others]):.4f}, at "
        f"worst {max(g.chamfer for g in gaps):.4f}, 99 % within {max(g.far for g in gaps):.4f}; turned over "
        f"{max(turned(places, faces) for places in vertices):.2%}; slid {far[:, 0].mean():.4f}, in the worst frame "
        f"{far[:, 0].max():.4f}, 95 % within {far[:, 1].max():.4f}"
    )
    print(
        f"  dB by texture: {', '.join(f'{name} {value:.1f}' for name, value in textures(made, key, vertices).items())}"
    )
    if amberg:
        pair(made.shells[0], made.shells[1])


def pair(first: Shell, second: Shell) -> None:
    """Registers one surface onto another both ways of doing so."""
    begun = time.process_time()
    ours = register([first, second], 0)[1]
    between = time.process_time()
    sources = [trimesh.Trimesh(shell.vertices, shell.faces, process=False) for shell in (first, second)]
    theirs = trimesh.registration.nricp_amberg(*sources)
    ended = time.process_time()
    for name, places, cost in (("ours", ours, between - begun), ("nricp_amberg", theirs, ended - between)):
        there = Shell(np.asarray(places, np.float32), first.faces)
        apart = gap(there, second)
        print(
            f"  frame 1 on frame 2, {name}: {cost:.2f} CPU s, Chamfer {apart.chamfer:.4f}, 99 % within {apart.far:.4f}"
        )


def main() -> None:
    """Prints some lines for each object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="+")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--amberg", action="store_true")
    options = parser.parse_args()
    for family in options.families:
        measure(family, options.frames, options.amberg)


if __name__ == "__main__":
    main()
