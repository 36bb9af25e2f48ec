"""Files that are compressed: the packages of the extra `assets` read them, and without these a sentence names them."""

import sys
from pathlib import Path
from typing import Any

import meshopt
import numpy as np
import pytest

from ss4d.stages.data.gltf import load_animated
from ss4d.stages.data.gltf_compression import read_ktx2
from ss4d.stages.errors import InputError
from tests.helpers.gltf_files import POINTS, Builder, encoded, primitive, tetrahedron, textured
from tests.helpers.gltf_packed import ktx2, with_draco, with_ktx2, with_meshopt
from tests.helpers.places import DATA

KINDS = {
    "KHR_draco_mesh_compression": "DracoPy",
    "EXT_meshopt_compression": "meshopt",
    "KHR_texture_basisu": "opengl_basisu",
}


def colored(builder: Builder) -> Builder:
    colors = np.array([[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [255, 255, 255, 255]])
    primitive(builder)["attributes"]["COLOR_0"] = builder.add(colors, "<u1", normalized=True)
    return builder


@pytest.mark.parametrize("pack", [with_draco, with_meshopt])
def test_packed_arrays_are_those_that_were_packed(tmp_path: Path, pack: Any) -> None:
    plain = load_animated(colored(tetrahedron()).save(tmp_path / "a.glb"), 1, 1.0)
    mesh = load_animated(pack(colored(tetrahedron())).save(tmp_path / "b.glb"), 1, 1.0)
    # Which corner of a face comes first may change.
    np.testing.assert_allclose(mesh.vertices[0][mesh.faces].mean(1), plain.vertices[0][plain.faces].mean(1), atol=1e-4)
    np.testing.assert_allclose(mesh.colors[mesh.faces].mean(1), plain.colors[plain.faces].mean(1), atol=1e-6)
    np.testing.assert_allclose(mesh.normals()[0][mesh.faces[:, 0]], plain.normals()[0][plain.faces[:, 0]], atol=1e-3)


def test_packed_texture_coordinates_and_filters(tmp_path: Path) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:, :4], picture[:, 4:] = (255, 0, 0), (0, 0, 255)
    mesh = load_animated(with_draco(textured(picture)).save(tmp_path / "a.glb"), 1, 1.0)
    x = mesh.vertices[0, :, 0]
    np.testing.assert_allclose(mesh.colors[x < -0.1][:, 0], 1, atol=1e-5)
    builder = with_meshopt(tetrahedron())
    packed = meshopt.encode_gltf_buffer(meshopt.encode_filter_exp(POINTS, 16), "ATTRIBUTES")
    values = builder.json["bufferViews"][0]["extensions"]["EXT_meshopt_compression"]
    held = builder.json["bufferViews"][builder.view(packed)]
    values |= {"byteOffset": held["byteOffset"], "byteLength": len(packed), "filter": "EXPONENTIAL"}
    plain = load_animated(tetrahedron().save(tmp_path / "a.glb"), 1, 1.0)
    mesh = load_animated(builder.save(tmp_path / "b.glb"), 1, 1.0)
    np.testing.assert_allclose(mesh.vertices[0][mesh.faces].mean(1), plain.vertices[0][plain.faces].mean(1), atol=1e-4)


def test_ktx2_textures_are_read(tmp_path: Path) -> None:
    rows = [[(255, 0, 0, 255), (0, 255, 0, 255)], [(0, 0, 255, 255), (255, 255, 255, 255)]]
    mesh = load_animated(with_ktx2(ktx2(rows)).save(tmp_path / "a.glb"), 1, 1.0)
    x, z = mesh.vertices[0, :, 0], mesh.vertices[0, :, 2]
    for right, above, color in ((False, True, (1, 0, 0)), (True, True, (0, 1, 0)), (False, False, (0, 0, 1))):
        there = (np.abs(x - (0.25 if right else -0.25)) < 0.1) & (np.abs(z - (0.25 if above else -0.25)) < 0.1)
        np.testing.assert_allclose(mesh.colors[there], np.tile(color, (there.sum(), 1)), atol=1e-5)


