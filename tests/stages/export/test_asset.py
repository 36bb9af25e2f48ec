"""The exported files, read back the way others read them."""

import hashlib
import json
import math
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from ss4d.stages.export.asset import export_asset
from ss4d.stages.export.config import ExportConfig
from ss4d.stages.export.ply import encode_ply
from ss4d.stages.export.turntable import plan_turntable
from ss4d.stages.ops.geometry import orbit_camera, quaternion_to_matrix
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import GaussianClip

QUICK = ExportConfig(size=48, frames=6)
PROPERTIES = [
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
]


def clip(*counts: int) -> GaussianClip:
    draw = torch.Generator().manual_seed(0)
    size = sum(counts)
    return GaussianClip(
        means=torch.rand(size, 3, generator=draw) - 0.5,
        scales=0.02 + 0.05 * torch.rand(size, 3, generator=draw),
        quats=torch.nn.functional.normalize(torch.randn(size, 4, generator=draw), dim=-1),
        colors=torch.rand(size, 3, generator=draw),
        opacities=torch.rand(size, generator=draw),
        offsets=torch.tensor([0, *np.cumsum(counts)]),
    )


def read_ply(path: Path) -> dict[str, torch.Tensor]:
    """A PLY of float properties as the papers' viewers understand it: activated values in the file's own space."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "comment SplatRenderMode: mip"]
    count = int(lines[3].removeprefix("element vertex "))
    assert [line.removeprefix("property float ") for line in lines[4:]] == PROPERTIES
    table = np.frombuffer(body, "<f4").reshape(count, len(PROPERTIES)).astype(np.float64)
    columns = dict(zip(PROPERTIES, torch.from_numpy(table).unbind(1), strict=True))

    def stack(*names: str) -> torch.Tensor:
        return torch.stack([columns[name] for name in names], dim=-1)

    assert not stack("nx", "ny", "nz").any()
    return {
        "means": stack("x", "y", "z"),
        "colors": 0.5 + 0.28209479177387814 * stack("f_dc_0", "f_dc_1", "f_dc_2"),
        "opacities": columns["opacity"].sigmoid(),
        "scales": stack("scale_0", "scale_1", "scale_2").exp(),
        "quats": stack("rot_0", "rot_1", "rot_2", "rot_3"),
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """A clip of three frames, the second of them empty."""
    folder = tmp_path_factory.mktemp("asset")
    return folder, export_asset(QUICK, clip(40, 0, 30), 24.0, folder, render=rasterize)


def test_the_files_named_are_the_files_there(exported: tuple[Path, tuple[str, ...]]) -> None:
    folder, files = exported
    plys = ("frames/frame0001.ply", "frames/frame0002.ply", "frames/frame0003.ply")
    assert files == (*plys, "cameras.json", "turntable.mp4")
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(files)


def test_a_ply_reads_back_as_the_frame_turned_y_down(exported: tuple[Path, tuple[str, ...]]) -> None:
    frame = clip(40, 0, 30).frame(2)
    read = read_ply(exported[0] / "frames/frame0003.ply")
    x, y, z = frame.means.double().unbind(-1)
    assert torch.equal(read["means"], torch.stack((x, -z, y), dim=-1))
    for name in ("colors", "opacities", "scales"):
        assert_close(read[name], getattr(frame, name).double(), atol=1e-6, rtol=1e-6)


def test_rotations_in_a_ply_turn_with_the_centers(exported: tuple[Path, tuple[str, ...]]) -> None:
    frame = clip(40, 0, 30).frame(0)
    read = read_ply(exported[0] / "frames/frame0001.ply")
    x, y, z = quaternion_to_matrix(frame.quats.double()).unbind(1)  # the rows: where each axis' coordinates go
    assert_close(quaternion_to_matrix(read["quats"]), torch.stack((x, -z, y), dim=1), atol=1e-6, rtol=0)


def test_an_empty_frame_is_a_valid_ply_without_vertices(exported: tuple[Path, tuple[str, ...]]) -> None:
    assert read_ply(exported[0] / "frames/frame0002.ply")["means"].shape == (0, 3)


def test_the_brinks_of_opacity_and_scale_stay_finite(tmp_path: Path) -> None:
    one = clip(2)
    brink = GaussianClip(
        means=one.means,
        scales=torch.zeros(2, 3),
        quats=one.quats,
        colors=one.colors,
        opacities=torch.tensor([0.0, 1.0]),
        offsets=one.offsets,
    )
    (tmp_path / "brink.ply").write_bytes(encode_ply(brink))
    read = read_ply(tmp_path / "brink.ply")
    assert all(values.isfinite().all() for values in read.values())
    assert_close(read["opacities"], torch.tensor([0.0, 1.0], dtype=torch.float64), atol=2e-6, rtol=0)
    assert read["scales"].max() < 1e-8


def test_cameras_say_how_each_picture_was_taken(exported: tuple[Path, tuple[str, ...]]) -> None:
    document = json.loads((exported[0] / "cameras.json").read_text())
    assert document["fps"] == 24
    assert document["ply_from_world"] == [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    assert [camera["frame"] for camera in document["cameras"]] == [0, 1, 2, 0, 1, 2]
    assert [camera["yaw"] for camera in document["cameras"]] == pytest.approx([180, 240, 300, 0, 60, 120])
    for entry in document["cameras"]:
        camera = orbit_camera(entry["yaw"], entry["pitch"], size=48, radius=entry["radius"], fov=entry["fov"])
        assert_close(torch.tensor(entry["world_to_camera"]), torch.tensor(camera.world_to_camera), atol=1e-7, rtol=0)
        assert entry["intrinsics"] == pytest.approx({"fx": camera.focal, "fy": camera.focal, "cx": 24, "cy": 24})


def test_without_the_video_the_cameras_are_the_same(exported: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"turntable": False, "formats": ()})
    assert export_asset(config, clip(40, 0, 30), 24.0, tmp_path, render=rasterize) == ("cameras.json",)
    assert (tmp_path / "cameras.json").read_bytes() == (exported[0] / "cameras.json").read_bytes()


def test_the_turntable_plays_in_browsers_and_shows_what_the_cameras_say(
    exported: tuple[Path, tuple[str, ...]],
) -> None:
    path = exported[0] / "turntable.mp4"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index comes first, so that playing starts at once"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 24
        pictures = [picture.to_ndarray(format="rgb24") for picture in container.decode(stream)]
    cameras = json.loads((exported[0] / "cameras.json").read_text())["cameras"]
    assert len(pictures) == len(cameras) == 6
    for entry, picture in zip(cameras, pictures, strict=True):
        camera = orbit_camera(entry["yaw"], entry["pitch"], size=48)
        rgb, _ = rasterize(clip(40, 0, 30).frame(entry["frame"]), camera, background=(1.0, 1.0, 1.0))
        difference = np.abs(picture / 255 - rgb.numpy().clip(0, 1)).mean()
        assert difference < 0.03, "video coding costs less than showing another frame or side would"


def test_the_same_clip_gives_the_same_bytes(exported: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    files = export_asset(QUICK, clip(40, 0, 30), 24.0, tmp_path, render=rasterize)
    for name in files:
        first, second = (hashlib.sha256((folder / name).read_bytes()).digest() for folder in (exported[0], tmp_path))
        assert first == second, name


def test_progress_counts_every_file_and_picture(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    export_asset(QUICK, clip(5), 24.0, tmp_path, render=rasterize, progress=lambda *step: told.append(step))
    assert told == [(done, 7) for done in range(1, 8)]


@pytest.mark.parametrize("num_frames", [1, 2, 5, 32, 200])
@pytest.mark.parametrize("fps", [0.5, 5.0, 24.0, 60.0])
def test_a_turntable_is_a_loop_that_begins_at_the_front(num_frames: int, fps: float) -> None:
    table = plan_turntable(num_frames, fps, least=96, turns=1, pitch=10, size=16)
    hold = round(table.fps / fps)
    assert table.fps == pytest.approx(hold * fps)
    assert table.fps >= 12
    assert len(table.shots) >= 96
    assert len(table.shots) % (num_frames * hold) == 0, "whole loops of the clip"
    assert [shot.frame for shot in table.shots[:: max(1, hold)]][:num_frames] == list(range(num_frames))
    assert table.shots[0].yaw == 180
    steps = {
        round((b.yaw - a.yaw) % 360, 6) for a, b in zip(table.shots, [*table.shots[1:], table.shots[0]], strict=True)
    }
    assert steps == {round(360 / len(table.shots), 6)}, "an even turn that ends where it began"


@pytest.mark.parametrize("wrong", [{"size": 0}, {"frames": 0}, {"pitch": math.nan}, {"background": 2.0}, {"color": 1}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ExportConfig.model_validate(wrong)
