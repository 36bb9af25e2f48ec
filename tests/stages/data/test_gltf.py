"""glTF import: small files are built here by hand, and positions are checked against hand computation."""

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ss4d.stages.data.gltf import load_animated, moving
from ss4d.stages.data.gltf_file import AssetLimits
from ss4d.stages.data.mesh import fitted
from ss4d.stages.errors import InputError
from tests.helpers.gltf_files import FACES, HALF_TURN, POINTS, QUARTER, Builder, primitive, tetrahedron, textured


def expect(path: Path, positions: NDArray[np.float64], fps: float = 1.0, faces: Any = FACES) -> None:
    """The corners of the file's faces are at `positions` (t, v, 3), given y up, after the turn to z up and fitting."""
    mesh = load_animated(path, len(positions), fps)
    turned = np.stack((positions[..., 0], -positions[..., 2], positions[..., 1]), -1)
    np.testing.assert_allclose(mesh.vertices[:, mesh.faces], fitted(turned)[:, np.asarray(faces)], atol=1e-6)


def test_a_static_file_stands_still_with_up_along_z_and_its_front_at_minus_y(tmp_path: Path) -> None:
    path = tetrahedron().save(tmp_path / "a.glb")
    expect(path, np.tile(POINTS, (3, 1, 1)))
    mesh = load_animated(path, 1, 1.0)
    corners = mesh.vertices[0][mesh.faces].reshape(-1, 3)
    assert np.ravel(FACES)[corners[:, 2].argmax()] == 2
    assert np.ravel(FACES)[corners[:, 1].argmin()] == 3
    np.testing.assert_array_equal(mesh.colors, np.ones((12, 3), np.float32))
    # Without normals in the file, faces are flat.
    np.testing.assert_allclose(np.ptp(mesh.normals()[0][mesh.faces], axis=1), 0, atol=1e-6)


def test_nodes_move_their_meshes_through_their_parents(tmp_path: Path) -> None:
    builder = tetrahedron()
    builder.json["nodes"] = [{"mesh": 0, "translation": [0, 1, 0], "scale": [2, 2, 2]}, {"children": [0]}]
    builder.json["scenes"] = [{"nodes": [1]}]
    builder.animate(
        (1, "rotation", [0, 2], [[0, 0, 0, 1], HALF_TURN], "LINEAR"),
        (0, "translation", [0, 2], [[0, 1, 0], [0, 5, 0]], "LINEAR"),
    )
    child = [2 * POINTS + (0, 1, 0), 2 * POINTS + (0, 3, 0)]
    turned = np.stack((-child[1][:, 1], child[1][:, 0], child[1][:, 2]), -1)  # a quarter turn about z
    expect(builder.save(tmp_path / "a.glb"), np.stack((child[0], turned, child[0])))  # after 2 s it starts again


def test_steps_hold_and_splines_follow_their_slopes(tmp_path: Path) -> None:
    builder = tetrahedron()
    builder.animate((0, "translation", [0, 1, 2], [[0, 0, 0], [4, 0, 0], [9, 0, 0]], "STEP"))
    x = np.array([0.0, 0, 4, 4])
    expect(builder.save(tmp_path / "a.glb"), POINTS + np.stack((x, 0 * x, 0 * x), -1)[:, None], fps=2.0)
    # Cubic Hermite from 0 to 2 over 2 s with slopes 3 and -1: at the middle 1/2 (0 + 2) + 2 (3 - -1) / 8 = 2.
    keys = [[0, 0, 0], [0, 0, 0], [3, 0, 0], [-1, 0, 0], [2, 0, 0], [0, 0, 0]]
    builder.animate((0, "translation", [0, 2], keys, "CUBICSPLINE"))
    expect(builder.save(tmp_path / "b.glb"), np.stack((POINTS, POINTS + np.array((2, 0, 0)))))


