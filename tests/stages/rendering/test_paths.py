"""Cameras from a file are those that wrote it, and a wrong file is told."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from ss4d.stages.errors import InputError
from ss4d.stages.export.cameras import camera_document
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.rendering.paths import file_path, orbit_path
from tests.stages.export.clips import lopsided, scene_of

CLIP = lopsided(200, 150, 100)
DOCUMENT: Any = camera_document(scene_of(CLIP).turntable, None)


def write(folder: Path, document: Any) -> Path:
    (folder / "cameras.json").write_text(json.dumps(document))
    return folder / "cameras.json"


def draw(path: Path, size: int | None = None) -> torch.Tensor:
    found = file_path(path, CLIP.num_frames, size)
    t, camera = found.shots[1]
    return rasterize(CLIP.frame(t), camera)[0]


def test_an_exports_cameras_are_read_as_they_were(tmp_path: Path) -> None:
    table = scene_of(CLIP).turntable
    found = file_path(write(tmp_path, DOCUMENT), CLIP.num_frames, None)
    assert found.fps == table.fps
    assert [t for t, _ in found.shots] == [shot.frame for shot in table.shots]
    for (_, camera), shot in zip(found.shots, table.shots, strict=True):
        assert_close(torch.tensor(camera.world_to_camera), torch.tensor(shot.camera.world_to_camera))
        assert (camera.focal, camera.width, camera.height) == pytest.approx((shot.camera.focal, 48, 48))


def test_another_size_shows_the_same(tmp_path: Path) -> None:
    large = draw(write(tmp_path, DOCUMENT), 96)
    small = large.view(48, 2, 48, 2, 3).mean((1, 3))
    assert (small - draw(tmp_path / "cameras.json")).abs().mean() < 0.01


def test_principal_point_and_unequal_focal_lengths_count(tmp_path: Path) -> None:
    plain = draw(write(tmp_path, DOCUMENT))
    moved = copy.deepcopy(DOCUMENT)
    moved["cameras"][1]["intrinsics"] |= {"cx": 24 + 5, "cy": 24 - 3}
    shown = draw(write(tmp_path, moved))
    # Not the same to the last bit: the shear bends the Jacobian a little.
    assert (shown[:-3, 5:] - plain[3:, :-5]).abs().mean() < 0.005 < (shown - plain).abs().mean()
    flat = copy.deepcopy(DOCUMENT)
    flat["cameras"][1]["intrinsics"]["fy"] /= 2
    rows = draw(write(tmp_path, flat)).sum((1, 2)) > 0.5
    assert rows.sum() < 0.65 * (plain.sum((1, 2)) > 0.5).sum()


@pytest.mark.parametrize(
    ("entry", "value", "told"),
    [
        ("frame", 3, "frame 3"),
        ("frame", -1, "frame"),
        ("width", 10**6, "width"),
        ("world_to_camera", [[1, 2]], "world_to_camera"),
        ("intrinsics", {"fx": 0, "fy": 1, "cx": 0, "cy": 0}, "fx"),
    ],
)
def test_cameras_that_cannot_be_are_told(entry: str, value: object, told: str, tmp_path: Path) -> None:
    wrong = copy.deepcopy(DOCUMENT)
    wrong["cameras"][2][entry] = value
    with pytest.raises(InputError, match=told):
        file_path(write(tmp_path, wrong), CLIP.num_frames, None)


@pytest.mark.parametrize("text", ["", "[]", '{"fps": 12, "cameras": []}', '{"fps": NaN, "cameras": []}', "\0"])
def test_files_of_something_else_are_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "cameras.json").write_text(text)
    with pytest.raises(InputError, match="no list of cameras"):
        file_path(tmp_path / "cameras.json", 3, None)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        file_path(tmp_path / "cameras.json", 3, None)


def test_an_orbit_is_the_turntables() -> None:
    path = orbit_path(3, 12.0, least=6, turns=1, pitch=15, size=48)
    assert [camera for _, camera in path.shots] == [shot.camera for shot in scene_of(CLIP).turntable.shots]
