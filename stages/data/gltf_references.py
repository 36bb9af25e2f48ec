"""Checks of a glTF file's JSON: that it holds what it points to, and numbers where numbers belong.

It owns no arrays.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ss4d.stages.errors import InputError

# What may be negative; every other number in a file counts something, points to it or is a share.
SIGNED = {"translation", "rotation", "scale", "matrix", "weights", "min", "max", "extensions", "extras"}
# Where a file points to something, and to which of its lists. [] stands for each item of a list, * for each value.
POINTERS = {
    "scene": "scenes",
    "scenes[].nodes[]": "nodes",
    "nodes[].mesh": "meshes",
    "nodes[].skin": "skins",
    "nodes[].children[]": "nodes",
    "meshes[].primitives[].attributes.*": "accessors",
    "meshes[].primitives[].indices": "accessors",
    "meshes[].primitives[].material": "materials",
    "meshes[].primitives[].targets[].*": "accessors",
    "skins[].joints[]": "nodes",
    "skins[].inverseBindMatrices": "accessors",
    "animations[].samplers[].input": "accessors",
    "animations[].samplers[].output": "accessors",
    "materials[].pbrMetallicRoughness.baseColorTexture.index": "textures",
    "materials[].emissiveTexture.index": "textures",
    "materials[].extensions.KHR_materials_pbrSpecularGlossiness.diffuseTexture.index": "textures",
    "nodes[].extensions.EXT_mesh_gpu_instancing.attributes.*": "accessors",
    "textures[].source": "images",
    "textures[].sampler": "samplers",
    "textures[].extensions.EXT_texture_webp.source": "images",
    "textures[].extensions.EXT_texture_avif.source": "images",
    "textures[].extensions.KHR_texture_basisu.source": "images",
    "images[].bufferView": "bufferViews",
    "accessors[].bufferView": "bufferViews",
    "accessors[].sparse.indices.bufferView": "bufferViews",
    "accessors[].sparse.values.bufferView": "bufferViews",
    "bufferViews[].buffer": "buffers",
}
# What must be there, wherever what holds it is.
NEEDED = (
    "meshes[].primitives",
    "meshes[].primitives[].attributes",
    "skins[].joints",
    "animations[].samplers",
    "animations[].channels",
    "animations[].channels[].sampler",
    "animations[].channels[].target",
    "animations[].samplers[].input",
    "animations[].samplers[].output",
    "materials[].pbrMetallicRoughness.baseColorTexture.index",
    "materials[].emissiveTexture.index",
    "accessors[].componentType",
    "accessors[].count",
    "accessors[].type",
    "bufferViews[].buffer",
    "bufferViews[].byteLength",
)
# Lists of so many numbers.
NUMBERS = {
    "nodes[].translation": 3,
    "nodes[].rotation": 4,
    "nodes[].scale": 3,
    "nodes[].matrix": 16,
    "materials[].emissiveFactor": 3,
    "materials[].pbrMetallicRoughness.baseColorFactor": 4,
    "materials[].extensions.KHR_materials_pbrSpecularGlossiness.diffuseFactor": 4,
    "materials[].*.extensions.KHR_texture_transform.offset": 2,
    "materials[].*.extensions.KHR_texture_transform.scale": 2,
    "materials[].pbrMetallicRoughness.*.extensions.KHR_texture_transform.offset": 2,
    "materials[].pbrMetallicRoughness.*.extensions.KHR_texture_transform.scale": 2,
}
AGAIN = "it is damaged, or was saved wrongly; export it again."


def check_references(path: Path, held: dict[str, Any]) -> None:
    """Nothing, if the JSON `held` of the file points only to what it has.

    Raises:
        InputError: naming the part that is wrong.
    """
    if (key := _negative(held)) is not None:  # to Python it would count from the end
        raise InputError(f"{path} is damaged: it has a number below 0 as its {key}.")
    for pattern in NEEDED:
        parent, _, key = pattern.rpartition(".")
        for where, value in _found(path, held, parent):
            if key not in _as_dict(path, where, value):
                raise InputError(f"{path}: {where} has no {key}; {AGAIN}")
    for pattern, target in POINTERS.items():
        size = len(_as_list(path, target, held.get(target, [])))
        for where, value in _found(path, held, pattern):
            if isinstance(value, bool) or not isinstance(value, int):
                raise InputError(f"{path}: {where} is {value!r}, not the number of one of its {target}; {AGAIN}")
            if not 0 <= value < size:
                raise InputError(f"{path}: {where} is {value}, but it has {size} {target}; {AGAIN}")
    for pattern, size in NUMBERS.items():
        for where, value in _found(path, held, pattern):
            if not isinstance(value, list) or len(value) != size or not all(map(_is_number, value)):
                raise InputError(f"{path}: {where} is {value!r}, not {size} numbers; {AGAIN}")
    for where, animation in _found(path, held, "animations[]"):
        size = len(animation["samplers"])
        for inner, value in _found(path, animation, "channels[].sampler"):
            if not isinstance(value, int) or not 0 <= value < size:
                raise InputError(f"{path}: {where}.{inner} is {value!r}, but it has {size} samplers; {AGAIN}")


def printable(text: object) -> str:
    """A name from a file, for a sentence: without characters that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(text))


def _found(path: Path, held: Any, pattern: str) -> Iterator[tuple[str, Any]]:
    """The values at `pattern`, each with the place it is at, such as nodes[3].mesh."""
    waiting = [("", held)]
    steps = pattern.split(".")
    for number, step in enumerate(steps):
        name, many = step.removesuffix("[]"), step.endswith("[]")
        found = []
        for where, value in waiting:
            inner = _as_dict(path, where, value)
            keys = [name] if inner.get(name) is not None else []
            if name == "*":
                keys = [key for key in inner if number == len(steps) - 1 or isinstance(inner[key], dict)]
            found += [(f"{where}.{key}" if where else key, inner[key]) for key in keys]
        if many:
            found = [
                (f"{where}[{i}]", item) for where, items in found for i, item in enumerate(_as_list(path, where, items))
            ]
        waiting = found
    yield from waiting


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_dict(path: Path, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path}: {where or 'its JSON'} is not an object with names; {AGAIN}")
    return value


def _as_list(path: Path, where: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{path}: {where} is not a list; {AGAIN}")
    return value


def _negative(value: object, key: str = "") -> str | None:
    """The name of the first number below 0 that counts something or points to it; None if there is none."""
    if isinstance(value, dict):
        inner = [(part, name) for name, part in value.items() if name not in SIGNED]
    elif isinstance(value, list):
        inner = [(part, key) for part in value]
    else:
        return key if isinstance(value, int | float) and value < 0 else None
    return next((found for part, name in inner if (found := _negative(part, name)) is not None), None)
