"""PLY, compressed PLY and SPZ through PlayCanvas's converter, where it is installed; it needs node 20.

npm install --global @playcanvas/splat-transform@3.7.0
"""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from ss4d.stages.export.formats import write_formats
from ss4d.stages.export.scene import GL_FROM_WORLD, PLY_FROM_WORLD
from ss4d.stages.ops.geometry import quaternion_product, rotate_gaussians
from ss4d.stages.types import silent
from tests.helpers.foreign_readers import read_with_gsply
from tests.stages.export.clips import lopsided, psnr, scene_of

COMMAND = shutil.which("splat-transform")
CLIP = lopsided(600)


@pytest.mark.skipif(COMMAND is None, reason="splat-transform is not installed: see this file's first lines")
@pytest.mark.parametrize(
    ("name", "file", "least"),
    [
        ("ply", "frames/frame0001.ply", 100),
        ("compressed_ply", "compressed/frame0001.compressed.ply", 45),
        ("spz", "spz/frame0001.spz", 38),
    ],
)
def test_it_reads_them_and_hands_the_filter_on(name: str, file: str, least: float, tmp_path: Path) -> None:
    write_formats([name], scene_of(CLIP), tmp_path, progress=silent)  # type: ignore[list-item]
    assert COMMAND is not None
    subprocess.run([COMMAND, "-w", file, "out.ply"], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    found = read_with_gsply(tmp_path / "out.ply")
    if name == "spz":  # whose numbers it takes for those of a PLY
        back = GL_FROM_WORLD * torch.tensor([1.0, -1, -1, -1])
        found = rotate_gaussians(found, quaternion_product(back, PLY_FROM_WORLD))
    assert psnr(found, CLIP) > least
    if name != "compressed_ply":
        assert b"SplatRenderMode: mip" in (tmp_path / "out.ply").read_bytes()[:500]
