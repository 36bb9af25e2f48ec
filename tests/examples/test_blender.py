"""The Blender script: its reader anywhere, and all that Blender shows where there is a Blender.

Blender as a package needs a numpy of its own, so it is installed apart, and the tests are told where:

python3.11 -m venv /opt/bpy && /opt/bpy/bin/pip install bpy==5.0.1
pytest tests/examples/test_blender.py --blender /opt/bpy/bin/python
"""

import importlib.util
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from ss4d.stages.export.cameras import write_cameras
from ss4d.stages.export.formats import write_formats
from ss4d.stages.export.frame_animation import animation_parts, frame_animation
from ss4d.stages.export.glb_file import GlbArrays, write_glb
from ss4d.stages.export.packing import linear_light
from ss4d.stages.export.usd import POINT_REACH
from ss4d.stages.ops.geometry import quaternion_to_matrix
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.types import GaussianClip, silent
from tests.helpers.places import ROOT
from tests.stages.export.clips import COUNTS, FPS, lopsided, scene_of

SCRIPT = ROOT / "examples" / "blender"
FACTS = Path(__file__).with_name("blender_facts.py")
CLIP = lopsided(*COUNTS)
SCENE = scene_of(CLIP)
CORNERS = ((-0.4, 0.1, -0.3), (0.4, 0.1, -0.3), (0.0, 0.1, 0.4))  # of the mesh's one triangle, in world space
PAINTS = ((1.0, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 1.0))  # of its frames, linear light


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with PLY files, USD, the cameras, and an animated GLB of a triangle."""
    folder = tmp_path_factory.mktemp("exported")
    write_formats(("ply", "gaussian_glb", "usd"), SCENE, folder, progress=silent)
    write_cameras(folder / "cameras.json", SCENE.turntable)
    arrays = GlbArrays()
    add = partial(arrays.add, 3, "VEC3")
    corners = np.array([(x, z, -y) for x, y, z in CORNERS], "<f4")
    meshes = [
        {
            "primitives": [
                {
                    "attributes": {"POSITION": add(min=corners.min(0).tolist(), max=corners.max(0).tolist())},
                    "material": t,
                }
            ]
        }
        for t in range(len(PAINTS))
    ]
    materials = [{"pbrMetallicRoughness": {"baseColorFactor": [*paint, 1]}} for paint in PAINTS]
    document = {
        "scene": 0,
        "scenes": [{"nodes": [0, 1, 2]}],
        "nodes": [{"name": f"frame{t + 1:04d}", "mesh": t} for t in range(len(PAINTS))],
        "meshes": meshes,
        "materials": [{**material, "doubleSided": True} for material in materials],
        "animations": [frame_animation(arrays, len(PAINTS), FPS)],
    }
    parts = [corners.tobytes()] * len(PAINTS)
    write_glb(folder / "mesh.glb", document, arrays, [*parts, *animation_parts(len(PAINTS), FPS)])
    return folder


def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, without Blender: what needs none of it can be called."""
    monkeypatch.setitem(sys.modules, "bpy", ModuleType("bpy"))
    monkeypatch.setitem(sys.modules, "mathutils", SimpleNamespace(Matrix=None))  # type: ignore[arg-type]
    found = importlib.util.spec_from_file_location("import_asset", SCRIPT / "import_asset.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def frame_matches(found: dict[str, Any], frame: GaussianClip) -> None:
    """Fails unless these are the frame's Gaussians."""
    values = {name: torch.tensor(np.array(column)).float() for name, column in found.items()}
    assert_close(values["position"], frame.means, atol=1e-6, rtol=0)
    assert_close(values["scale"], frame.scales, atol=1e-6, rtol=1e-5)
    turns = quaternion_to_matrix(values["rotation"]), quaternion_to_matrix(frame.quats)
    assert_close(*turns, atol=1e-5, rtol=0)
    assert_close(values["color"][:, :3], linear_light(frame.colors.clamp(0, 1)), atol=1e-5, rtol=0)
    assert_close(values["opacity"].flatten(), frame.opacities, atol=1e-5, rtol=0)


def test_its_reader_of_ply_files_gives_the_gaussians_in_world_space(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script(monkeypatch)
    for t, path in enumerate(sorted((exported / "frames").iterdir())):
        frame_matches(module.read_splats(path), CLIP.frame(t))
    assert module.read_turntable(exported).fps == FPS
    assert module.read_turntable(exported / "frames") is None
    assert module._files(exported, "mesh") == [exported / "mesh.glb"], "Gaussians in glTF are not Blender's"


def test_files_that_are_none_are_told(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script(monkeypatch)
    whole = (exported / "frames/frame0001.ply").read_bytes()
    wrong_ones = (b"", b"ply\n", whole[:-1], whole.replace(b"opacity", b"opaqueness"), whole.replace(b"600", b"six"))
    for number, data in enumerate(wrong_ones):
        path = tmp_path / f"{number}.ply"
        path.write_bytes(data)
        with pytest.raises(module.AssetError, match="no PLY file of Gaussians"):
            module.read_splats(path)
    for folder, wrong in ((tmp_path, "has no files that Blender can show"), (tmp_path / "none", "is no folder")):
        with pytest.raises(module.AssetError, match=wrong):
            module.import_asset(folder)
    for text in ("{", "[]", "{}", '{"fps": 12, "cameras": []}', '{"fps": 12, "cameras": [{"frame": 0}]}'):
        (tmp_path / "cameras.json").write_text(text)
        with pytest.raises(module.AssetError, match="no list of cameras"):
            module.read_turntable(tmp_path)


@pytest.fixture(scope="module")
def blender(pytestconfig: pytest.Config) -> str:
    command = pytestconfig.getoption("--blender")
    if command is None:
        pytest.skip("there is no Blender: see this file's first lines")
    return str(command)


def run(blender: str, file: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """A script in Blender, or in a Python that has it as a package."""
    alone = "python" in Path(blender).name
    before = [] if alone else ["--background", "--factory-startup", "--python-exit-code", "3", "--python"]
    command = [blender, *before, str(file), "--", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


def facts(blender: str, folder: Path, kind: str, out: Path) -> dict[str, Any]:
    done = run(blender, FACTS, SCRIPT, folder, kind, out)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((out / "facts.json").read_text())
    assert (found["rate"], found["range"]) == (FPS, [0, len(COUNTS) - 1])
    assert all(len(frame) == 1 for frame in found["frames"]), "one frame is shown at a time"
    return found


def dB(path: Path, t: int) -> float:  # noqa: N802
    """How close a picture that Blender drew is to what our rasterizer draws of a frame, both on black."""
    picture = Image.open(path).convert("RGBA")
    drawn = torch.from_numpy(np.array(picture)).float() / 255
    ours, _ = rasterize(CLIP.frame(t), SCENE.turntable.shots[0].camera)
    return float(-10 * (drawn[..., :3] * drawn[..., 3:] - ours).square().mean().log10())


def test_splats_are_the_gaussians_at_their_times(blender: str, exported: Path, tmp_path: Path) -> None:
    found = facts(blender, exported, "splats", tmp_path)
    for t, (frame,) in enumerate(found["frames"]):
        assert frame["name"] == f"frame{t + 1:04d}"
        frame_matches({**frame["attributes"], "position": frame["places"]}, CLIP.frame(t))
        assert dB(tmp_path / f"{t}.png", t) > dB(tmp_path / f"{t}.png", (t + 1) % len(COUNTS)) + 2
        assert dB(tmp_path / f"{t}.png", t) > 18, "solid ellipsoids for needles that one sees through"


def test_points_are_the_gaussians_at_their_times(blender: str, exported: Path, tmp_path: Path) -> None:
    found = facts(blender, exported, "points", tmp_path)
    for t, (frame,) in enumerate(found["frames"]):
        gaussians, values = CLIP.frame(t), {name: torch.tensor(v) for name, v in frame["attributes"].items()}
        assert_close(values["position"], gaussians.means)
        assert_close(values["displayColor"][:, :3], linear_light(gaussians.colors.clamp(0, 1)), atol=1e-5, rtol=0)
        widest = gaussians.scales.topk(2, dim=1).values.prod(1).sqrt()
        assert_close(values["radius"][:, 0], POINT_REACH * widest)
        assert dB(tmp_path / f"{t}.png", t) > dB(tmp_path / f"{t}.png", (t + 1) % len(COUNTS)) + 1


def test_meshes_are_shown_at_their_times_in_their_colors(blender: str, exported: Path, tmp_path: Path) -> None:
    found = facts(blender, exported, "mesh", tmp_path)
    for t, (frame,) in enumerate(found["frames"]):
        assert frame["name"] == f"frame{t + 1:04d}"
        assert_close(torch.tensor(frame["places"]), torch.tensor(CORNERS), atol=1e-6, rtol=0)
        picture = np.array(Image.open(tmp_path / f"{t}.png").convert("RGBA"))
        solid = picture[picture[..., 3] == 255][:, :3]
        light = torch.tensor(PAINTS[t])
        wanted = torch.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255
        assert len(solid) > 100
        assert np.abs(solid.mean(0) - wanted.numpy()).max() < 2, "no light changes it"


def test_the_command_says_what_it_did_and_what_is_wrong(blender: str, exported: Path, tmp_path: Path) -> None:
    done = run(blender, SCRIPT / "import_asset.py", exported, "--kind", "points", "--save", tmp_path / "scene.blend")
    assert done.returncode == 0, done.stderr
    assert "1 objects, frames 0 to 2 at 12 a second" in done.stdout
    assert (tmp_path / "scene.blend").is_file()
    wrong = run(blender, SCRIPT / "import_asset.py", tmp_path)
    assert wrong.returncode != 0
    assert "has no files that Blender can show" in wrong.stdout + wrong.stderr
    assert "Traceback" not in wrong.stderr
