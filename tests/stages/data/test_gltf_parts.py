"""What shapes a file draws: all modes with a surface, skins, instances, mirrors, and normals that follow."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ss4d.stages.data.gltf import load_animated, load_asset
from ss4d.stages.data.mesh import AnimatedMesh
from ss4d.stages.data.voxels import surface_voxels
from ss4d.stages.errors import InputError
from tests.helpers.gltf_files import FACES, POINTS, QUARTER, Builder, add_mesh, primitive, sphere, tetrahedron


def outward(mesh: AnimatedMesh) -> float:
    """The least cosine between a face and the way from the middle of its mesh's first frame."""
    corners = mesh.vertices[0][mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    away = corners.mean(1) - mesh.vertices[0].mean(0)
    lengths = np.linalg.norm(normals, axis=-1) * np.linalg.norm(away, axis=-1)
    whole = lengths > 1e-9
    return float(((normals * away).sum(-1)[whole] / lengths[whole]).min())


@pytest.mark.parametrize("indexed", [True, False])
def test_strips_and_fans_are_faces_of_one_side(tmp_path: Path, indexed: bool) -> None:
    rows = {5: [[0, 0], [1, 0], [0, 1], [1, 1], [0, 2], [1, 2]], 6: [[0, 0], [1, 0], [1, 1], [0, 1], [-1, 1]]}
    for mode, places in rows.items():
        builder = Builder()
        points = np.pad(np.array(places, float), ((0, 0), (0, 1)))
        held: dict[str, Any] = {"mode": mode, "attributes": {"POSITION": builder.add(points)}}
        if indexed:
            held["indices"] = builder.add(np.arange(len(points)), "<u2")
        builder.json |= {"meshes": [{"primitives": [held]}], "nodes": [{"mesh": 0}], "scenes": [{"nodes": [0]}]}
        mesh = load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0)
        assert len(mesh.faces) == len(points) - 2
        np.testing.assert_allclose(mesh.normals(), np.tile([0, -1, 0], (1, len(mesh.colors), 1)), atol=1e-6)


def test_points_and_lines_beside_a_surface_are_left_out(tmp_path: Path) -> None:
    builder = tetrahedron()
    held = builder.json["meshes"][0]["primitives"]
    for mode in (0, 1, 2, 3):
        held.append({"mode": mode, "attributes": {"POSITION": builder.add(POINTS * 50)}})
    held.append({"attributes": {}})  # nor has that one
    alone = load_animated(tetrahedron().save(tmp_path / "b.glb"), 1, 1.0)
    np.testing.assert_array_equal(load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0).vertices, alone.vertices)
    held.append({"mode": 7, "attributes": held[0]["attributes"]})
    with pytest.raises(InputError, match=r"a.glb: mesh 0, primitive 6 draws with mode 7"):
        load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0)


def test_vertices_that_no_face_uses_do_not_count(tmp_path: Path) -> None:
    builder = tetrahedron()
    shared = np.concatenate(([[900, 0, 0], [np.nan, 0, 0]], POINTS, [[0, -500, 0]]))
    primitive(builder)["attributes"]["POSITION"] = builder.add(shared)
    primitive(builder)["indices"] = builder.add(np.ravel(FACES) + 2, "<u2")
    alone = load_animated(tetrahedron().save(tmp_path / "b.glb"), 1, 1.0)
    np.testing.assert_array_equal(load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0).vertices, alone.vertices)


def skinned(weights: NDArray[np.float64], joints: NDArray[np.int64], kind: str = "<f4") -> Builder:
    """The tetrahedron on two joints far from the origin, of which the second rises by 3 in a second."""
    builder = Builder()
    attributes = {
        "POSITION": builder.add(POINTS + np.array([5, 0, 0])),
        "JOINTS_0": builder.add(joints, "<u1"),
        "WEIGHTS_0": builder.add(weights, kind, normalized=kind != "<f4"),
    }
    held = {"attributes": attributes, "indices": builder.add(np.ravel(FACES), "<u2")}
    builder.json |= {
        "meshes": [{"primitives": [held]}],
        "nodes": [{"mesh": 0, "skin": 0}, {}, {}],
        "skins": [{"joints": [1, 2]}],
        "scenes": [{"nodes": [0, 1, 2]}],
    }
    builder.animate((2, "translation", [0, 1], [[0, 0, 0], [0, 3, 0]], "LINEAR"))
    return builder


