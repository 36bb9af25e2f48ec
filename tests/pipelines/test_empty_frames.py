"""A frame in which the object is not seen is empty to the end, whatever is switched on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ss4d.pipelines.inspect.opened import open_run
from ss4d.pipelines.prepare import RunOptions
from ss4d.pipelines.run import run_clip
from tests.conftest import FAST, Silent

COUNT, EMPTY = 6, (0, 2, 3)
FITS = (
    "camera.method=auto",
    "structure_fit.method=masks",
    "structure_fit.steps=2",
    "camera_fit.method=auto",
    "appearance_fit.method=gaussians",
    "appearance_fit.steps=2",
    "appearance_fit.size=24",
)
WINDOWS = ("slat.window=4", "decoding.window=4")
INFLATED = ("decoding.method=inflation", "decoding.resolution=24")
MESHED = ("export.formats=[ply, glb]", "mesh.grid=16", "mesh.views=12", "mesh.faces=200", "mesh.texture=64")


@pytest.fixture(scope="module")
def leaving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disc on white, which is missing in the first and in neighboring frames."""
    folder = tmp_path_factory.mktemp("leaving")
    y, x = np.mgrid[:64, :64]
    for t in range(COUNT):
        frame = np.full((64, 64, 3), 250, np.uint8)
        if t not in EMPTY:
            frame[(x - 28 - 2 * t) ** 2 + (y - 32) ** 2 < 18**2] = 200, 60, 40
        Image.fromarray(frame).save(folder / f"{t}.png")
    return folder


@pytest.mark.parametrize(
    ("chosen", "fitted"),
    [
        (WINDOWS, "decoding"),
        ((*FITS, *WINDOWS), "appearance_fit"),
        ((*FITS, "appearance_fit.method=latents", *WINDOWS), "appearance_fit"),
        ((*INFLATED, *FITS[:1], *FITS[3:], *MESHED), "appearance_fit"),
    ],
    ids=["windows", "fits", "latents", "inflation"],
)
def test_a_frame_without_the_object_is_empty_to_the_end(
    leaving: Path, tmp_path: Path, model_folder: Path, chosen: tuple[str, ...], fitted: str
) -> None:
    kept = [word for word in FAST if INFLATED[0] not in chosen or word[:2] in ("se", "ex")]
    options = RunOptions(
        source=leaving,
        out=tmp_path,
        overrides=(f"model={model_folder}", *kept, *chosen),
        device="cpu",
        engine="direct",
        name="leaving",
    )
    run = open_run(run_clip(options, Silent()))
    seen = run["segmentation"].value().confidence > 0
    assert [t for t in range(COUNT) if not seen[t]] == [*EMPTY]
    for stage in {"decoding", fitted}:
        counts = np.diff(run[stage].value().offsets.numpy())
        assert [t for t in range(COUNT) if not counts[t]] == [*EMPTY], stage
    if "sparse_structure" in run:
        for stage in ("sparse_structure", "structure_fit"):
            if stage in run:
                assert set(run[stage].value().coords[:, 1].tolist()) == set(range(COUNT)) - {*EMPTY}, stage
    if "mesh" in run:
        assert [t for t in range(COUNT) if not run["mesh"].value().face_offsets.diff()[t]] == [*EMPTY]
    sizes = [(run.path / f"frames/frame{t + 1:04d}.ply").stat().st_size for t in range(COUNT)]
    assert max(sizes[t] for t in EMPTY) < min(sizes[t] for t in range(COUNT) if t not in EMPTY)
