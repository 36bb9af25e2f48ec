"""A whole run of two frames, by a model folder of the published layout that is made for it, with random weights."""

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ss4d.pipelines.doctor.extent import RUN_FRAMES, RUN_STEPS
from ss4d.pipelines.doctor.findings import Check
from ss4d.pipelines.prepare import RunOptions
from ss4d.pipelines.run import LogReporter, run_clip
from ss4d.pipelines.run_record import RECORD
from ss4d.pipelines.values import read_value
from ss4d.stages.nn.image_encoders import VisionTransformerArgs
from ss4d.stages.published import Changes, write_random_model
from ss4d.stages.roles import GAUSSIAN_DECODER, LATENT_FLOW, STRUCTURE_DECODER, STRUCTURE_FLOW
from ss4d.stages.types import GaussianClip
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import open_store

LOG = logging.getLogger("ss4d")
GROUP = "two frames"
NEEDED_DISK = 6 * 2**30  # bytes, of the published size
_SMALL = {"model_channels": 64, "num_blocks": 2, "num_heads": 2}
_SMALL_FLOW = _SMALL | {"cond_channels": 48}
REDUCED: Changes = {
    STRUCTURE_FLOW: _SMALL_FLOW | {"resolution": 4},
    STRUCTURE_DECODER: {"channels": [32, 16, 8]},
    LATENT_FLOW: _SMALL_FLOW | {"resolution": 16, "io_block_channels": [32], "io_block_channels_t": [64]},
    GAUSSIAN_DECODER: _SMALL | {"resolution": 16},
}
REDUCED_ENCODER = VisionTransformerArgs(image_size=56, patch_size=14, model_channels=48, num_blocks=2, num_heads=2)


def run_checks(device: str, size: str, precision: str) -> Iterator[Check]:
    """Makes the folder and runs it, in a temporary folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ss4d-doctor-") as name:
        folder = Path(name)
        free = shutil.disk_usage(folder).free
        if size == "published" and free < NEEDED_DISK:
            says = f"takes {NEEDED_DISK / 2**30:.0f} GiB of {folder.parent}, which has {free / 2**30:.1f}: set TMPDIR"
            yield Check(group=GROUP, name="run", state="skipped", says=says)
            return
        reduced = size == "reduced"
        LOG.info("makes a model folder of random weights%s", "" if reduced else ", 4 GB: a minute or two")
        encoder = write_random_model(
            folder / "model",
            seed=0,
            changes=REDUCED if reduced else None,
            encoder=REDUCED_ENCODER if reduced else None,
        )
        options = RunOptions(
            source=_clip(folder / "clip"),
            out=folder / "out",
            config="ss4d",
            overrides=(
                f"model={folder / 'model'}",
                f"image_encoder={'null' if reduced else encoder}",
                f"precision={precision}",
                f"sparse_structure.sampler.steps={RUN_STEPS}",
                f"slat.sampler.steps={RUN_STEPS}",
                "export.frames=4",
                f"export.size={128 if reduced else 512}",
            ),
            device=device,
            engine="direct",
        )
        run = run_clip(options, LogReporter())
        record = json.loads((run / RECORD).read_text())
        yield from _stages(record)
        yield _asset(folder / "out" / "store", record)


def _clip(folder: Path) -> Path:
    """Two frames of a disc that moves, with alpha."""
    folder.mkdir()
    rows, columns = np.mgrid[:256, :256]
    for frame in range(RUN_FRAMES):
        inside = (rows - 128) ** 2 + (columns - 120 - 16 * frame) ** 2 < 80**2
        pixels = np.stack([rows, columns, 255 - rows, 255 * inside], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{frame}.png")
    return folder


def _stages(record: Mapping[str, Any]) -> Iterator[Check]:
    for stage, done in record["stages"].items():
        memory = f"of the process {done['peak_memory_mib']:,} MiB"
        memory += f", of the device {done['peak_device_memory_mib']:,} MiB" if record["device"] == "cuda" else ""
        numbers = {name: done[name] for name in ("seconds", "peak_memory_mib", "peak_device_memory_mib")}
        says = f"{done['seconds']:.2f} s, peak {memory}"
        yield Check(group=GROUP, name=stage, state="ok", says=says, numbers=numbers)


def _asset(store: Path, record: Mapping[str, Any]) -> Check:
    """Whether both frames have Gaussians, all of whose numbers are numbers."""
    artifact = open_store(str(store)).open(ArtifactRef("decoding", record["stages"]["decoding"]["key"]))
    clip = read_value(GaussianClip, artifact)
    counts = clip.offsets.diff().tolist()
    parts = ("means", "scales", "quats", "colors", "opacities")
    broken = [part for part in parts if not getattr(clip, part).isfinite().all()]
    right = not broken and len(counts) == RUN_FRAMES and min(counts) > 0
    says = f"{' and '.join(f'{count:,}' for count in counts)} Gaussians"
    says += f"; not all numbers: {', '.join(broken)}" if broken else ", all of finite numbers"
    return Check(group=GROUP, name="asset", state="ok" if right else "failed", says=says, numbers={"counts": counts})
