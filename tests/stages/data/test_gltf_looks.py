"""What surfaces of a file look like: alpha, backs, what glows, and textures of all kinds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ss4d.stages.data import gltf_textures
from ss4d.stages.data.clip import SOFT, ClipSpec, film
from ss4d.stages.data.gltf import load_animated
from ss4d.stages.data.hulls import outside
from ss4d.stages.data.mesh import AnimatedMesh
from ss4d.stages.data.render import UNLIT, render
from ss4d.stages.data.voxels import surface_voxels
from ss4d.stages.errors import InputError
from ss4d.stages.ops.geometry import FRONT_YAW, orbit_camera
from tests.helpers.gltf_files import Builder, add_mesh, card, encoded, primitive, show, sphere

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def picture_of(mesh: AnimatedMesh, yaw: float = 0.0, size: int = 64) -> NDArray[np.uint8]:
    """The first frame (h, w, 4), seen from `yaw` degrees off the front."""
    return render(mesh, [orbit_camera(FRONT_YAW + yaw, 0.0, size=size)], UNLIT)[0, 0]


def loaded(builder: Builder, folder: Path) -> AnimatedMesh:
    return load_animated(builder.save(folder / "a.glb"), 1, 1.0)


def area(mesh: AnimatedMesh) -> float:
    corners = mesh.vertices[0][mesh.faces]
    return float(np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1).sum())


def disc(size: int, radius: float, soft: float = 0.0) -> NDArray[np.uint8]:
    """Green and opaque within a radius of a half side, black and clear outside."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    inside = np.clip((radius - np.hypot(x, y)) / max(soft, 1e-9) + 0.5, 0, 1)
    return (inside[..., None] * (0, 200, 0, 255)).astype(np.uint8)


@pytest.mark.parametrize(("size", "kind"), [(64, "PNG"), (256, "WEBP")])
def test_a_mask_cuts_the_surface_out(tmp_path: Path, size: int, kind: str) -> None:
    builder = card()
    show(builder, disc(size, 0.6), kind, alphaMode="MASK", doubleSided=True)
    if kind == "WEBP":
        builder.json["textures"] = [{"extensions": {"EXT_texture_webp": {"source": 0}}}]
        builder.json["extensionsRequired"] = ["EXT_texture_webp"]
    mesh = loaded(builder, tmp_path)
    side = np.ptp(mesh.vertices[0, :, 0]) / 0.6  # the disc is fitted, not the card
    assert area(mesh) / 2 / side**2 == pytest.approx(np.pi * 0.3**2, rel=0.03)
    assert mesh.opacity is None
    np.testing.assert_allclose(mesh.colors, np.tile([0, 200 / 255, 0], (len(mesh.colors), 1)), atol=0.02)
    seen = picture_of(mesh)[..., 3] > 127
    across = seen.any(0).sum()
    assert seen[32, 32]
    assert seen.sum() == pytest.approx(np.pi / 4 * across**2, rel=0.05)


@pytest.mark.parametrize("where", ["factor", "vertices", "cutoff"])
def test_alpha_comes_from_the_factor_and_the_vertices_too(tmp_path: Path, where: str) -> None:
    builder = card(alphaMode="MASK", pbrMetallicRoughness={"baseColorFactor": [1, 1, 1, 0.4]})
    if where == "vertices":
        builder.json["materials"][0]["pbrMetallicRoughness"] = {}
        colors = [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0]]  # half of the card, along x
        primitive(builder)["attributes"]["COLOR_0"] = builder.add(colors)
    elif where == "cutoff":
        builder.json["materials"][0]["alphaCutoff"] = 0.3
    if where == "factor":
        with pytest.raises(InputError, match=r"a.glb shows nothing: all its materials are transparent"):
            loaded(builder, tmp_path)
        return
    mesh = loaded(builder, tmp_path)
    assert np.ptp(mesh.vertices[0, :, 0]) / np.ptp(mesh.vertices[0, :, 2]) == pytest.approx(
        1 if where == "cutoff" else 0.5, rel=1e-3
    )
    assert mesh.opacity is None


