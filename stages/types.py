"""The values stages hand to each other; each declares its arrays once, for checks, for the store and for readers.

Axes: t frame, n voxel or Gaussian, l image token, c channel, r grid cell along one axis, s pixel along one side.
World space: the object fills [-0.5, 0.5]^3, z up. Sparse coordinates are (b, t, x, y, z), sorted in that order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from torch import Tensor

from ss4d.stages.errors import ValueSpecError

# What the axes of a grid follow. world: z is up, and the front of an object is at -y. camera: the input camera; x is
# its image's right, y leads away from it, z is its image's up. crop: the same, by the ray through the middle of the
# input's crop, which lays out the grid. yaw: as camera, turned so that z is up.
Axes = Literal["world", "yaw", "camera", "crop"]
Progress = Callable[[int, int], None]  # called with (steps done, steps in all)


def silent(done: int, total: int) -> None:
    """A `Progress` that tells nobody."""


@dataclass(frozen=True)
class ArraySpec:
    """What one array of a value must be.

    `axes` tells the size of each axis: a letter whose size agrees across the value's arrays, a letter with "+1" for one
    more than that size, or a number for a fixed size; "row=s" is an axis called row of size s. `meaning` says content
    and unit in words. An `optional` array is empty where it is not given.
    """

    axes: tuple[str, ...]
    dtype: torch.dtype
    meaning: str
    optional: bool = False

    @property
    def dims(self) -> tuple[str, ...]:
        """What each axis is called."""
        return tuple(axis.partition("=")[0] for axis in self.axes)


def array(axes: str, dtype: torch.dtype, meaning: str, *, optional: bool = False) -> Any:
    """A dataclass field that holds a tensor with the axes named in `axes`, separated by spaces.

    An `optional` one is empty along all axes where it is not given: no other array may have an axis of that letter.
    """
    spec = ArraySpec(tuple(axes.split()), dtype, meaning, optional)
    if optional:
        return field(default_factory=lambda: torch.zeros([0] * len(spec.axes), dtype=dtype), metadata={"spec": spec})
    return field(metadata={"spec": spec})


@dataclass(frozen=True, eq=False, kw_only=True)
class Value:
    """Base of what a stage gives: checks on construction that every declared array has its axes and dtype.

    Raises:
        ValueSpecError: naming the array, what was expected and what was given.
    """

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Checks the arrays as construction does: tensors can be changed in place afterwards."""
        sizes: dict[str, int] = {}
        for name, spec in self.specs().items():
            _check(f"{type(self).__name__}.{name}", getattr(self, name), spec, sizes)

    @classmethod
    def specs(cls) -> Mapping[str, ArraySpec]:
        """The declared arrays by field name, in order."""
        return {f.name: f.metadata["spec"] for f in fields(cls) if "spec" in f.metadata}