def test_morph_targets_add_up(tmp_path: Path) -> None:
    builder = tetrahedron()
    first, second = np.zeros((4, 3)), np.zeros((4, 3))
    first[1], second[2] = (1, 0, 0), (0, 0, 2)
    primitive(builder)["targets"] = [{"POSITION": builder.add(first)}, {"POSITION": builder.add(second)}]
    builder.json["meshes"][0]["weights"] = [0.5, 1.0]
    expect(builder.save(tmp_path / "a.glb"), (POINTS + 0.5 * first + second)[None])
    builder.json["nodes"][0]["weights"] = [0.25, 0.0]
    expect(builder.save(tmp_path / "b.glb"), (POINTS + 0.25 * first)[None])
    builder.animate((0, "weights", [0, 4], [0, 1, 1, 0], "LINEAR"))
    expect(builder.save(tmp_path / "c.glb"), np.stack((POINTS + second, POINTS + 0.25 * first + 0.75 * second)))


def test_a_two_bone_bar_bends_and_ignores_its_own_node(tmp_path: Path) -> None:
    builder = Builder()
    points = np.array([[-0.1, 0, 0], [0.1, 0, 0], [0, 1, 0.1], [0, 1, -0.1], [0, 2, 0.1], [0, 2, -0.1]])
    weights = np.array([[1, 0], [1, 0], [0.5, 0.5], [0.5, 0.5], [0, 1], [0, 1]])
    inverse = np.stack((np.eye(4), np.eye(4)))
    inverse[1, 1, 3] = -1.0  # the second bone starts at height 1
    attributes = {
        "POSITION": builder.add(points),
        "JOINTS_0": builder.add(np.tile([0, 1, 0, 0], (6, 1)), "<u1"),
        "WEIGHTS_0": builder.add(np.pad(weights, ((0, 0), (0, 2)))),
    }
    faces = np.array([[0, 1, 2], [1, 3, 2], [2, 3, 4], [3, 5, 4]])
    indices = builder.add(faces.ravel(), "<u2")
    builder.json |= {
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices}]}],
        "nodes": [{"mesh": 0, "skin": 0, "translation": [7, 7, 7]}, {"children": [2]}, {"translation": [0, 1, 0]}],
        "skins": [{"joints": [1, 2], "inverseBindMatrices": builder.add(inverse.swapaxes(1, 2).reshape(2, 16))}],
        "scenes": [{"nodes": [0, 1]}],
    }
    builder.animate((2, "rotation", [0, 1], [[0, 0, 0, 1], QUARTER], "LINEAR"))  # half a second: 45 degrees
    about = points - (0, 1, 0)
    turned = about @ np.array([[1, 1, 0], [-1, 1, 0], [0, 0, np.sqrt(2)]]) / np.sqrt(2) + (0, 1, 0)
    middle = weights[:, :1] * points + weights[:, 1:] * turned
    expect(builder.save(tmp_path / "a.glb"), np.stack((points, middle, points)), 2.0, faces)


def test_colors_multiply_and_are_shown_in_srgb(tmp_path: Path) -> None:
    builder = tetrahedron()
    stored = np.array([[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [255, 255, 255, 255]])
    primitive(builder)["attributes"]["COLOR_0"] = builder.add(stored, "<u1", normalized=True)
    primitive(builder)["material"] = 0
    builder.json["materials"] = [{"pbrMetallicRoughness": {"baseColorFactor": [0.2140411, 0.2140411, 0.2140411, 1]}}]
    mesh = load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0)
    corners = stored[np.ravel(FACES), :3]
    # 0.214 linear is 0.5 in sRGB
    np.testing.assert_allclose(mesh.colors[mesh.faces.ravel()], corners / 255 * 0.5, atol=1e-5)


def test_a_texture_is_seen_where_it_lies(tmp_path: Path) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:, :4], picture[:, 4:] = (255, 0, 0), (0, 0, 255)
    mesh = load_animated(textured(picture).save(tmp_path / "a.glb"), 2, 1.0)
    x = mesh.vertices[0, :, 0]
    assert len(x) > 1000
    edge = np.ptp(x) * 0.1
    np.testing.assert_allclose(mesh.colors[x < -edge], np.tile([1, 0, 0], ((x < -edge).sum(), 1)), atol=1e-5)
    np.testing.assert_allclose(mesh.colors[x > edge], np.tile([0, 0, 1], ((x > edge).sum(), 1)), atol=1e-5)
    # Splitting changes neither the surface's area nor its closedness.
    corners = mesh.vertices[0][mesh.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1).sum()
    whole = fitted(POINTS[None])[0][np.array(FACES)]
    expected = np.linalg.norm(np.cross(whole[:, 1] - whole[:, 0], whole[:, 2] - whole[:, 0]), axis=-1).sum()
    assert area == pytest.approx(expected, rel=1e-4)
    places = np.unique(mesh.vertices[0].round(5), axis=0, return_inverse=True)[1].reshape(-1)
    directed = {tuple(edge) for face in places[mesh.faces] for edge in zip(face, np.roll(face, -1), strict=True)}
    assert all((b, a) in directed for a, b in directed)