@pytest.mark.parametrize("lost", [0.0, np.nan, np.inf, -1.0])
def test_vertices_without_weights_that_are_numbers_follow_their_first_joint(tmp_path: Path, lost: float) -> None:
    weights = np.tile([1.0, 0, 0, 0], (4, 1))
    joints = np.tile([0, 99, 0, 0], (4, 1))  # a joint without weight need not be one
    weights[2:] = lost
    joints[3] = (1, 0, 0, 0)
    mesh = load_animated(skinned(weights, joints).save(tmp_path / "a.glb"), 2, 2.0)
    corners = np.ravel(FACES)
    moved = np.ptp(mesh.vertices[:, mesh.faces.ravel()], axis=0).max(-1)
    size = np.ptp(mesh.vertices[0, :, 0]) / 2
    np.testing.assert_allclose(moved[corners != 3], 0, atol=1e-6)
    np.testing.assert_allclose(moved[corners == 3] / size, 1.5, atol=1e-5)
    np.testing.assert_allclose(mesh.vertices[0][mesh.faces.ravel()][corners == 0][0, 2], mesh.vertices[0, :, 2].min())


def test_a_joint_that_there_is_not_is_named(tmp_path: Path) -> None:
    builder = skinned(np.tile([1.0, 0, 0, 0], (4, 1)), np.tile([7, 0, 0, 0], (4, 1)))
    with pytest.raises(InputError, match=r"a.glb: mesh 0, primitive 0 hangs on joint 7 of 2; .* export it again"):
        load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0)


def test_weights_in_bytes_and_joints_outside_the_scene_count(tmp_path: Path) -> None:
    weights = np.tile([0, 255, 0, 0], (4, 1))
    plain = skinned(weights / 255, np.tile([0, 1, 0, 0], (4, 1)))
    builder = skinned(weights, np.tile([0, 1, 0, 0], (4, 1)), "<u1")
    builder.json["scenes"] = [{"nodes": [0]}]
    first, second = (load_animated(held.save(tmp_path / f"{n}.glb"), 3, 3.0) for n, held in enumerate((plain, builder)))
    assert np.ptp(first.vertices[:, 0, 2]) > 0.1
    np.testing.assert_allclose(first.vertices, second.vertices, atol=1e-6)


@pytest.mark.parametrize("with_normals", [True, False])
def test_mirrored_nodes_are_not_inside_out(tmp_path: Path, with_normals: bool) -> None:
    points, faces = sphere(8)
    normals = points if with_normals else None
    mirrored = np.diag([1.0, -2, 1, 1])
    for node in ({"scale": [-1, 1, 3]}, {"matrix": mirrored.ravel().tolist()}, {"scale": [-1, -1, -1]}, {}):
        builder = Builder()
        add_mesh(builder, points, faces, normals, **node)
        mesh = load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0)
        assert outward(mesh) > 0
        place = mesh.vertices[0] - mesh.vertices[0].mean(0)
        facing = (mesh.normals()[0] * place).sum(-1)
        assert facing[np.linalg.norm(mesh.normals()[0], axis=-1) > 0].min() > 0


def test_normals_are_those_of_the_file_where_they_are_directions(tmp_path: Path) -> None:
    points, faces = sphere(8)
    tilted = points + np.array([0, 3.0, 0])  # not what the faces have
    tilted[3], tilted[4] = 0, np.nan
    builder = Builder()
    add_mesh(builder, points, faces, tilted, rotation=QUARTER, scale=[1, 4, 1])
    mesh = load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0)
    wanted = tilted / (1, 4, 1)  # what is stretched along y looks less along it
    wanted = np.stack((-wanted[:, 1], -wanted[:, 2], wanted[:, 0]), -1)  # a quarter about z, then z up
    wanted /= np.maximum(np.linalg.norm(wanted, axis=-1, keepdims=True), 1e-9)
    used = np.unique(faces)
    held = np.setdiff1d(np.arange(len(used)), np.flatnonzero(np.isin(used, (3, 4))))
    np.testing.assert_allclose(mesh.normals()[0][held], wanted[used][held], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(mesh.normals()[0], axis=-1), 1, atol=1e-5)