def test_what_is_opaque_has_no_alpha(tmp_path: Path) -> None:
    builder = card()
    show(builder, disc(16, 0.6))
    mesh = loaded(builder, tmp_path)
    assert area(mesh) / 2 == pytest.approx(np.ptp(mesh.vertices[0, :, 0]) ** 2, rel=1e-3)
    assert mesh.opacity is None


def ball_in(alpha: float, **material: Any) -> Builder:
    """A red ball, and round it a blue one twice as large with an alpha."""
    builder = Builder()
    points, faces = sphere(16)
    add_mesh(builder, points, faces, points, {"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 1]}})
    blue = {"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 1, alpha]}, "alphaMode": "BLEND", **material}
    add_mesh(builder, points * 2, faces, points, blue)
    return builder


def test_what_cannot_be_seen_is_not_there(tmp_path: Path) -> None:
    alone = Builder()
    points, faces = sphere(16)
    add_mesh(alone, points, faces, points, {"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 1]}})
    wanted, mesh = loaded(alone, tmp_path), loaded(ball_in(0.0), tmp_path)
    np.testing.assert_array_equal(mesh.vertices, wanted.vertices)
    np.testing.assert_array_equal(mesh.colors, wanted.colors)


@pytest.mark.parametrize("double_sided", [False, True])
def test_what_is_seen_through_is_mixed(tmp_path: Path, double_sided: bool) -> None:
    mesh = loaded(ball_in(0.5, doubleSided=double_sided), tmp_path)
    picture = picture_of(mesh)
    layers = 2 if double_sided else 1  # the back of the far side is seen, too
    middle, rim = picture[32, 32], picture[32, 32 + 14]
    np.testing.assert_allclose(middle, [128, 0, 128, 255], atol=2)
    np.testing.assert_allclose(rim, [0, 0, 255, 255 * (1 - 0.5**layers)], atol=2)
    cells, feats = surface_voxels(outside(mesh.solid()), 32)
    reach = np.abs(cells[:, 2:] - 15.5).max()
    assert reach > 14  # half hidden is enough to be there
    assert {tuple(color) for color in feats[:, :3].round(2)} >= {(1, 0, 0), (0, 0, 1)}


@pytest.mark.parametrize(("alpha", "inside"), [(0.5, True), (1.0, False)])
def test_what_stands_behind_glass_has_voxels(tmp_path: Path, alpha: float, inside: bool) -> None:
    spec = ClipSpec(seed=0, num_frames=1, input_size=16, num_views=1, view_size=16, resolution=32)
    clip = film(loaded(ball_in(alpha), tmp_path), spec, "any", 12.0)
    reach = np.linalg.norm(clip.coords[:, 2:].numpy() - 15.5, axis=1)
    assert (reach > 14).sum() > 1000
    assert bool((reach < 9).any()) == inside


def test_a_faint_shadow_is_seen_but_is_no_part_of_the_shape(tmp_path: Path) -> None:
    builder = Builder()
    points, faces = sphere(16)
    add_mesh(builder, points, faces, points)
    shadow = (disc(64, 0.8, 0.4) * (0, 0, 0, 0.3)).astype(np.uint8)
    ground = np.array([[-4, -1, 4], [4, -1, 4], [4, -1, -4], [-4, -1, -4]], np.float64)
    node = add_mesh(builder, ground, np.array([[0, 1, 2], [0, 2, 3]]))
    held = builder.json["meshes"][builder.json["nodes"][node]["mesh"]]["primitives"][0]
    held["attributes"]["TEXCOORD_0"] = builder.add([[0, 1], [1, 1], [1, 0], [0, 0]])
    held["material"] = 0
    builder.json["images"] = [{"bufferView": builder.view(encoded(shadow)), "mimeType": "image/png"}]
    builder.json["textures"] = [{"source": 0}]
    builder.json["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}, "alphaMode": "BLEND"}]
    mesh = loaded(builder, tmp_path)
    solid = mesh.solid()
    np.testing.assert_allclose(np.ptp(solid.vertices[0], axis=0), 0.96, atol=1e-3)  # the ball alone fills the grid
    _, feats = surface_voxels(outside(solid), 16)
    np.testing.assert_allclose(feats[:, :3], 1, atol=1e-5)
    above = render(mesh, [orbit_camera(FRONT_YAW, 60.0, size=64)], UNLIT)[0, 0]
    assert above[32, 32].tolist() == [255, 255, 255, 255]
    assert 50 < above[40, 4, 3] < 90
    assert above[40, 4, :3].max() == 0


def test_an_outline_hides_nothing(tmp_path: Path) -> None:
    points, faces = sphere(16)
    body = {"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 1]}}
    black = {"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]}}
    builder = Builder()
    add_mesh(builder, points, faces, points, body)
    add_mesh(builder, points * 1.06, faces[:, ::-1], -points, black)  # its front inside, as outlines are drawn
    mesh = loaded(builder, tmp_path)
    picture = picture_of(mesh, size=128)
    np.testing.assert_array_equal(picture[64, 64], [255, 0, 0, 255])
    row = picture[64]
    rim = row[np.flatnonzero(row[:, 3])[[0, -1]]]
    assert rim[:, :3].max() == 0  # beyond the body's edge the hull's far side is seen
    cells, feats = surface_voxels(outside(mesh), 32)
    np.testing.assert_allclose(feats[:, :3], np.tile([1, 0, 0], (len(feats), 1)), atol=0.02)
    builder.json["materials"][1]["doubleSided"] = True
    both = loaded(builder, tmp_path)
    np.testing.assert_array_equal(picture_of(both, size=128)[64, 64], [0, 0, 0, 255])
    cells, feats = surface_voxels(outside(both), 32)
    assert feats[:, 0].mean() < 0.6
    away = (cells[:, 2:] - 15.5) / 15.5
    black_ones = feats[:, 0] < 0.1
    assert black_ones.sum() > 500
    assert ((feats[:, 3:6] * away).sum(1)[black_ones] > 0).all()  # turned to the outside, where it is seen from


def test_backs_are_seen_where_the_material_says_so(tmp_path: Path) -> None:
    for double_sided, alpha in ((False, 0), (True, 255)):
        mesh = loaded(card(doubleSided=double_sided), tmp_path)
        assert picture_of(mesh)[32, 32, 3] == 255
        assert picture_of(mesh, 180.0)[32, 32, 3] == alpha
        assert len(surface_voxels(outside(mesh), 16)[0]) >= 14 * 14
    # The light falls on the side that is looked at.
    front, back = (
        render(mesh, [orbit_camera(FRONT_YAW + yaw, 0.0, size=32)], SOFT)[0, 0, 16, 16, 0] for yaw in (0.0, 180.0)
    )
    assert front > back + 20


def test_what_glows_is_added(tmp_path: Path) -> None:
    def color(**material: Any) -> list[float]:
        return loaded(card(**material), tmp_path).colors[0].round(3).tolist()

    black = {"baseColorFactor": [0, 0, 0, 1]}
    assert color(pbrMetallicRoughness=black, emissiveFactor=[1, 0, 1]) == [1, 0, 1]
    green = {"baseColorFactor": [0, 0.2140411, 0, 1]}
    assert color(pbrMetallicRoughness=green, emissiveFactor=[0.2140411, 0, 0]) == [0.5, 0.5, 0]
    half = {
        "emissiveFactor": [0.1070205, 0, 0],
        "extensions": {"KHR_materials_emissive_strength": {"emissiveStrength": 2}},
    }
    assert color(pbrMetallicRoughness=black, **half) == [0.5, 0, 0]
    assert (
        color(pbrMetallicRoughness=black, emissiveFactor=[1, 1, 1], extensions={"KHR_materials_unlit": {}}) == [0] * 3
    )
    assert color(emissiveFactor=[0, 1, 0]) == [0, 1, 0]  # with no base color at all, that is not white
    builder = card()
    show(builder, np.full((4, 4, 3), RED, np.uint8))
    builder.json["materials"] = [
        {"pbrMetallicRoughness": black, "emissiveTexture": {"index": 0}, "emissiveFactor": [1, 1, 1]}
    ]
    np.testing.assert_allclose(loaded(builder, tmp_path).colors.mean(0), [1, 0, 0], atol=1e-6)


def quadrants() -> NDArray[np.uint8]:
    """Red green above, blue white below."""
    made = np.zeros((4, 4, 3), np.uint8)
    made[:2, :2], made[:2, 2:], made[2:, :2], made[2:, 2:] = RED, GREEN, BLUE, 255
    return made


def corners(mesh: AnimatedMesh) -> list[list[int]]:
    """Colors of the card's quarters, seen from the front: left above, right above, left below, right below."""
    picture = picture_of(mesh)
    rows, columns = (np.flatnonzero((picture[..., 3] == 255).any(axis)) for axis in (1, 0))
    quarter = len(rows) // 4
    places = (quarter, len(rows) - quarter)
    return [picture[rows[i], columns[j], :3].tolist() for i in places for j in places]


def test_textures_lie_the_right_way_round_in_every_kind_of_image(tmp_path: Path) -> None:
    wanted = [list(RED), list(GREEN), list(BLUE), [255] * 3]
    palette = Image.fromarray(quadrants()).convert("P", palette=Image.Palette.ADAPTIVE)
    stored = (encoded(quadrants()), encoded(quadrants(), "WEBP"), encoded(np.asarray(palette.convert("RGBA"))))
    for data in stored:
        builder = card()
        show(builder, data)
        assert corners(loaded(builder, tmp_path)) == wanted
    builder.json["textures"] = [{"source": 0, "extensions": {"EXT_texture_webp": {"source": 1}}}]
    builder.json["images"].append({"bufferView": builder.view(encoded(quadrants()[:, ::-1], "WEBP"))})
    assert corners(loaded(builder, tmp_path)) == [wanted[1], wanted[0], wanted[3], wanted[2]]
    builder.json["textures"] = [{"extensions": {"MSFT_texture_dds": {"source": 0}}}]
    with pytest.raises(InputError, match=r"a.glb: texture 0 has no image .*MSFT_texture_dds.*PNG, JPEG or WebP"):
        loaded(builder, tmp_path)


def test_sixteen_bits_of_gray_are_not_cut_off(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (8, 1))
    builder = card()
    show(builder, encoded(ramp))
    mesh = loaded(builder, tmp_path)
    share = (mesh.vertices[0, :, 0] / np.ptp(mesh.vertices[0, :, 0]) + 0.5).clip(1 / 128, 1 - 1 / 128)
    inner = np.abs(mesh.vertices[0, :, 0]) < 0.4
    np.testing.assert_allclose(mesh.colors[inner, 0], (share[inner] * 64 - 0.5) / 63, atol=0.02)


@pytest.mark.parametrize(
    ("wrap", "wanted"),
    [(33071, [RED, RED, RED, RED]), (33648, [RED, GREEN, GREEN, RED]), (10497, [RED, GREEN, RED, GREEN])],
)
def test_beside_the_image_lies_what_the_sampler_says(
    tmp_path: Path, wrap: int, wanted: list[tuple[int, int, int]]
) -> None:
    """The card shows u from -2 to 2, of an image that is red on its left and green on its right."""
    made = np.zeros((2, 2, 3), np.uint8)
    made[:, 0], made[:, 1] = RED, GREEN
    builder = card()
    show(builder, made)
    primitive(builder)["attributes"]["TEXCOORD_0"] = builder.add([[-2, 1], [2, 1], [2, 0], [-2, 0]])
    builder.json["samplers"] = [{"magFilter": 9728, "wrapS": wrap, "wrapT": 10497}]
    builder.json["textures"][0]["sampler"] = 0
    picture = picture_of(loaded(builder, tmp_path), size=128)
    columns = np.flatnonzero(picture[64, :, 3] == 255)
    places = np.array([-1.75, -1.25, -0.75, -0.25]) / 4 + 0.5
    seen = picture[64, columns[(places * (len(columns) - 1)).astype(int)], :3].tolist()
    if wrap == 33648:  # from -2: the image, mirrored, the image, ...
        wanted = [RED, GREEN, GREEN, RED]
    assert seen == [list(color) for color in wanted]


def test_squares_stay_squares_where_the_sampler_says_so(tmp_path: Path) -> None:
    made = np.array([[RED, GREEN, BLUE, RED]], np.uint8)
    builder = card()
    show(builder, made)
    primitive(builder)["attributes"]["TEXCOORD_0"] = builder.add([[0.26, 0.5]] * 4)  # just within the second
    builder.json["samplers"] = [{"magFilter": 9728}]
    builder.json["textures"][0]["sampler"] = 0
    np.testing.assert_allclose(loaded(builder, tmp_path).colors.mean(0), [0, 1, 0], atol=1e-6)
    builder.json["samplers"] = [{"magFilter": 9729}]
    mixed = loaded(builder, tmp_path).colors.mean(0)
    assert mixed[0] > 0.6
    assert mixed[1] > 0.6


def test_a_texture_is_shown_by_the_coordinates_it_names(tmp_path: Path) -> None:
    made = np.array([[RED, GREEN], [BLUE, (255, 255, 255)]], np.uint8)

    def color(**info: Any) -> list[float]:
        builder = card()
        material = show(builder, made)
        material["pbrMetallicRoughness"]["baseColorTexture"].update(info)
        primitive(builder)["attributes"] |= {
            "TEXCOORD_0": builder.add([[0.25, 0.25]] * 4),
            "TEXCOORD_1": builder.add([[0.75, 0.25]] * 4),
            "TEXCOORD_2": builder.add([[0.25, 0.75]] * 4),
        }
        return loaded(builder, tmp_path).colors[0].round(3).tolist()

    def transform(**values: Any) -> dict[str, Any]:
        return {"extensions": {"KHR_texture_transform": values}}

    assert color() == [1, 0, 0]
    assert color(texCoord=1) == [0, 1, 0]
    assert color(texCoord=1, **transform(texCoord=2)) == [0, 0, 1]
    assert color(texCoord=1, **transform(texCoord=0)) == [1, 0, 0]
    assert color(**transform(offset=[0.5, 0])) == [0, 1, 0]
    assert color(**transform(offset=[0, 1], rotation=np.pi / 2)) == [0, 0, 1]  # (u, v) to (v, 1 - u)
    assert color(**transform(scale=[3, 3])) == [1, 1, 1]
    assert color(texCoord=7) == [1, 1, 1]  # no such coordinates: the plain color


def test_an_image_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(gltf_textures.Image, "open", lambda *args, **more: opened.append(1) or original(*args, **more))
    builder = card()
    show(builder, quadrants())
    builder.json["images"] *= 2
    builder.json["textures"] = [{"source": 0}, {"source": 1}]
    other = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 1}}}
    builder.json["materials"].append(other)
    held = builder.json["meshes"][0]["primitives"]
    held += [held[0], {**held[0], "material": 1}] * 3
    loaded(builder, tmp_path)
    assert len(opened) == 2


original = Image.open


@pytest.mark.parametrize(
    "name", ["KHR_lights_punctual", "KHR_materials_transmission", "KHR_materials_emissive_strength", "KHR_xmp_json_ld"]
)
def test_extensions_that_change_no_shape_and_no_color_are_passed_over(tmp_path: Path, name: str) -> None:
    builder = card()
    builder.json["extensionsRequired"] = builder.json["extensionsUsed"] = [name]
    np.testing.assert_array_equal(loaded(builder, tmp_path).colors, 1)
    builder.json["extensionsRequired"].append("EXT_other_shapes")
    with pytest.raises(InputError, match=r"a.glb requires the extension EXT_other_shapes.*save it without"):
        loaded(builder, tmp_path)
