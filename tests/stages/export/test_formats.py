"""Every format read back by a reader that is not ours, drawn, and compared: axes, scale, colors, opacity, times."""

import gzip
import hashlib
import json
import struct
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import trimesh
from pxr import Usd, UsdGeom
from torch.testing import assert_close

from ss4d.stages.errors import InputError
from ss4d.stages.export import glb_file, packages
from ss4d.stages.export.config import ExportConfig, FormatName
from ss4d.stages.export.formats import FORMATS, write_formats
from ss4d.stages.types import GaussianClip, silent
from tests.helpers.foreign_readers import SH_C0, Glb, gaussians, read_meshes, read_usd, read_with_gsply, read_zip
from tests.stages.export.clips import COUNTS, FPS, boxes, lopsided, mesh_psnr, psnr, scene_of

CLIP = lopsided(*COUNTS)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with every format."""
    folder = tmp_path_factory.mktemp("formats")
    write_formats(tuple(FORMATS), scene_of(CLIP), folder, progress=silent)
    return folder


def read(folder: Path, name: str, t: int) -> GaussianClip:
    """A frame as somebody else's program reads it."""
    readers: dict[str, Callable[[], GaussianClip]] = {
        "ply": lambda: read_with_gsply(folder / f"frames/frame{t + 1:04d}.ply"),
        "compressed_ply": lambda: read_with_gsply(folder / f"compressed/frame{t + 1:04d}.compressed.ply"),
        "spz": lambda: read_with_gsply(folder / f"spz/frame{t + 1:04d}.spz"),
        "4d.zip": lambda: read_zip(folder / "asset.4d.zip", t, folder / "unzipped"),
        "gaussian_glb": lambda: Glb(folder / "gaussians.glb").gaussians(t),
        "usd": lambda: read_usd(folder / "gaussians.usdc", t),
    }
    return readers[name]()


# dB of pictures of what was read against those of what was written: what rounding costs.
KEPT = {"ply": 100, "gaussian_glb": 100, "usd": 100, "compressed_ply": 45, "spz": 38, "4d.zip": 38}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_read_looks_like_what_was_written(exported: Path, name: str) -> None:
    for t in range(len(COUNTS)):
        frame, found = CLIP.frame(t), read(exported, name, t)
        assert len(found.means) == len(frame.means)
        assert psnr(found, frame) > KEPT[name]
        assert psnr(found, CLIP.frame((t + 1) % len(COUNTS))) < 30, "another frame looks otherwise"


def test_the_measure_sees_a_wrong_axis_color_scale_and_opacity() -> None:
    frame = CLIP.frame(1)
    wrong = {
        "means": frame.means * torch.tensor([-1.0, 1, 1]),
        "colors": frame.colors.flip(1),
        "scales": frame.scales * 1.3,
        "opacities": frame.opacities**2,
        "quats": frame.quats.roll(1, dims=1),
    }
    for name, values in wrong.items():
        parts = {part: getattr(frame, part) for part in ("means", "colors", "scales", "opacities", "quats", "offsets")}
        assert psnr(GaussianClip(**{**parts, name: values}), frame) < 33, name


def test_the_table_has_every_format_and_what_it_says_of_the_files(exported: Path, tmp_path: Path) -> None:
    assert tuple(FORMATS) == get_args(FormatName)
    for name, kind in FORMATS.items():
        folder = tmp_path / name
        folder.mkdir()
        told: list[tuple[int, int]] = []
        files = kind.write(scene_of(CLIP), folder, progress=lambda *step, told=told: told.append(step))
        assert sorted(files) == sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        assert all(file.endswith(kind.extension) for file in files)
        assert told == [(1, 3), (2, 3), (3, 3)]
        for file in files:
            first, second = (hashlib.sha256((place / file).read_bytes()).digest() for place in (folder, exported))
            assert first == second or kind.extension == ".usdc", "the same asset is the same bytes"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("counts", [(0,), (5, 0, 1), (257,)])