def _check(name: str, value: object, spec: ArraySpec, sizes: dict[str, int]) -> None:
    expected = f"{name} must be a tensor ({', '.join(spec.axes)}) of {spec.dtype}: {spec.meaning}"
    if not isinstance(value, Tensor):
        raise ValueSpecError(f"{expected}; got {type(value).__name__}")
    given = f"got {tuple(value.shape)} of {value.dtype}"
    if value.dtype != spec.dtype or value.ndim != len(spec.axes):
        raise ValueSpecError(f"{expected}; {given}")
    for axis, size in zip(spec.axes, value.shape, strict=True):
        size_name = axis.rpartition("=")[2]
        letter, _, extra = size_name.partition("+")
        wanted = int(letter) if letter.isdigit() else sizes.setdefault(letter, size - int(extra or 0)) + int(extra or 0)
        if size != wanted:
            raise ValueSpecError(f"{expected}; {given}, where {axis} should be {wanted}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Video(Value):
    """Frames as read from the input.

    Attributes:
        scale: pixels of the input, along a side, that one of these stands for; 1 where nothing was reduced.
        coarse: whether they are smaller than was asked for, since all of them would have taken too much memory.
    """

    frames: Tensor = array("t h w c", torch.uint8, "straight RGB or RGBA, 0 to 255")
    fps: float
    scale: float = 1.0
    coarse: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Clip(Value):
    """The object cut out of its background, cropped once for the whole clip (docs/model.md, section 2)."""

    rgb: Tensor = array("t row=s column=s 3", torch.uint8, "RGB multiplied by alpha, over black, 0 to 255")
    alpha: Tensor = array("t row=s column=s", torch.uint8, "foreground opacity, 0 to 255")
    crop: Tensor = array("4", torch.int64, "left, top, right, bottom of the crop in source pixels; may lie outside")
    confidence: Tensor = array("t", torch.float32, "how sure the segmentation is of each frame, 0 to 1")
    method: str
    fps: float


GUESS = "each cell's logit by the image encoder alone, if any"


@dataclass(frozen=True, eq=False, kw_only=True)
class Tokens(Value):
    """What the image encoder sees in each frame."""

    feats: Tensor = array("t l c", torch.float32, "image tokens, normalized; 0 in frames without the object")
    guess: Tensor = array("frame cell_x=g cell_y=g cell_z=g", torch.float32, GUESS, optional=True)


@dataclass(frozen=True, eq=False, kw_only=True)
class Voxels(Value):
    """The sparse structure: which cells of the grid the object occupies in each frame."""

    coords: Tensor = array("n 5", torch.int32, "occupied cells (b, t, x, y, z), sorted; b is 0")
    latent: Tensor = array("t c x=r y=r z=r", torch.float32, "occupancy latent the cells were decoded from")
    guess: Tensor = array("frame cell_x=g cell_y=g cell_z=g", torch.float32, GUESS, optional=True)
    resolution: int

    @property
    def num_frames(self) -> int:
        return len(self.latent)


@dataclass(frozen=True, eq=False, kw_only=True)
class StructuredLatents(Value):
    """Structured latents (SLat): one feature per occupied cell, denormalized."""

    coords: Tensor = array("n 5", torch.int32, "occupied cells (b, t, x, y, z), sorted; b is 0")
    feats: Tensor = array("n c", torch.float32, "latent of each cell")
    num_frames: int
    resolution: int


@dataclass(frozen=True, eq=False, kw_only=True)
class GaussianClip(Value):
    """One set of 3D Gaussians per frame, packed: frame t owns rows offsets[t] to offsets[t + 1]."""

    means: Tensor = array("n 3", torch.float32, "centers in world space")
    scales: Tensor = array("n 3", torch.float32, "standard deviations along the Gaussian's own axes, world units")
    quats: Tensor = array("n 4", torch.float32, "unit rotations (w, x, y, z)")
    colors: Tensor = array("n 3", torch.float32, "RGB, nominally 0 to 1")
    opacities: Tensor = array("n", torch.float32, "0 to 1")
    offsets: Tensor = array("t+1", torch.int64, "first row of each frame, then the number of rows")

    @property
    def num_frames(self) -> int:
        return len(self.offsets) - 1

    def frame(self, t: int) -> "GaussianClip":
        """Frame `t` alone, as a clip of one frame."""
        start, stop = int(self.offsets[t]), int(self.offsets[t + 1])
        return self.chosen(slice(start, stop), torch.tensor([0, stop - start]))

    def chosen(self, rows: Tensor | slice, offsets: Tensor) -> "GaussianClip":
        """The Gaussians in `rows` (m) alone, whose frames begin at `offsets` (t+1) of them."""
        return GaussianClip(
            means=self.means[rows],
            scales=self.scales[rows],
            quats=self.quats[rows],
            colors=self.colors[rows],
            opacities=self.opacities[rows],
            offsets=offsets,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedVoxels(Voxels):
    """Voxels that were fitted to the masks, and how that went."""

    loss: Tensor = array("step", torch.float32, "what the fit minimizes, at each of its steps")
    fitted: Tensor = array("t", torch.uint8, "1: fitted, 0: left as it was")


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedGaussians(GaussianClip):
    """Gaussians that were fitted to the input, and how that went."""

    loss: Tensor = array("step", torch.float32, "what the fit minimizes, at each of its steps")
    fitted: Tensor = array("t", torch.uint8, "1: fitted, 0: left as it was")


@dataclass(frozen=True, eq=False, kw_only=True)
class MeshClip(Value):
    """One textured mesh per frame, packed: frame t owns the vertices and faces between two of its offsets.

    A vertex has one place in the texture: along a seam of the texture there are two vertices at one place in space.
    Faces are seen from where their vertices run counterclockwise. A frame without any face is empty.

    Attributes:
        one_topology: whether it is one mesh that moves: all frames have the same faces, at the same places of textures.
    """

    vertices: Tensor = array("vertex 3", torch.float32, "places in world space")
    uv: Tensor = array("vertex 2", torch.float32, "places in the texture, 0 to 1 from its left and from its top")
    faces: Tensor = array("face 3", torch.int32, "vertices of each triangle, counted from the frame's first")
    texture: Tensor = array("t row=s column=s 3", torch.uint8, "RGB of the surface as it is shown, 0 to 255")
    deviation: Tensor = array("t", torch.float32, "mean distance from each frame's own surface; 0: it is that one")
    vertex_offsets: Tensor = array("t+1", torch.int64, "first vertex of each frame, then the number of vertices")
    face_offsets: Tensor = array("t+1", torch.int64, "first face of each frame, then the number of faces")
    one_topology: bool = False

    @property
    def num_frames(self) -> int:
        return len(self.texture)

    def frame(self, t: int) -> "MeshClip":
        """Frame `t` alone, as a clip of one frame."""
        vertices = slice(int(self.vertex_offsets[t]), int(self.vertex_offsets[t + 1]))
        faces = slice(int(self.face_offsets[t]), int(self.face_offsets[t + 1]))
        return MeshClip(
            vertices=self.vertices[vertices],
            uv=self.uv[vertices],
            faces=self.faces[faces],
            texture=self.texture[t : t + 1],
            deviation=self.deviation[t : t + 1],
            vertex_offsets=torch.tensor([0, vertices.stop - vertices.start]),
            face_offsets=torch.tensor([0, faces.stop - faces.start]),
        )

    @staticmethod
    def joined(frames: "Sequence[MeshClip]") -> "MeshClip":
        """Clips one after the other as one; at least one, with textures of one size."""
        return MeshClip(
            vertices=torch.cat([frame.vertices for frame in frames]),
            uv=torch.cat([frame.uv for frame in frames]),
            faces=torch.cat([frame.faces for frame in frames]),
            texture=torch.cat([frame.texture for frame in frames]),
            deviation=torch.cat([frame.deviation for frame in frames]),
            vertex_offsets=_joined_offsets([frame.vertex_offsets for frame in frames]),
            face_offsets=_joined_offsets([frame.face_offsets for frame in frames]),
        )


def _joined_offsets(offsets: Sequence[Tensor]) -> Tensor:
    counts = torch.cat([each.diff() for each in offsets])
    return torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])