def test_normals_turn_with_joints_and_morph(tmp_path: Path) -> None:
    points, faces = sphere(8)
    builder = Builder()
    add_mesh(builder, points, faces, points, skin=0)
    held = primitive(builder)["attributes"]
    count = len(points)
    held["JOINTS_0"] = builder.add(np.zeros((count, 4)), "<u1")
    held["WEIGHTS_0"] = builder.add(np.tile([1, 0, 0, 0], (count, 1)))
    primitive(builder)["targets"] = [{"NORMAL": builder.add(np.tile([0, 0, 4.0], (count, 1)))}]
    builder.json["nodes"][0]["weights"] = [1.0]
    builder.json["nodes"].append({"rotation": QUARTER})
    builder.json["skins"] = [{"joints": [1]}]
    mesh = load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0)
    wanted = points + np.array([0, 0, 4])
    wanted = np.stack((-wanted[:, 1], -wanted[:, 2], wanted[:, 0]), -1)
    wanted = (wanted / np.linalg.norm(wanted, axis=-1, keepdims=True))[np.unique(faces)]
    np.testing.assert_allclose(mesh.normals()[0], wanted, atol=1e-5)


def test_every_instance_is_drawn(tmp_path: Path) -> None:
    builder = tetrahedron()
    moves, turns = builder.add([[0, 0, 0], [10, 0, 0], [0, 20, 0]]), builder.add([[0, 0, 0, 1], QUARTER, [0, 0, 0, 1]])
    instancing = {"attributes": {"TRANSLATION": moves, "ROTATION": turns, "_ID": moves}}
    builder.json["nodes"][0] |= {"extensions": {"EXT_mesh_gpu_instancing": instancing}, "scale": [2, 2, 2]}
    builder.json["extensionsRequired"] = ["EXT_mesh_gpu_instancing"]
    mesh = load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0)
    copies = mesh.vertices[0].reshape(3, 12, 3)
    unit = np.ptp(copies[0, :, 0]) / 2
    apart = (copies - copies[0]) / unit
    np.testing.assert_allclose(apart[2], np.tile([0, 0, 20], (12, 1)), atol=1e-4)
    about = (copies[:2] - copies[:2, np.ravel(FACES).tolist().index(0), None]) / unit  # vertex 0 is (-1, 0, 0)
    np.testing.assert_allclose(about[1], np.stack((-about[0, :, 2], about[0, :, 1], about[0, :, 0]), -1), atol=1e-4)
    builder.json["nodes"][0]["extensions"]["EXT_mesh_gpu_instancing"] = {"attributes": {"TRANSLATION": 99}}
    with pytest.raises(InputError, match=r"nodes\[0\].*TRANSLATION is 99, but it has \d+ accessors"):
        load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0)


def test_nodes_that_a_file_hides_are_not_seen(tmp_path: Path) -> None:
    builder = tetrahedron()
    points, faces = sphere(6)
    hidden = add_mesh(builder, points * 50, faces, points)
    builder.json["nodes"][hidden]["extensions"] = {"KHR_node_visibility": {"visible": False}}
    mesh = load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0)
    assert len(mesh.faces) == len(FACES)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda held: held["nodes"][0].update(mesh="0"), r"nodes\[0\].mesh is '0', not the number of one"),
        (lambda held: held["nodes"][0].update(mesh=4), r"nodes\[0\].mesh is 4, but it has 1 meshes"),
        (lambda held: held.update(nodes={"0": {}}), "nodes is not a list"),
        (lambda held: held["meshes"].append(3), r"meshes\[1\] is not an object"),
        (lambda held: held["meshes"][0]["primitives"][0].update(material=0), r"material is 0, but it has 0 materials"),
        (lambda held: held["nodes"][0].update(translation=["a", 0, 0]), r"nodes\[0\].translation is .*, not 3 numbers"),
        (lambda held: held["nodes"][0].update(rotation=[0, 0, 1]), r"nodes\[0\].rotation is .*, not 4 numbers"),
        (lambda held: held["accessors"][0].pop("count"), r"accessors\[0\] has no count"),
        (lambda held: held["bufferViews"][0].update(buffer=1.5), r"bufferViews\[0\].buffer is 1.5"),
        (lambda held: held.update(animations=[{"channels": [{"sampler": 0, "target": {}}], "samplers": []}]),
         r"animations\[0\].channels\[0\].sampler is 0, but it has 0 samplers"),
        (lambda held: held["meshes"][0]["primitives"][0]["attributes"].update(NORMAL=1), "NORMAL has"),
    ],
)  # fmt: skip
def test_what_a_damaged_file_points_to_is_named(tmp_path: Path, wrong: Any, reason: str) -> None:
    builder = tetrahedron()
    wrong(builder.json)
    with pytest.raises(InputError, match=rf"a.glb: .*{reason}.*export it again"):
        load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0)


