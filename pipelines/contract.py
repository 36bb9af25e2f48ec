"""What a stage must give: anything else is refused before it reaches the store, whoever wrote the implementation."""

import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from ss4d.pipelines.implementation import Implementation, Stage
from ss4d.stages.errors import NumbersError, ValueSpecError
from ss4d.stages.types import Clip, GaussianClip, MeshClip, StructuredLatents, Tokens, Value, Voxels

SCALES = 1e-9, 100.0  # standard deviations of Gaussians, world units


def check_result(
    implementation: Implementation, stage: Stage, result: object, folder: Path, grid: int | None = None
) -> None:
    """Checks what an implementation gave.

    Args:
        implementation: whose function ran.
        stage: what it implements.
        result: what it returned.
        folder: where it wrote files.
        grid: cells along each axis that the next stage's network works on, if it has one.

    Raises:
        NumbersError: naming the implementation, the array, and how many of its numbers are none, or absurd.
        ValueSpecError: naming the implementation, the array and what was expected.
    """
    if stage.gives_files:
        if result is not None or not any(path.is_file() for path in folder.rglob("*")):
            raise ValueSpecError(
                f"{implementation} must write files and return nothing; it returned {type(result).__name__}"
            )
        return
    # The very type: what is stored is read again as it, and a subclass would lose what it adds.
    if type(result) is not (kind := stage.value_type()):
        raise ValueSpecError(f"{implementation} must give {kind.__name__}, but gave {type(result).__name__}")
    assert isinstance(result, Value)
    try:
        result.check()
    except ValueSpecError as error:
        raise ValueSpecError(f"{implementation} gave a wrong result: {error}") from error
    if problem := next(_problems(result, grid), None):
        raise ValueSpecError(f"{implementation} gave a wrong result: {type(result).__name__}.{problem}")
    if problem := next(_wrong_numbers(result), None):
        raise NumbersError(f"{implementation} gave a wrong result: {type(result).__name__}.{problem}")


def _problems(value: Value, grid: int | None) -> Iterator[str]:
    """What is wrong with content that has the right axes and dtypes."""
    for field in fields(value):
        given = getattr(value, field.name)
        if "spec" not in field.metadata and type(given) is not field.type:
            kind = getattr(field.type, "__name__", field.type)
            yield f"{field.name} must be of type {kind}; got {given!r} of type {type(given).__name__}"
    for name, spec in value.specs().items():
        if spec.axes[:1] == ("t",) and not len(getattr(value, name)):
            yield f"{name} must have at least one frame; it has none"
    if isinstance(value, Voxels) and grid not in (None, value.resolution):
        yield f"resolution must be {grid}, as the model's flow of structured latents works on; got {value.resolution}"
    if isinstance(value, Voxels) and not len(value.coords):
        yield "coords must have at least one row; it has none"
    if isinstance(value, Tokens | Voxels):
        yield from _wrong_guess(value)
    if isinstance(value, Voxels | StructuredLatents):
        yield from _misplaced(value.coords.cpu(), value.num_frames, value.resolution)
    if isinstance(value, Clip) and not 0 < value.fps < math.inf:
        yield f"fps must be finite and above 0; got {value.fps}"
    if isinstance(value, GaussianClip):
        yield from _wrong_offsets("offsets", value.offsets, len(value.means), "Gaussians")
    if isinstance(value, MeshClip):
        yield from _wrong_mesh(value)


def _wrong_guess(value: Tokens | Voxels) -> Iterator[str]:
    """What is wrong with the image encoder's guess of cells, if there is one."""
    frames, given = len(value.feats if isinstance(value, Tokens) else value.latent), len(value.guess)
    if given not in (0, frames):
        yield f"guess must be of all {frames} frames or of none; it is of {given}"
    elif given and isinstance(value, Voxels) and value.guess.shape[1] != value.resolution:
        yield f"guess must be of a grid of {value.resolution} cells along each axis; it is of {value.guess.shape[1]}"


def _wrong_numbers(value: Value) -> Iterator[str]:
    """Arrays that hold what is not a number, or Gaussians of a size that no part of an object has."""
    for name in value.specs():
        numbers = getattr(value, name)
        if numbers.is_floating_point() and (bad := _num_false(numbers.isfinite())):
            yield (
                f"{name} must be finite; {bad:,} of {numbers.numel():,} numbers are not: "
                "weights may be damaged, or values overflow float16, which --set precision=bfloat16 would show"
            )
    if isinstance(value, GaussianClip):
        least, most = SCALES
        if bad := _num_false((value.scales >= least) & (value.scales <= most)):
            yield (
                f"scales must lie between {least:g} and {most:g}, as the object's cube has the side 1; {bad:,} of "
                f"{value.scales.numel():,} numbers do not"
            )


def _wrong_offsets(name: str, offsets: Tensor, count: int, what: str) -> Iterator[str]:
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != count or (offsets.diff() < 0).any():
        yield f"{name} must rise from 0 to {count}, the number of {what}; got {_few(offsets)}"


def _wrong_mesh(mesh: MeshClip) -> Iterator[str]:
    problems = [
        *_wrong_offsets("vertex_offsets", mesh.vertex_offsets, len(mesh.vertices), "vertices"),
        *_wrong_offsets("face_offsets", mesh.face_offsets, len(mesh.faces), "faces"),
    ]
    yield from problems
    if problems:
        return
    counts = mesh.vertex_offsets.diff().repeat_interleave(mesh.face_offsets.diff())
    outside = ((mesh.faces < 0) | (mesh.faces >= counts[:, None])).any(1)
    if outside.any():
        row = int(outside.nonzero()[0])
        yield (
            f"faces must name vertices of their own frame, counted from 0; face {row} is {_few(mesh.faces[row])}, and "
            f"its frame has {int(counts[row])} vertices"
        )
    if mesh.one_topology and not _all_alike(mesh):
        yield "one_topology says that all frames have the same faces and the same uv; they do not"
    if bad := _num_false((mesh.uv >= 0) & (mesh.uv <= 1)):
        yield f"uv must lie between 0 and 1; {bad:,} of {mesh.uv.numel():,} numbers do not"


def _all_alike(mesh: MeshClip) -> bool:
    first = mesh.frame(0)
    rest = (mesh.frame(t) for t in range(1, mesh.num_frames))
    return all(torch.equal(first.faces, frame.faces) and torch.equal(first.uv, frame.uv) for frame in rest)


def _num_false(true: Tensor) -> int:
    return true.numel() - int(true.count_nonzero())  # a sum would take eight bytes for each of them


def _misplaced(coords: Tensor, num_frames: int, resolution: int) -> Iterator[str]:
    sizes = torch.tensor([1, num_frames, resolution, resolution, resolution])
    outside = ((coords < 0) | (coords >= sizes)).any(1)
    if outside.any():
        yield (
            f"coords must be (b, t, x, y, z) below (1, {num_frames}, {resolution}, {resolution}, {resolution}) and at "
            f"least 0; got {_few(coords[outside][0])}"
        )
        return
    places = coords.long()
    order = places[:, 0]
    for axis in range(1, 5):
        order = order * int(sizes[axis]) + places[:, axis]
    if (order.diff() <= 0).any():
        row = int((order.diff() <= 0).nonzero()[0]) + 1
        yield f"coords must be sorted by (b, t, x, y, z), each once; row {row} is {_few(coords[row])}"


def _few(numbers: Tensor) -> str:
    return str(numbers[:8].tolist())