@dataclass(frozen=True, eq=False, kw_only=True)
class InputCamera(Value):
    """The camera that saw the clip's crop, the same in all frames; it looks at the middle of the object's cube."""

    yaw: Tensor = array("", torch.float32, "degrees from the object's front, to its right, in world space")
    pitch: Tensor = array("", torch.float32, "degrees above the horizon")
    distance: Tensor = array("", torch.float32, "from the middle of the object's cube, world units")
    fov: Tensor = array("", torch.float32, "degrees that the crop's side spans in front of the camera")
    shift: Tensor = array(
        "2", torch.float32, "of the cube's middle in the crop from its center, right and down, in sides"
    )
    upright: Tensor = array("3 3", torch.float32, "directions of the model's grid to directions in world space")
    overlap: Tensor = array("t", torch.float32, "what outline and mask share of what they cover together, 0 to 1")
    spread: Tensor = array(
        "2", torch.float32, "how far yaw and pitch in the grid may be off: deviations in degrees, 0 of what is known"
    )


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera: x right, y down, z forward in camera space; pixel centers at half integers."""

    world_to_camera: tuple[tuple[float, float, float, float], ...]  # 4 x 4, row by row
    focal: float  # pixels, the same along both axes
    width: int  # pixels
    height: int  # pixels