def quarters() -> np.ndarray:
    """Four colors, one of them half transparent: (40, 56, 4)."""
    picture = np.zeros((40, 56, 4), np.uint8)
    picture[:20, :28], picture[:20, 28:] = (220, 30, 30, 255), (30, 200, 30, 128)
    picture[20:, :28], picture[20:, 28:] = (30, 30, 220, 255), (230, 220, 40, 255)
    return picture


@pytest.mark.parametrize("name", ["etc1s_with_mipmaps", "uastc_with_mipmaps_and_zstd"])
def test_what_another_program_packed_as_ktx2_is_read(name: str) -> None:
    """The files are of alktx2 0.1.7, which holds the encoder of Basis Universal."""
    image = read_ktx2((DATA / "ktx2" / f"{name}.ktx2").read_bytes(), 1 << 20, name)
    assert image.shape == (40, 56, 4)
    assert np.abs(image.astype(int) - quarters()).mean() < 3


def packed_files() -> dict[str, Builder]:
    return {
        "KHR_draco_mesh_compression": with_draco(tetrahedron()),
        "EXT_meshopt_compression": with_meshopt(tetrahedron()),
        "KHR_texture_basisu": with_ktx2(ktx2([[(255, 0, 0, 255)]])),
    }


@pytest.mark.parametrize("extension", list(KINDS))
def test_without_the_package_a_sentence_names_the_part_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str
) -> None:
    monkeypatch.setitem(sys.modules, KINDS[extension], None)
    path = packed_files()[extension].save(tmp_path / "a.glb")
    remedy = r"pip install '\.\[assets\]' in the checkout reads it, or save"
    with pytest.raises(InputError, match=rf"a.glb: \w.* \d.* compressed with {extension}: {remedy}"):
        load_animated(path, 1, 1.0)


@pytest.mark.parametrize("extension", list(KINDS))
def test_damage_in_what_is_packed_is_told(tmp_path: Path, extension: str) -> None:
    builder = packed_files()[extension]
    whole = builder.data
    for start in range(0, len(whole), 16):
        builder.data = whole[:start] + b"\xff" * 16 + whole[start + 16 :]
        try:
            load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0)
        except InputError as error:
            assert "a.glb" in str(error)  # noqa: PT017  some damage is none
    start = builder.json["bufferViews"][-1]["byteOffset"] + (12 if extension == "KHR_texture_basisu" else 0)
    builder.data = whole[:start] + bytes(len(whole) - start)
    with pytest.raises(InputError, match=rf"{extension} cannot be read .*export it again|compression; it is damaged"):
        load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0)


@pytest.mark.parametrize("extension", list(KINDS))
def test_without_the_package_uncompressed_data_beside_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str
) -> None:
    monkeypatch.setitem(sys.modules, KINDS[extension], None)
    if extension == "KHR_texture_basisu":
        builder = with_ktx2(ktx2([[(255, 0, 0, 255)]]))
        png = builder.view(encoded(np.full((4, 4, 3), (0, 0, 255), np.uint8)))
        builder.json["images"].append({"bufferView": png, "mimeType": "image/png"})
        builder.json["textures"][0]["source"] = 1
        builder.json.pop("extensionsRequired")
        np.testing.assert_allclose(load_animated(builder.save(tmp_path / "a.glb"), 1, 1.0).colors.max(0), [0, 0, 1])
        return
    builder = tetrahedron()
    packed = {"bufferView": 0, "attributes": {"POSITION": 0}}
    if extension == "KHR_draco_mesh_compression":
        primitive(builder)["extensions"] = {extension: packed}
    else:
        values = {"buffer": 0, "byteLength": 4, "byteStride": 12, "count": 4, "mode": "ATTRIBUTES"}
        builder.json["bufferViews"][0]["extensions"] = {extension: values}
    plain = load_animated(tetrahedron().save(tmp_path / "a.glb"), 1, 1.0)
    mesh = load_animated(builder.save(tmp_path / "b.glb"), 1, 1.0)
    np.testing.assert_array_equal(mesh.vertices, plain.vertices)
    builder.json["extensionsRequired"] = [extension]
    with pytest.raises(InputError, match=rf"b.glb: .*compressed with {extension}"):
        load_animated(builder.save(tmp_path / "b.glb"), 1, 1.0)