def test_empty_frames_and_single_ones_can_be_written(name: FormatName, counts: tuple[int, ...], tmp_path: Path) -> None:
    made = lopsided(*counts)
    write_formats([name], scene_of(made), tmp_path, progress=silent)
    for t, count in enumerate(counts):
        if name == "glb":
            assert (Glb(tmp_path / "mesh.glb").file.nodes[t].mesh is None) == (t == 2), "the box that is not there"
        elif name != "html" and count:
            assert psnr(read(tmp_path, name, t), made.frame(t)) > 35


def test_gaussians_at_the_brinks_stay_numbers(tmp_path: Path) -> None:
    some = lopsided(4)
    brink = GaussianClip(
        means=some.means,
        scales=torch.tensor([[0.0, 0, 0], [1e-12, 1, 1], [1e6, 1e6, 1e6], [0.1, 0.1, 0.1]]),
        quats=some.quats,
        colors=torch.tensor([[-9.0, 0, 0], [0, 9, 0], [0, 0, 1], [0.5, 0.5, 0.5]]),
        opacities=torch.tensor([0.0, 1.0, 1.0, 0.5]),
        offsets=some.offsets,
    )
    write_formats(tuple(FORMATS), scene_of(brink), tmp_path, progress=silent)
    for name in KEPT:
        found = read(tmp_path, name, 0)
        for part in ("means", "scales", "quats", "colors", "opacities"):
            assert getattr(found, part).isfinite().all(), (name, part)


def test_ply_files_name_the_filter(exported: Path) -> None:
    for name in ("frames/frame0001.ply", "compressed/frame0001.compressed.ply"):
        assert b"\ncomment SplatRenderMode: mip\n" in (exported / name).read_bytes()[:400]


def test_spz_is_version_3_and_says_that_it_is_antialiased(exported: Path) -> None:
    data = gzip.decompress((exported / "spz/frame0001.spz").read_bytes())
    assert struct.unpack("<4sIIBBBB", data[:16]) == (b"NGSP", 3, COUNTS[0], 0, 12, 1, 0)


def test_sizes_are_those_of_the_formats(exported: Path) -> None:
    size = {p.name: p.stat().st_size for p in exported.rglob("frame0001*") if "unzipped" not in p.parts}
    assert size["frame0001.ply"] > 68 * COUNTS[0]
    assert size["frame0001.compressed.ply"] < size["frame0001.ply"] / 3
    assert size["frame0001.spz"] < size["frame0001.ply"] / 3


def test_a_glb_shows_each_frame_in_its_time(exported: Path) -> None:
    glb = Glb(exported / "gaussians.glb")
    for t in range(len(COUNTS)):
        assert glb.shown_at(t / FPS + 1e-4) == glb.shown_at((t + 1) / FPS - 1e-4) == [t]
    ends = [glb.array(sampler.input)[-1, 0] for sampler in glb.file.animations[0].samplers]
    assert ends == pytest.approx([len(COUNTS) / FPS] * len(COUNTS)), "the last frame lasts as long as the others"
    assert [node.scale for node in glb.file.nodes] == [None, [0, 0, 0], [0, 0, 0]], "unanimated, the first one shows"


def test_a_glb_is_a_cloud_of_colored_points_elsewhere(exported: Path) -> None:
    clouds = list(trimesh.load(exported / "gaussians.glb").geometry.values())
    assert sorted(len(cloud.vertices) for cloud in clouds) == sorted(COUNTS)
    first = next(cloud for cloud in clouds if len(cloud.vertices) == COUNTS[0])
    x, y, z = CLIP.frame(0).means.unbind(1)
    assert_close(torch.tensor(first.vertices).float(), torch.stack([x, z, -y], dim=1))
    assert np.asarray(first.colors)[:, :3].std() > 20


def test_a_glb_that_cannot_be_is_refused(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glb_file, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match="max_gaussians"):
        FORMATS["gaussian_glb"].write(scene_of(CLIP), tmp_path, progress=silent)


