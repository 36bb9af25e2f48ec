"""Clips of animated asset files, made once and kept: every animation that moves, at other times and from other sides.

A clip's number decides all of it: its animation, the moment it begins, its camera and its light.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from ss4d.stages.data.clip import HELD_OUT_SEED, REVISION, ClipSpec, TrainingClip, film
from ss4d.stages.data.mesh import AnimatedMesh
from ss4d.stages.data.objects import FPS
from ss4d.stages.errors import InputError
from ss4d.stages.training.clips import ClipStore, draw, one_thread, pack, read_clip, side_by_side
from ss4d.stages.training.files import write_whole
from ss4d.stages.types import Progress

if TYPE_CHECKING:
    from ss4d.stages.data.gltf_choice import Moving

LOG = logging.getLogger("ss4d.training")

SUFFIXES = (".glb", ".gltf")
SIDES = 3  # clips in a row that show the same moment from other cameras: an asset takes longer to read than to film
READING = 2  # raised whenever files are read in another way, so that clips of before are made anew


@dataclass(frozen=True)
class Motion:
    """One way in which a file moves."""

    file: Path
    way: "Moving"


@dataclass(frozen=True)
class AssetPool:
    """Clips of assets by number, each made when first read and kept as a file.

    Attributes:
        folder: of the clips.
        motions: what is filmed, in turns.
        spec: what to make; its seed is replaced.
        seed: decides every clip.
        size: clips.
    """

    folder: Path
    motions: Sequence[Motion]
    spec: ClipSpec
    seed: int
    size: int

    def __len__(self) -> int:
        return self.size

    def read(self, index: int) -> TrainingClip:
        file = self.folder / f"{index:06d}.safetensors"
        if file.exists():
            try:
                return read_clip(file)
            except InputError as error:
                LOG.warning("%s; it is made again", error)
        write_whole(file, pack(self._made(index)), durable=False)
        return read_clip(file)

    def make(self, workers: int, progress: Progress) -> None:
        """Makes the clips that are not there yet, by so many processes; `progress` hears after every moment."""
        moments = [range(begin, min(begin + SIDES, self.size)) for begin in range(0, self.size, SIDES)]
        missing = [
            [index for index in moment if not (self.folder / f"{index:06d}.safetensors").exists()] for moment in moments
        ]
        jobs = [indices for indices in missing if indices]
        done = self.size - sum(map(len, jobs))
        for indices, _ in zip(jobs, side_by_side(self._make_moment, jobs, workers), strict=True):
            done += len(indices)
            progress(done, self.size)

    def _make_moment(self, indices: Sequence[int]) -> None:
        with one_thread():
            for index in indices:
                self.read(index)

    def _made(self, index: int) -> TrainingClip:
        moment = index // SIDES
        motion = self.motions[moment % len(self.motions)]
        share = draw(self.seed, "moment", moment, below=2**20) / 2**20
        begin = motion.way.begin + share * (motion.way.end - motion.way.begin)
        mesh = _mesh(motion.file, motion.way.animation, self.spec.num_frames, begin)
        spec = replace(self.spec, seed=draw(self.seed, "asset", index, below=HELD_OUT_SEED))
        return film(mesh, spec, motion.file.stem, FPS)


def asset_pool(folder: Path, assets: Path, spec: ClipSpec, seed: int, size: int) -> AssetPool:
    """The clips of the asset files in the folder `assets`, kept in `folder`.

    Raises:
        InputError: if no file there can be used, or `folder` holds clips of other files or of another kind.
    """
    digests = {file: blake2b(file.read_bytes(), digest_size=8).hexdigest() for file in asset_files(assets)}
    folder.mkdir(parents=True, exist_ok=True)
    motions = _motions(folder / "motions.json", digests)
    if not motions:
        raise InputError(f"{assets} holds no asset that moves: give a folder with animated .glb or .gltf files")
    named = {file.name: digest for file, digest in digests.items()}
    content = json.dumps(
        {**spec.decides(), "seed": seed, "revision": REVISION, "assets": named, "reading": READING}, indent=1
    )
    label = folder / "pool.json"
    if not label.exists():
        write_whole(label, content.encode())
    if label.read_text() != content:
        raise InputError(f"{folder} holds clips made in another way; delete it, or choose another folder")
    return AssetPool(folder, motions, spec, seed, size)


def asset_files(folder: Path) -> list[Path]:
    """The asset files in a folder, at any depth, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _motions(kept: Path, digests: Mapping[Path, str]) -> list[Motion]:
    """The ways in which files with these digests move, which takes half a second each to see and is `kept`."""
    # Training on made clips alone needs no package that reads files.
    from ss4d.stages.data.gltf_choice import Moving

    try:
        known = {
            digest: [Moving(**way) for way in ways]
            for digest, ways in json.loads(kept.read_text())[str(READING)].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not kept yet, or damaged
        known = {}
    new = {digest: ways for file, digest in digests.items() if digest not in known and (ways := _moving(file))}
    if new:
        known |= new
        content = {READING: {digest: [asdict(way) for way in ways] for digest, ways in known.items()}}
        write_whole(kept, json.dumps(content, indent=1).encode(), durable=False)
    return [Motion(file, way) for file, digest in digests.items() for way in known.get(digest, [])]


def _moving(file: Path) -> "list[Moving]":
    """The ways in which a file moves; none, with a warning, of a file that cannot be used."""
    from ss4d.stages.data.gltf import moving

    try:
        return moving(file, together=True)
    except InputError as error:
        LOG.warning("left out: %s", error)
        return []


@lru_cache(maxsize=1)
def _mesh(file: Path, animation: int | None, num_frames: int, begin: float) -> AnimatedMesh:
    from ss4d.stages.data.gltf import load_animated
    from ss4d.stages.data.gltf_choice import AnimationChoice

    return load_animated(file, num_frames, FPS, choice=AnimationChoice(animation=animation, begin=begin))


class MixedClips:
    """Two stores as one, in which clips of the second are drawn so often that they have a share of the whole.

    Args:
        first: each of its clips comes once.
        second: its clips come as often as it takes.
        share: of the second, 0 to less than 1.
    """

    def __init__(self, first: ClipStore, second: ClipStore, share: float) -> None:
        self._first, self._second = first, second
        self._size = round(len(first) / (1 - share))

    def __len__(self) -> int:
        return self._size

    def read(self, index: int) -> TrainingClip:
        """The clip with this number."""
        if index < len(self._first):
            return self._first.read(index)
        return self._second.read(draw("mixed", index, below=len(self._second)))
