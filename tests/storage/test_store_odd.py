"""Descriptions that no honest writer makes."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from ss4d.storage.codec import open_array
from ss4d.storage.errors import DamageError


@pytest.mark.parametrize("shape", [None, [-1], "3", {"a": 1}, [[2]], "deep"])
def test_a_description_of_no_array_is_damage(shape: Any) -> None:
    text = "[" * 100_000 + "]" * 100_000 if shape == "deep" else json.dumps(shape)
    described = {"zarr_format": 3, "node_type": "array", "shape": 0, "data_type": "float32", "fill_value": 0}
    grid = {"name": "regular", "configuration": {"chunk_shape": [2]}}
    keys = {"name": "default", "configuration": {"separator": "/"}}
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
    whole = json.dumps({**described, "chunk_grid": grid, "chunk_key_encoding": keys, "codecs": codecs})
    data = np.frombuffer(whole.replace('"shape": 0', f'"shape": {text}').encode(), np.uint8)
    store = MemoryStore()
    asyncio.run(store.set("feats/zarr.json", default_buffer_prototype().buffer.from_array_like(data)))
    with pytest.raises(DamageError, match="describes no array"):
        open_array(store, "feats")
