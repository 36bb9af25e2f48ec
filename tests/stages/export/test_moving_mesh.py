"""One mesh that moves, read back: at each frame's time it has that frame's shape, and in between a shape in between."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from ss4d.stages.export import moving_mesh_glb
from ss4d.stages.export.formats import write_formats
from ss4d.stages.export.scene import GL_FROM_WORLD, Scene
from ss4d.stages.ops.geometry import rotate_mesh
from ss4d.stages.types import MeshClip, silent
from tests.helpers.foreign_readers import Glb
from tests.stages.export.clips import FPS, boxes, lopsided, scene_of

FRAMES = 4


def growing() -> MeshClip:
    """A box that grows and darkens."""
    made = MeshClip.joined([boxes(FRAMES + 1).frame(t) for t in (0, 1, 3, 4)])
    return replace(made, texture=made.texture // torch.tensor([1, 2, 3, 4], dtype=torch.uint8)[:, None, None, None])


def scene(one_topology: bool = True) -> Scene:
    return replace(scene_of(lopsided(*[1] * FRAMES)), meshes=replace(growing(), one_topology=one_topology))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moving")
    told: list[tuple[int, int]] = []
    assert write_formats(["glb"], scene(), folder, progress=lambda *step: told.append(step)) == ("mesh.glb",)
    assert told == [(t + 1, FRAMES) for t in range(FRAMES)]
    return folder / "mesh.glb"


def shape_at(glb: Glb, seconds: float) -> np.ndarray:
    """The places (v, 3) of the vertices then, as glTF says that they follow from the targets' weights."""
    (animation,) = glb.file.animations
    (channel,), (sampler,) = animation.channels, animation.samplers
    assert (channel.target.path, channel.target.node, sampler.interpolation) == ("weights", 0, "LINEAR")
    (part,) = glb.file.meshes[0].primitives
    times = glb.array(sampler.input)[:, 0]
    weights = glb.array(sampler.output).reshape(len(times), len(part.targets))
    now = [np.interp(seconds, times, column) for column in weights.T]
    moved = sum(weight * glb.array(target["POSITION"]) for weight, target in zip(now, part.targets, strict=True))
    return glb.array(part.attributes.POSITION) + moved


def wanted(t: int) -> np.ndarray:
    return rotate_mesh(growing().frame(t), GL_FROM_WORLD).vertices.numpy()


def test_each_frame_has_its_shape_at_its_time(written: Path) -> None:
    glb = Glb(written)
    for t in range(FRAMES):
        assert np.allclose(shape_at(glb, t / FPS), wanted(t), atol=1e-6)
        assert not np.allclose(shape_at(glb, t / FPS), wanted((t + 1) % FRAMES), atol=1e-2)
    assert np.allclose(shape_at(glb, 1.5 / FPS), (wanted(1) + wanted(2)) / 2, atol=1e-6)
    assert np.allclose(shape_at(glb, (FRAMES - 0.01) / FPS), wanted(FRAMES - 1), atol=1e-6)
    assert glb.array(glb.file.animations[0].samplers[0].input)[-1, 0] == pytest.approx(FRAMES / FPS)


def test_there_is_one_mesh_with_a_target_for_each_later_frame(written: Path) -> None:
    file = Glb(written).file
    assert (len(file.nodes), len(file.meshes), len(file.materials), len(file.images)) == (1, 1, 1, 1)
    assert file.meshes[0].weights == [0] * (FRAMES - 1), "unanimated, the first frame shows"
    assert file.meshes[0].extras["targetNames"] == ["frame0002", "frame0003", "frame0004"]
    for target in file.meshes[0].primitives[0].targets:
        assert file.accessors[target["POSITION"]].min is not None


def test_another_program_has_the_first_frame_with_the_mean_of_the_textures(written: Path) -> None:
    (mesh,) = trimesh.load_scene(written, process=False).geometry.values()
    made = growing()
    assert np.allclose(mesh.vertices, wanted(0), atol=1e-6)
    assert np.array_equal(mesh.faces, made.frame(0).faces.numpy())
    texture = made.texture.float().mean(0)
    assert (texture - made.texture[0].float()).abs().max() > 15
    picture = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"), np.float32)
    assert abs(picture - texture.numpy()).mean() < 2, "a JPEG file"


def test_it_is_smaller_than_a_mesh_for_each_frame(written: Path, tmp_path: Path) -> None:
    write_formats(["glb"], scene(one_topology=False), tmp_path, progress=silent)
    assert written.stat().st_size < 0.6 * (tmp_path / "mesh.glb").stat().st_size


def test_more_targets_than_some_programs_play_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(moving_mesh_glb, "MOST_TARGETS", FRAMES - 2)
    write_formats(["glb"], scene(), tmp_path, progress=silent)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "mesh.glb has 3 morph targets, and some programs play no more than 2" in record.getMessage()
