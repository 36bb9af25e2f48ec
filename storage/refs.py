"""Names of artifacts: the stage that made one, and a digest of everything that determines its content."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ss4d.storage.errors import StoreError

_STAGE = re.compile(r"[a-z_][a-z0-9_]*")
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ArtifactRef:
    """Names one artifact; nothing but these two checked parts ever becomes a path.

    Args:
        stage: the stage that makes it, of a-z, 0-9 and "_", no digit first.
        key: its content address, 64 hexadecimal digits in lower case, see `artifact_key`.

    Raises:
        StoreError: if either part is anything else.
    """

    stage: str
    key: str

    def __post_init__(self) -> None:
        if not (isinstance(self.stage, str) and _STAGE.fullmatch(self.stage)):
            raise StoreError(f"{self.stage!r} is not a stage's name; use a-z, 0-9 and '_', no digit first")
        if not (isinstance(self.key, str) and _KEY.fullmatch(self.key)):
            raise StoreError(f"{self.key!r} is not a key of an artifact of {self.stage}; it must be 64 hex digits")

    def __str__(self) -> str:
        return f"{self.stage}/{self.key}"


def ref_of(stage: str, key: str) -> ArtifactRef | None:
    """The reference of these parts; None if they are none, such as those of a file that is no artifact."""
    return ArtifactRef(stage, key) if _STAGE.fullmatch(stage) and _KEY.fullmatch(key) else None


def canonical_json(recipe: Mapping[str, object]) -> str:
    """The text that a recipe's key is the hash of: sorted keys, no spaces, floats by repr, ASCII.

    Tuples count as lists; 1, 1.0 and true are three different values.

    Raises:
        StoreError: naming the entry that is no JSON value, such as NaN, an array or a key that is not a string.
    """
    plain = dict(recipe)
    _check_json(plain, "recipe")
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def artifact_key(recipe: Mapping[str, object]) -> str:
    """Content address of what `recipe` makes: sha256 of its canonical JSON. Raises as `canonical_json` does."""
    return key_of(canonical_json(recipe))


def key_of(text: str) -> str:
    """The key that belongs to the canonical JSON of a recipe."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _check_json(value: object, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise StoreError(f"{where} has the key {key!r}; a recipe's keys must be strings")
            _check_json(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_json(item, f"{where}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise StoreError(f"{where} is {value}; a recipe's numbers must be finite")
    elif not (value is None or isinstance(value, str | int | float)):
        raise StoreError(f"{where} is {value!r}, which JSON cannot hold; give numbers, strings, lists or dictionaries")
