"""Fills a folder with training records: procedural clips by seed, or imported assets, made by worker processes."""

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.training.job_answers import answers
from ss4d.pipelines.training.records import (
    MANIFEST,
    Row,
    Shown,
    read_manifest,
    recipe,
    split_of,
    stored_row,
    update_manifest,
    write_clip,
)
from ss4d.stages.data.clip import ClipSpec, TrainingClip, film
from ss4d.stages.data.families.table import FAMILIES
from ss4d.stages.data.gltf import Asset, load_asset, moving
from ss4d.stages.data.gltf_choice import USUAL_CHOICE, AnimationChoice
from ss4d.stages.data.gltf_file import USUAL_LIMITS, AssetLimits
from ss4d.stages.data.mesh import AnimatedMesh
from ss4d.stages.data.objects import FPS, family_of, make_object
from ss4d.stages.errors import InputError
from ss4d.stages.types import Axes, Progress
from ss4d.storage.files import real_path

IMPORTED = "imported"  # the family of people's own objects
SUFFIXES = (".glb", ".gltf")
MESH_SEEDS = 2**28  # an imported clip's seed is the one asked for plus one of so many, which its mesh decides
MAX_FIRST_SEED = 2**62  # clips count on from it, and the manifest keeps their seeds in 64 bits
ALL = "all"  # stands for every animation that moves
LEAST_FILL = 0.25  # of the grid's side; an imported object that takes less at a time is told of
MANIFEST_SECONDS = 20  # between two writings of the manifest while clips are made

_log = logging.getLogger("ss4d.records")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large clips are, alike for all in a folder.

    Attributes:
        frames: at 12 frames a second.
        size: side of the input frames and of the other views in pixels.
        views: other cameras.
        resolution: grid cells along each axis, as many as the model to train or to measure has.
        axes: of the grid; those of the model, too.
    """

    frames: int = 16
    size: int = 128
    views: int = 8
    resolution: int = 16
    axes: Axes = "camera"

    def spec(self, seed: int, family: str | None = None) -> ClipSpec:
        return ClipSpec(
            seed=seed,
            family=family,
            num_frames=self.frames,
            input_size=self.size,
            num_views=self.views,
            view_size=self.size,
            resolution=self.resolution,
            axes=self.axes,
        )


@dataclass(frozen=True)
class ClipJob:
    """One clip to make: `spec`'s object, or `choice` of the file `asset`, which may cost no more than `limits`."""

    id: str
    spec: ClipSpec
    asset: Path | None = None
    limits: AssetLimits = USUAL_LIMITS
    choice: AnimationChoice = USUAL_CHOICE


@dataclass(frozen=True)
class MadeRecords:
    """The rows of the clips that were asked for, how many of them were made now, and in what time."""

    rows: tuple[Row, ...]
    num_made: int
    seconds: float

    @property
    def failed(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.error is not None)


