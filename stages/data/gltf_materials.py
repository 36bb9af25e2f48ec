"""What materials of glTF files make of a surface: its color, how much it hides, and whether its back is seen.

Axes: v vertex.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ss4d.stages.data.gltf_file import GltfFile
from ss4d.stages.data.gltf_parts import Part
from ss4d.stages.data.gltf_references import AGAIN
from ss4d.stages.data.gltf_textures import Images, Texture, texture
from ss4d.stages.data.surface import Doubles
from ss4d.stages.errors import InputError

GLOSSY = "KHR_materials_pbrSpecularGlossiness"


@dataclass(frozen=True, eq=False)
class Look:
    """A material.

    Attributes:
        factor: (4) linear base color and alpha.
        base: texture that multiplies them.
        glow: (3) linear light that it gives off.
        glowing: texture that multiplies that.
        mode: OPAQUE, MASK or BLEND.
        cutoff: alpha from which on MASK is seen.
        double_sided: whether its back is seen.
    """

    factor: Doubles
    base: Texture | None
    glow: Doubles
    glowing: Texture | None
    mode: str
    cutoff: float
    double_sided: bool

    @property
    def images(self) -> tuple[int, ...]:
        return tuple(held.image for held in (self.base, self.glowing) if held is not None)


def look(file: GltfFile, part: Part) -> Look:
    """The material of a part, without the textures for which it has no coordinates.

    Raises:
        InputError: if it is damaged.
    """
    if part.primitive.material is None:
        return Look(np.ones(4), None, np.zeros(3), None, "OPAQUE", 0.5, False)
    held = file.gltf.materials[part.primitive.material]
    extensions = held.extensions or {}
    rough, glossy = held.pbrMetallicRoughness, extensions.get(GLOSSY)
    if glossy is not None:
        factor, base = glossy.get("diffuseFactor"), glossy.get("diffuseTexture")
    else:
        factor, base = (rough.baseColorFactor, _info(rough.baseColorTexture)) if rough else (None, None)
    glow = _numbers(file, part, held.emissiveFactor or (0, 0, 0), 3)
    if "KHR_materials_unlit" in extensions:
        glow = np.zeros(3)
    elif glow.any() and factor is None and base is None:
        factor = (0, 0, 0, 1)  # what only glows is not white below, as the format's default has it
    strength = extensions.get("KHR_materials_emissive_strength", {}).get("emissiveStrength", 1.0)
    return Look(
        factor=_numbers(file, part, factor or (1, 1, 1, 1), 4),
        base=_usable(part, texture(file, base)),
        glow=glow * float(strength),
        glowing=_usable(part, texture(file, _info(held.emissiveTexture))) if glow.any() else None,
        mode=held.alphaMode or "OPAQUE",
        cutoff=0.5 if held.alphaCutoff is None else float(held.alphaCutoff),
        double_sided=bool(held.doubleSided),
    )


def paint(file: GltfFile, part: Part, held: Look) -> Doubles:
    """What the colors of a part's vertices are worked out from (v, 8): color and alpha, then both textures' places."""
    count = len(part.rows)
    made = np.concatenate((np.ones((count, 4)), np.zeros((count, 4))), axis=1)
    stored = getattr(part.primitive.attributes, "COLOR_0", None)
    if stored is not None:
        colors = _attribute(file, part, "COLOR_0", (3, 4))
        made[:, : colors.shape[1]] = np.nan_to_num(colors, nan=1.0)
    for column, shown in ((4, held.base), (6, held.glowing)):
        if shown is not None:
            places = shown.places(_attribute(file, part, shown.coordinates, (2,)))
            if not np.isfinite(places).all():
                raise InputError(
                    f"{file.path}: {part.name} has texture coordinates that are not finite numbers; {AGAIN}"
                )
            made[:, column : column + 2] = places
    return made


def painted(images: Images, held: Look, values: Doubles) -> Doubles:
    """Colors in sRGB and alpha (v, 4), 0 to 1, of vertices with the values (v, 8) of `paint`."""
    made = values[:, :4] * held.factor
    if held.base is not None:
        made = made * held.base.colors(images.get(held.base.image), values[:, 4:6])
    glow = np.broadcast_to(held.glow, (len(values), 3))
    if held.glowing is not None:
        glow = glow * held.glowing.colors(images.get(held.glowing.image), values[:, 6:8])[:, :3]
    return np.concatenate((_srgb(made[:, :3] + glow), np.clip(made[:, 3:], 0, 1)), axis=1)


def _info(held: Any) -> dict[str, Any] | None:
    """A texture's use in a material, with the file's own names."""
    if held is None or isinstance(held, dict):
        return held
    return {"index": held.index, "texCoord": held.texCoord, "extensions": held.extensions}


def _usable(part: Part, shown: Texture | None) -> Texture | None:
    """The texture, if the part has coordinates for it; else its material's plain color is what is seen."""
    if shown is None or getattr(part.primitive.attributes, shown.coordinates, None) is None:
        return None
    return shown


def _attribute(file: GltfFile, part: Part, name: str, widths: tuple[int, ...]) -> Doubles:
    """The numbers (v, n) of one attribute of the part's vertices."""
    values = file.array(getattr(part.primitive.attributes, name))
    if values.ndim != 2 or values.shape[1] not in widths or len(values) <= part.rows.max(initial=-1):
        raise InputError(f"{file.path}: {part.name}, {name} has {values.shape} numbers for its vertices; {AGAIN}")
    if name == "COLOR_0" and values.dtype.kind in "iu":  # which some files forget to call normalized
        values = values / np.iinfo(values.dtype).max
    return np.asarray(values[part.rows], np.float64)


def _numbers(file: GltfFile, part: Part, held: Any, count: int) -> Doubles:
    values = np.asarray(held, np.float64)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise InputError(f"{file.path}: the material of {part.name} has {held!r} for {count} numbers; {AGAIN}")
    return values


def _srgb(color: Doubles) -> Doubles:
    color = np.clip(color, 0, 1)
    return np.asarray(np.where(color <= 0.0031308, color * 12.92, 1.055 * color ** (1 / 2.4) - 0.055))
