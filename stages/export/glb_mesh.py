"""A textured mesh in a GLB: its arrays, and the material that shows its texture."""

import io
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from ss4d.stages.export.glb_file import INDICES, UNSIGNED_INT, VERTICES, GlbArrays
from ss4d.stages.types import MeshClip

UNLIT = "KHR_materials_unlit"
QUALITY = 92  # of the textures, which are JPEG files
LINEAR, MIPMAPS, CLAMP = 9729, 9987, 33071  # how textures are read, as glTF counts that


def primitive(arrays: GlbArrays, mesh: MeshClip, material: int) -> dict[str, Any]:
    """The mesh of a clip of one frame, as a document lists it; declares its arrays, whose bytes `mesh_parts` gives."""
    return {
        "attributes": {
            "POSITION": places(arrays, mesh.vertices),
            "TEXCOORD_0": arrays.add(len(mesh.uv), "VEC2", target=VERTICES),
        },
        "indices": arrays.add(mesh.faces.numel(), "SCALAR", UNSIGNED_INT, target=INDICES),
        "material": material,
    }


def places(arrays: GlbArrays, rows: Tensor) -> int:
    """Declares places (v, 3), or how far they move; gives the accessor's number."""
    least, most = rows.amin(0).tolist(), rows.amax(0).tolist()
    return arrays.add(len(rows), "VEC3", target=VERTICES, min=least, max=most)


def mesh_parts(mesh: MeshClip) -> Iterator[bytes]:
    """The bytes of the arrays that `primitive` declares, in order."""
    yield mesh.vertices.numpy().astype("<f4").tobytes()
    yield mesh.uv.numpy().astype("<f4").tobytes()
    yield mesh.faces.numpy().astype("<u4").tobytes()


def picture(texture: Tensor) -> bytes:
    """A texture (s, s, 3) uint8 as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(texture.numpy()).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def materials(views: Sequence[int]) -> dict[str, Any]:
    """What a document has of materials: one for each picture, whose files are in `views`, of which there are some."""
    colors = [{"baseColorTexture": {"index": k}, "metallicFactor": 0, "roughnessFactor": 1} for k in range(len(views))]
    return {
        "extensionsUsed": [UNLIT],
        "materials": [{"pbrMetallicRoughness": color, "extensions": {UNLIT: {}}} for color in colors],
        "textures": [{"sampler": 0, "source": k} for k in range(len(views))],
        "samplers": [{"magFilter": LINEAR, "minFilter": MIPMAPS, "wrapS": CLAMP, "wrapT": CLAMP}],
        "images": [{"bufferView": view, "mimeType": "image/jpeg"} for view in views],
    }