def test_meshes_in_a_glb_are_those_that_were_written(exported: Path) -> None:
    """As pygltflib reads its bytes, and as trimesh makes a scene of it."""
    glb, scene, meshes = Glb(exported / "mesh.glb"), read_meshes(exported / "mesh.glb"), boxes(len(COUNTS))
    assert sorted(scene) == ["frame0001", "frame0002"], "the third one is empty"
    for t in range(2):
        for found in (glb.mesh(t), scene[f"frame{t + 1:04d}"]):
            frame = meshes.frame(t)
            assert_close(found.vertices, frame.vertices)
            assert torch.equal(found.faces, frame.faces)
            assert_close(found.uv, frame.uv)
            assert mesh_psnr(found, frame) > 38, "the texture is a JPEG file"
            assert mesh_psnr(found, meshes.frame(1 - t)) < 30


def test_a_glb_of_meshes_shows_each_frame_in_its_time_and_without_light(exported: Path) -> None:
    glb = Glb(exported / "mesh.glb")
    for t in range(len(COUNTS)):
        assert glb.shown_at(t / FPS + 1e-4) == glb.shown_at((t + 1) / FPS - 1e-4) == [t]
    assert [node.scale for node in glb.file.nodes] == [None, [0, 0, 0], [0, 0, 0]], "unanimated, the first one shows"
    assert all("KHR_materials_unlit" in material.extensions for material in glb.file.materials)
    assert glb.file.extensionsRequired in ([], None), "any program can open it"


def test_usd_points_play_with_changing_counts(exported: Path) -> None:
    stage = Usd.Stage.Open(str(exported / "points.usdc"))
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode(), stage.GetTimeCodesPerSecond()) == (0, 2, FPS)
    (prim,) = (prim for prim in stage.Traverse() if prim.IsA(UsdGeom.Points))
    points = UsdGeom.Points(prim)
    for t, count in enumerate(COUNTS):
        assert_close(torch.tensor(np.array(points.GetPointsAttr().Get(t))), CLIP.frame(t).means)
        assert len(points.GetWidthsAttr().Get(t)) == len(points.GetDisplayColorAttr().Get(t)) == count


def test_kaolin_reads_the_gaussians_of_a_usd(exported: Path) -> None:
    kaolin = pytest.importorskip("kaolin.io.usd.gaussians")
    for t in range(len(COUNTS)):
        found, frame = kaolin.import_gaussiancloud(str(exported / "gaussians.usdc"), time=t), CLIP.frame(t)
        colors = 0.5 + SH_C0 * found["sh_coeff"][:, 0]
        parts = [found[name].float() for name in ("positions", "scales", "orientations")]
        assert psnr(gaussians(*parts, colors.float(), found["opacities"].float()), frame) > 100


def test_without_usd_a_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="usd-core"):
        FORMATS["usd"].write(scene_of(CLIP), tmp_path, progress=silent)


def test_a_zip_says_all_that_is_needed_to_show_it(exported: Path) -> None:
    with zipfile.ZipFile(exported / "asset.4d.zip") as archive:
        names = archive.namelist()
        scene = json.loads(archive.read("scene.json"))
        assert archive.testzip() is None
    assert sorted(names) == sorted(["scene.json", *(frame["file"] for frame in scene["frames"])])
    assert [frame["gaussians"] for frame in scene["frames"]] == list(COUNTS)
    assert all(b["time"] - a["time"] == pytest.approx(1 / FPS) for a, b in pairwise(scene["frames"]))
    assert scene["filter"] == {"name": "mip", "variance": 0.1, "compensate": True}
    x, y, z = CLIP.means.unbind(1)
    points = torch.stack([x, z, -y], dim=1)
    assert_close(torch.tensor(scene["bounds"]["min"]), points.amin(0))
    assert_close(torch.tensor(scene["bounds"]["max"]), points.amax(0))
    turned = CLIP.means.double() @ torch.tensor(scene["spz_from_world"], dtype=torch.float64).T
    assert_close(turned.float(), points)
    assert len(scene["cameras"]["cameras"]) == 6


@pytest.mark.parametrize("wrong", [["ply", "ply"], ["obj"], "ply", [1]])
def test_formats_that_are_none_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="formats"):
        ExportConfig.model_validate({"formats": wrong})


def test_the_order_of_formats_makes_no_difference() -> None:
    assert ExportConfig(formats=("spz", "ply")) == ExportConfig(formats=("ply", "spz"))
