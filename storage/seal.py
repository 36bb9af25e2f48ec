"""JSON that carries a digest of itself, so that whoever reads it knows whether it is as it was written."""

from collections.abc import Mapping
from typing import Any

from ss4d.storage.errors import StoreError
from ss4d.storage.refs import artifact_key

SEAL = "check"  # the entry with the SHA-256 of all the others, see `ss4d.storage.refs.canonical_json`


def sealed(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data with its digest in it.

    Raises:
        StoreError: if it is no plain JSON.
    """
    return {**data, SEAL: artifact_key(data)}


def is_whole(data: Mapping[str, Any]) -> bool:
    """Whether the data is as it was sealed."""
    try:
        return data.get(SEAL) == artifact_key({name: value for name, value in data.items() if name != SEAL})
    except StoreError:  # damage that is no plain JSON, such as NaN
        return False