def test_files_that_cannot_be_used_are_named_with_the_reason(tmp_path: Path) -> None:
    def refused(path: Path, reason: str) -> None:
        with pytest.raises(InputError, match=reason) as caught:
            load_animated(path, 2, 1.0)
        assert path.name in str(caught.value)

    refused(tmp_path / "none.glb", "no file")
    for name, content in (("a.glb", b"glTF\2\0\0\0"), ("b.glb", b"what"), ("c.gltf", b"{}"), ("d.gltf", b"\xff\xfe")):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "not a glTF 2.0 file")
    builder = tetrahedron()
    whole = builder.save(tmp_path / "cut.glb").read_bytes()
    (tmp_path / "cut.glb").write_bytes(whole[:-40])
    refused(tmp_path / "cut.glb", "too few|not a glTF")
    builder.json["meshes"] = []
    builder.json["nodes"] = [{}]
    refused(builder.save(tmp_path / "empty.glb"), "no mesh")
    builder = tetrahedron()
    builder.json["extensionsRequired"] = ["KHR_something_new"]
    refused(builder.save(tmp_path / "new.glb"), "KHR_something_new")
    builder = tetrahedron()
    primitive(builder)["mode"] = 1
    refused(builder.save(tmp_path / "lines.glb"), "points, lines")
    builder = tetrahedron()
    primitive(builder)["indices"] = 9
    refused(builder.save(tmp_path / "dangling.glb"), "damaged")


def test_an_array_that_is_used_again_and_again_counts_again(tmp_path: Path) -> None:
    """A kilobyte could name one array thousands of times; morph targets are even held all at once."""
    limits = AssetLimits(max_numbers=100)
    for times, reason in (
        (8, None),
        (9, r"mesh 0, primitive 0 has 9 morph targets of 108 numbers, over .* 100 \(max_n"),
    ):
        builder = tetrahedron()
        primitive(builder)["targets"] = [{"POSITION": 0}] * times
        path = builder.save(tmp_path / "morphed.glb")
        if reason is None:
            load_animated(path, 1, 1.0, limits=limits)
        else:
            with pytest.raises(InputError, match=reason):
                load_animated(path, 1, 1.0, limits=limits)
    builder = tetrahedron()
    builder.json["meshes"][0]["primitives"] *= 200
    with pytest.raises(InputError, match=r"arrays of more than 2,000 numbers in all, 20 times .* \(max_numbers\)"):
        load_animated(builder.save(tmp_path / "parts.glb"), 1, 1.0, limits=limits)


def test_animations_are_bounded_together(tmp_path: Path) -> None:
    """Each channel is held with its times and values, and a few bytes name an array."""
    builder = tetrahedron()
    builder.animate((0, "translation", [0, 1], [[0, 0, 0], [1, 0, 0]], "LINEAR"))
    path = builder.save(tmp_path / "one.glb")
    load_animated(path, 1, 1.0, limits=AssetLimits(max_numbers=12))
    builder.json["animations"][0]["channels"] *= 2
    path = builder.save(tmp_path / "two.glb")
    load_animated(path, 1, 1.0, limits=AssetLimits(max_numbers=16))
    for look in (lambda limits: load_animated(path, 1, 1.0, limits=limits), lambda limits: moving(path, limits)):
        with pytest.raises(InputError, match=r"animations have 16 times and .* 15 numbers \(max_numbers\)"):
            look(AssetLimits(max_numbers=15))


