"""Whether one surface can be all frames of a clip, and that surface if it can."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ss4d.stages.meshing.registration import register
from ss4d.stages.meshing.shell import Shell
from ss4d.stages.meshing.surface_points import Gap, gap, spread_points
from ss4d.stages.ops.triangles import Floats, Integers
from ss4d.stages.types import Progress, silent

LOG = logging.getLogger("ss4d")

MOST_CHAMFER = 0.005  # between a frame's surface and its own, sides of the object's cube
MOST_FAR = 0.03  # what 99 of 100 points of the two stay below: a bridge or a web where there is none is farther
CANDIDATES = 32  # frames that may become the key frame, evenly over the clip
LOOKS = 400  # points by which these are compared


@dataclass(frozen=True, eq=False)
class MovedShell:
    """A surface as it moves.

    Attributes:
        vertices: (t, v, 3) float32.
        faces: (f, 3) int32, the same in all frames.
        key: the frame that it comes from.
        deviation: (t,) float32, the Chamfer-L1 distance from each frame's own surface, world units.
    """

    vertices: Floats
    faces: Integers
    key: int
    deviation: Floats

    def frame(self, t: int) -> Shell:
        return Shell(self.vertices[t], self.faces)


def moved_shell(shells: Sequence[Shell | None], *, progress: Progress = silent) -> MovedShell | None:
    """The surface of a key frame, moved onto all others; None where it cannot be, and the log says why.

    Parts and handles that come and go where an object touches itself matter as far as they show: what counts is how
    far the moved surface is from each frame's own.

    Args:
        shells: the frames' own surfaces, None of empty ones.
        progress: told after each frame.
    """
    there = [shell for shell in shells if shell is not None]
    if len(there) < len(shells):
        empty = next(t for t, shell in enumerate(shells) if shell is None)
        LOG.warning("mesh: frame %d is empty, so no mesh can be that of all: every frame keeps its own", empty + 1)
        return None
    key = key_frame(there)
    vertices = register(there, key, progress=progress)
    gaps = [gap(Shell(places, there[key].faces), own) for places, own in zip(vertices, there, strict=True)]
    if not _fits(key, gaps):
        return None
    deviation = np.array([each.chamfer for each in gaps], np.float32)
    return MovedShell(vertices, there[key].faces, key, deviation)


def _fits(key: int, gaps: Sequence[Gap]) -> bool:
    """Whether a surface so far from the frames' own ones can stand for them; the log says so."""
    worst = max(range(len(gaps)), key=lambda t: max(gaps[t].chamfer / MOST_CHAMFER, gaps[t].far / MOST_FAR))
    mean = float(np.mean([each.chamfer for each in gaps]))
    measured = "%.4f from that of frame %d in the mean, and 1 %% of it farther than %.4f"
    values = gaps[worst].chamfer, worst + 1, gaps[worst].far
    if gaps[worst].chamfer <= MOST_CHAMFER and gaps[worst].far <= MOST_FAR:
        sentence = "mesh: the surface of frame %d is all frames': %.4f from their own in the mean; at worst "
        LOG.info(sentence + measured, key + 1, mean, *values)
        return True
    sentence = "mesh: the clip changes its topology, and every frame keeps its own mesh: the surface of frame %d is "
    LOG.warning(sentence + measured + " (at most %g and %g)", key + 1, *values, MOST_CHAMFER, MOST_FAR)
    return False


def key_frame(shells: Sequence[Shell]) -> int:
    """The frame whose surface is moved: the one nearest to all, of those with as many parts and handles as most have.

    Of long clips, 32 frames are looked at, evenly over the clip.
    """
    frames = np.unique(np.linspace(0, len(shells) - 1, min(CANDIDATES, len(shells))).round().astype(int))
    kinds = [_kind(shells[t]) for t in frames]
    common, _ = Counter(kinds).most_common(1)[0]
    points = [spread_points(shells[t], LOOKS).of(shells[t].vertices) for t in frames]
    trees = [cKDTree(each) for each in points]
    apart = np.array([[tree.query(each)[0].mean() for tree in trees] for each in points])
    usual = np.flatnonzero([kind == common for kind in kinds])
    return int(frames[usual[(apart + apart.T)[usual].sum(axis=1).argmin()]])


def _kind(shell: Shell) -> tuple[int, int]:
    """How many parts a closed surface has, and its Euler characteristic: twice the parts, less two for each handle."""
    count = len(shell.vertices)
    ends = shell.faces[:, [0, 1, 2]].reshape(-1), shell.faces[:, [1, 2, 0]].reshape(-1)
    graph = coo_array((np.ones(len(ends[0]), np.int8), ends), shape=(count, count))
    return connected_components(graph, directed=False)[0], count - len(shell.faces) // 2