def test_a_mark_of_the_byte_order_before_the_text_is_passed_over(tmp_path: Path) -> None:
    builder = tetrahedron()
    builder.save(tmp_path / "a.glb")
    (tmp_path / "data.bin").write_bytes(builder.data)
    builder.json["buffers"][0]["uri"] = r".\data.bin"  # as a path of Windows
    (tmp_path / "a.gltf").write_bytes(b"\xef\xbb\xbf" + json.dumps(builder.json).encode())
    np.testing.assert_array_equal(
        load_animated(tmp_path / "a.gltf", 1, 1.0).vertices, load_animated(tmp_path / "a.glb", 1, 1.0).vertices
    )


def test_what_is_shrunk_to_a_point_is_hidden(tmp_path: Path) -> None:
    """Files hide things so, the first part of one, too."""
    points, faces = sphere(6)
    builder = Builder()
    add_mesh(builder, points + np.array([9.0, 0, 0]), faces, points, scale=[0, 0, 0])
    add_mesh(builder, points + np.array([4.0, 0, 0]), faces, points)
    mesh = load_animated(builder.save(tmp_path / "a.glb"), 2, 1.0)
    assert np.isfinite(mesh.vertices).all()
    coords, _ = surface_voxels(mesh, 16)
    ball = mesh.vertices[0, len(np.unique(faces)) :]
    low, high = ((edge + 0.5) * 16 for edge in (ball.min(0), ball.max(0)))
    assert (coords[:, 2:] >= np.floor(low) - 1e-3).all()
    assert (coords[:, 2:] <= np.ceil(high)).all()
    alone = Builder()
    add_mesh(alone, points, faces, points)
    alone.animate((0, "scale", [0, 1], [[0, 0, 0], [1, 1, 1]], "LINEAR"))
    coords, _ = surface_voxels(load_animated(alone.save(tmp_path / "a.glb"), 2, 2.0), 16)
    assert (coords[:, 1] == 0).sum() == 1  # it grows from nothing, which is somewhere


def test_as_many_weights_as_morph_targets_are_asked_for(tmp_path: Path) -> None:
    builder = tetrahedron()
    target = {"POSITION": builder.add(POINTS)}
    primitive(builder)["targets"] = [target, target]
    builder.animate((0, "weights", [0, 1], [0, 1], "LINEAR"))
    with pytest.raises(InputError, match=r"a.glb: mesh 0, primitive 0 has 2 morph targets, but .* 1 weights .*again"):
        load_animated(builder.save(tmp_path / "a.glb"), 2, 2.0)


def test_names_of_a_file_reach_no_terminal_as_they_are(tmp_path: Path) -> None:
    builder = tetrahedron()
    builder.animate_also("\x1b[31mred", (0, "scale", [0, 1], [[1, 1, 1], [2, 2, 2]], "LINEAR"))
    path = builder.save(tmp_path / "a.glb")
    assert str(load_asset(path, 1, 1.0).play).startswith("\N{REPLACEMENT CHARACTER}[31mred, from")
    builder.json["extensionsRequired"] = ["EXT\x07"]
    with pytest.raises(InputError) as caught:
        load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0)
    assert str(caught.value).isprintable()
