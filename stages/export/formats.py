"""The formats that an asset is exported to, by name: a new one is a writer in a file of its own, and a row here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ss4d.stages.export.compressed_ply import write_compressed_plys
from ss4d.stages.export.config import FormatName
from ss4d.stages.export.gaussian_glb import write_gaussian_glb
from ss4d.stages.export.html import write_html
from ss4d.stages.export.mesh_glb import write_mesh_glb
from ss4d.stages.export.ply import write_plys
from ss4d.stages.export.scene import Scene
from ss4d.stages.export.sequence_zip import write_sequence_zip
from ss4d.stages.export.spz import write_spzs
from ss4d.stages.export.usd import write_usd
from ss4d.stages.types import Progress


class Writer(Protocol):
    """What every writer is called like: it writes into a folder, tells after each frame, and gives the files' names."""

    def __call__(self, scene: Scene, folder: Path, *, progress: Progress) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        write: its writer.
        extension: of its files.
    """

    write: Writer
    extension: str


FORMATS: Mapping[FormatName, Format] = {
    "ply": Format(write_plys, ".ply"),
    "compressed_ply": Format(write_compressed_plys, ".compressed.ply"),
    "spz": Format(write_spzs, ".spz"),
    "glb": Format(write_mesh_glb, ".glb"),
    "gaussian_glb": Format(write_gaussian_glb, ".glb"),
    "usd": Format(write_usd, ".usdc"),
    "4d.zip": Format(write_sequence_zip, ".4d.zip"),
    "html": Format(write_html, ".html"),
}


def write_formats(names: Sequence[FormatName], scene: Scene, folder: Path, *, progress: Progress) -> tuple[str, ...]:
    """Writes an asset in some formats and gives the files' names, relative to `folder`.

    Args:
        names: of the formats.
        scene: the asset.
        folder: where; it exists.
        progress: told after each frame of each format.

    Raises:
        InputError: a format cannot hold the asset, or its package is not installed.
    """
    total = len(names) * scene.num_frames
    written: list[str] = []
    for number, name in enumerate(names):

        def told(done: int, _: int, before: int = number * scene.num_frames) -> None:
            progress(before + done, total)

        written += FORMATS[name].write(scene, folder, progress=told)
    return tuple(written)