def make_records(
    folder: Path,
    *,
    num_clips: int,
    seed: int,
    sizes: Sizes,
    families: Sequence[str],
    workers: int | None,
    progress: Progress,
) -> MadeRecords:
    """Makes the clips of seeds `seed` to `seed + num_clips - 1`, those that are not in `folder` yet.

    Args:
        folder: made if missing.
        num_clips: at least 1.
        seed: of the first clip.
        sizes: of the clips.
        families: take turns from seed to seed; with none, each seed chooses among all.
        workers: processes; None for one per processor.
        progress: told of each clip.

    Raises:
        ConfigError: for impossible numbers, an unknown family, seeds for training and evaluation at once, or a folder
            that holds clips of other sizes.
        WorkerError: if a process died.
        StoreError, OSError: if the folder cannot be used.
    """
    _check({"--clips": (num_clips, 1), **_limits(sizes, seed, workers)})
    split_of(seed, seed + num_clips - 1)
    if unknown := sorted(set(families) - set(FAMILIES)):
        raise ConfigError(f"no family of objects is called {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    names = sorted(set(families))
    jobs = []
    for number in range(seed, seed + num_clips):
        family = names[number % len(names)] if names else family_of(number)
        jobs.append(ClipJob(f"{family}-{number}", sizes.spec(number, family)))
    return _fill(folder, jobs, sizes, workers, progress)


def import_records(
    folder: Path,
    sources: Sequence[Path],
    *,
    seed: int,
    sizes: Sizes,
    workers: int | None,
    progress: Progress,
    max_triangles: int = USUAL_LIMITS.max_triangles,
    max_texture: int = USUAL_LIMITS.max_texture,
    max_numbers: int = USUAL_LIMITS.max_numbers,
    animation: str | None = None,
    begin: float | None = None,
    end: float | None = None,
    in_place: bool = False,
) -> MadeRecords:
    """Makes clips of animated assets; a file that cannot be used gets a row that says why.

    Args:
        folder: made if missing.
        sources: .glb and .gltf files, or folders with such files at any depth.
        seed: decides cameras and light, together with the mesh.
        sizes: of the clips.
        workers: processes; None for one per processor.
        progress: told of each file.
        max_triangles: of one file, see `AssetLimits`.
        max_texture: pixels of a texture.
        max_numbers: of an array, a vertex having three.
        animation: name or number; `ALL` for a clip of each that moves; None for what moves.
        begin: see `AnimationChoice`, as the next two.
        end: seconds.
        in_place: whether the object's way through space is taken out.

    Raises:
        InputError: if a folder holds no such file.
        ConfigError, WorkerError, StoreError, OSError: as `make_records` does.
    """
    _check(_limits(sizes, seed, workers))
    split_of(seed, seed + MESH_SEEDS - 1)
    files = sorted({real_path(file) for source in sources for file in _files(source)})
    limits = AssetLimits(max_triangles=max_triangles, max_texture=max_texture, max_numbers=max_numbers)
    if begin is not None and end is not None and begin >= end:
        raise ConfigError(f"--from must come before --to; got {begin:g} and {end:g}")
    choice = AnimationChoice(animation=animation, begin=begin, end=end, in_place=in_place)
    jobs = [ClipJob(str(file), sizes.spec(seed), file, limits, choice) for file in files]
    if animation == ALL:
        jobs = list(_for_each_animation(jobs, workers, progress))
    return _fill(folder, jobs, sizes, workers, progress)


def record(folder: Path, job: ClipJob) -> tuple[Row, bool]:
    """Makes the clip of a job unless it is there: its row, and whether it was made now. What a worker does.

    Whatever one object of thousands breaks must not end the others: its row, the log and the exit code tell of it.

    Raises:
        StoreError, OSError: if the clip cannot be stored.
    """
    started = time.perf_counter()
    try:
        asset, spec, made_from = _prepared(job)
    except Exception as error:
        return _failed(job, error, time.perf_counter() - started), False
    if found := stored_row(folder, job.id, made_from):
        return found, False
    try:
        family = IMPORTED if asset else spec.family or family_of(spec.seed)
        mesh = asset.mesh if asset else make_object(family, spec.seed, spec.num_frames)
        clip = film(mesh, spec, family, FPS)
        if asset:
            _refuse_empty_frames(clip, job)
        shown = Shown.of(mesh, str(asset.play) if asset else None)
    except Exception as error:
        return _failed(job, error, time.perf_counter() - started), False
    return write_clip(folder, job.id, made_from, clip, time.perf_counter() - started, shown), True


def _prepared(job: ClipJob) -> tuple[Asset | None, ClipSpec, dict[str, Any]]:
    """An imported job's asset, the clip's final specification, and its recipe."""
    if job.asset is None:
        return None, job.spec, recipe(job.spec)
    asset = load_asset(job.asset, job.spec.num_frames, FPS, choice=job.choice, limits=job.limits)
    digest = _digest(asset.mesh, job.asset)
    spec = replace(job.spec, seed=job.spec.seed + int(digest, 16) % MESH_SEEDS)
    return asset, spec, recipe(spec, digest)


def _for_each_animation(jobs: Sequence[ClipJob], workers: int | None, progress: Progress) -> Iterator[ClipJob]:
    """A job for each animation that moves; for a file with none, or that cannot be read, the one that says so."""
    for count, (job, found) in enumerate(answers(_moving_animations, jobs, workers)):
        progress(count + 1, len(jobs))
        choices = [(f"{job.id}#{name}", index) for index, name in found or ()]
        if len({name for name, _ in choices}) < len(choices):  # names that files use twice
            choices = [(f"{name}.{index}", index) for name, index in choices]
        for name, index in choices:
            yield replace(job, id=name, choice=replace(job.choice, animation=index))
        if not choices:
            yield replace(job, choice=replace(job.choice, animation=None))


def _moving_animations(job: ClipJob) -> tuple[str, list[tuple[int, str]]]:
    """The job's name, and the animations of its file that move; none of a file that cannot be read."""
    assert job.asset is not None
    try:
        found = moving(job.asset, job.limits)
    except Exception:  # the row of the job tells of it
        return job.id, []
    return job.id, [(way.animation, way.name) for way in found if way.animation is not None]


def _fill(folder: Path, jobs: Sequence[ClipJob], sizes: Sizes, workers: int | None, progress: Progress) -> MadeRecords:
    """The rows of all jobs, in the manifest, too; also of those that are done when something ends this early."""
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_other_sizes(folder, sizes)
    rows: dict[str, Row] = {}
    for job in jobs:
        if job.asset is None and (found := stored_row(folder, job.id, recipe(job.spec))):
            rows[job.id] = found
    todo = [job for job in jobs if job.id not in rows]
    progress(len(rows), len(jobs))
    num_made, written = 0, time.monotonic()
    try:
        for row, made in _recorded(folder, todo, workers):
            rows[row.id] = row
            num_made += made
            _warn(row)
            progress(len(rows), len(jobs))
            if time.monotonic() - written > MANIFEST_SECONDS:
                update_manifest(folder, rows.values())
                written = time.monotonic()
    finally:
        update_manifest(folder, rows.values())
    return MadeRecords(tuple(rows.values()), num_made, time.perf_counter() - started)


def _warn(row: Row) -> None:
    """Says what a user may want to do about a clip."""
    if row.error is not None:
        _log.warning("left out %s: %s", row.id, row.error)
    elif row.still:
        _log.warning(
            "%s stands still: %s; it is flagged in the manifest (still)", row.id, row.animation or "nothing moves"
        )
    elif row.fill is not None and row.fill < LEAST_FILL and row.family == IMPORTED:
        _log.warning(
            "%s moves so far that it fills %.0f %% of the grid at a time; --root-motion remove keeps it in place",
            row.id,
            row.fill * 100,
        )


def _recorded(folder: Path, jobs: Sequence[ClipJob], workers: int | None) -> Iterator[tuple[Row, bool]]:
    """What `record` gives for each job; one that ends its process gets a row that says so.

    Raises:
        StoreError, OSError: see `record`.
    """
    for job, made in answers(partial(_named_record, folder), jobs, workers):
        if made is None:
            reason = f"{job.id} ended the process that made its clip: it is damaged, or needs too much memory"
            made = _failed(job, InputError(reason), 0.0), False
        yield made


def _named_record(folder: Path, job: ClipJob) -> tuple[str, tuple[Row, bool]]:
    return job.id, record(folder, job)


def _refuse_empty_frames(clip: TrainingClip, job: ClipJob) -> None:
    shown = torch.bincount(clip.coords[:, 1].long(), minlength=clip.num_frames)
    if bool((shown == 0).any()):
        raise InputError(f"{job.asset} shows nothing in frame {int(shown.argmin())} of the clip; give one that does.")


def _digest(mesh: AnimatedMesh, path: Path) -> str:
    """A hash of the mesh, the same for equal meshes wherever they lie."""
    if len(mesh.faces) == 0 or not np.isfinite(mesh.vertices).all():
        raise InputError(f"{path} has no surface: no triangles, no extent, or positions that are not numbers.")
    total = hashlib.sha256()
    for array in (mesh.vertices, mesh.faces, mesh.colors, mesh.stored_normals, mesh.opacity, mesh.one_sided):
        if array is not None:
            total.update(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _failed(job: ClipJob, error: Exception, seconds: float) -> Row:
    spec = job.spec
    reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return Row(
        id=job.id,
        family=IMPORTED if job.asset else spec.family or family_of(spec.seed),
        seed=spec.seed,
        frames=spec.num_frames,
        size=spec.input_size,
        views=spec.num_views,
        resolution=spec.resolution,
        voxels=0,
        key=None,
        seconds=round(seconds, 3),
        split=split_of(spec.seed, spec.seed),
        error=reason,
    )


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    files = [path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not files:
        raise InputError(f"{source} has no {' or '.join(SUFFIXES)} file; give a folder that has.")
    return files


def _refuse_other_sizes(folder: Path, sizes: Sizes) -> None:
    rows = read_manifest(folder) if (folder / MANIFEST).exists() else []
    for row in rows:
        held = replace(sizes, frames=row.frames, size=row.size, views=row.views, resolution=row.resolution)
        if row.key is not None and held != sizes:
            raise ConfigError(
                f"{folder} holds clips of --frames {held.frames} --size {held.size} --views {held.views} --resolution "
                f"{held.resolution}; ask for the same, or take another folder"
            )


def _limits(sizes: Sizes, seed: int, workers: int | None) -> dict[str, tuple[int, int]]:
    """Options and the least they may be."""
    if seed > MAX_FIRST_SEED:
        raise ConfigError(f"--seed must be at most {MAX_FIRST_SEED}; got {seed}")
    return {
        "--seed": (seed, 0),
        "--frames": (sizes.frames, 1),
        "--size": (sizes.size, 8),
        "--views": (sizes.views, 1),
        "--resolution": (sizes.resolution, 2),
        "--workers": (1 if workers is None else workers, 1),
    }


def _check(limits: dict[str, tuple[int, int]]) -> None:
    for option, (value, least) in limits.items():
        if value < least:
            raise ConfigError(f"{option} must be at least {least}; got {value}")