def test_textures_are_bounded_together(tmp_path: Path) -> None:
    """Many can show the same few bytes, each as an image of its own."""
    builder = textured(np.zeros((9, 8, 3), np.uint8))
    held = builder.json
    first = held["meshes"][0]["primitives"][0]
    for name in ("images", "textures", "materials"):
        held[name] = [copy.deepcopy(held[name][0]) for _ in range(9)]
    for index in range(9):
        held["textures"][index]["source"] = index
        held["materials"][index]["pbrMetallicRoughness"]["baseColorTexture"]["index"] = index
    held["meshes"][0]["primitives"] = [{**first, "material": index} for index in range(9)]
    path = builder.save(tmp_path / "a.glb")
    load_animated(path, 1, 1.0, limits=AssetLimits(max_texture=81))
    with pytest.raises(InputError, match=r"textures have more than 640 pixels in all, 8 times .* \(max_texture\)"):
        load_animated(path, 1, 1.0, limits=AssetLimits(max_texture=80))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda held: held["meshes"][0]["primitives"][0].update(indices=2), "names vertex 65535 of 4"),
        (lambda held: held["accessors"][1].update(bufferView=2, count=3, componentType=5122), "names vertex -1 of 4"),
        (lambda held: held["accessors"][0].update(count=10**12), "max_numbers"),
        (lambda held: held["accessors"][0].update(count=float("inf")), "not a glTF 2.0 file .*infinity"),
        (lambda held: held["accessors"][0].update(bufferView=-1), "below 0 as its bufferView"),
        (lambda held: held["accessors"][0].update(byteOffset=-12), "below 0 as its byteOffset"),
        (lambda held: held["accessors"][0].update(count=-1), "below 0 as its count"),
        (lambda held: held["bufferViews"][0].update(byteOffset=-8), "below 0 as its byteOffset"),
        (lambda held: held["nodes"][0].update(translation=[1e39, float("inf"), 0]), "finite"),
        (lambda held: held["nodes"][0].update(matrix=[1, 2]), "damaged"),
        (lambda held: held["nodes"][0].update(mesh=-1), "below 0 as its mesh"),
    ],
)
def test_numbers_that_no_file_has_are_named(tmp_path: Path, wrong: Callable[[Any], None], reason: str) -> None:
    builder = tetrahedron()
    builder.add([0, 2, 65535], "<u2")  # -1 where it is signed
    wrong(builder.json)
    with pytest.raises(InputError, match=reason):
        load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0)


def test_small_files_that_would_become_large_are_refused_before_they_do(tmp_path: Path) -> None:
    path = textured(np.zeros((9, 8, 3), np.uint8)).save(tmp_path / "a.glb")
    load_animated(path, 1, 1.0, limits=AssetLimits(max_triangles=100_000, max_texture=72))
    with pytest.raises(InputError, match=r"more than 100 triangles.*max_triangles"):
        load_animated(path, 1, 1.0, limits=AssetLimits(max_triangles=100))
    with pytest.raises(InputError, match=r"8 x 9 pixels, over the limit of 71 \(max_texture\)"):
        load_animated(path, 1, 1.0, limits=AssetLimits(max_texture=71))


def test_textures_are_of_kinds_that_start_no_other_program(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="image 0 cannot be read"):
        load_animated(textured(np.zeros((8, 8, 3), np.uint8), "EPS").save(tmp_path / "a.glb"), 1, 1.0)


def test_buffers_may_lie_in_or_beside_the_file_but_not_outside_its_folder(tmp_path: Path) -> None:
    builder = tetrahedron()
    folder = tmp_path / "asset"
    folder.mkdir()
    (folder / "my data.bin").write_bytes(builder.data)
    (tmp_path / "secret.bin").write_bytes(builder.data)
    inside = "data:application/octet-stream;base64," + base64.b64encode(builder.data).decode()
    path = folder / "a.gltf"
    (folder / "circle").symlink_to("circle")
    for uri, reason in (
        ("my%20data.bin", None),
        (inside, None),
        ("../secret.bin", "outside its folder"),
        (str(tmp_path / "secret.bin"), "outside its folder"),
        ("https://example.org/a.bin", "outside its folder"),
        ("gone.bin", "missing"),
        ("no%00name.bin", "missing"),
        ("circle/a.bin", "missing"),
    ):
        builder.json["buffers"] = [{"byteLength": len(builder.data), "uri": uri}]
        path.write_text(json.dumps(builder.json))
        if reason is None:
            expect(path, POINTS[None].astype(np.float64))
        else:
            with pytest.raises(InputError, match=reason):
                load_animated(path, 1, 1.0)
