"""An artifact's arrays as an xarray dataset with named axes, each read when it is indexed. Needs the package xarray."""

from typing import Any

import numpy as np
import xarray
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core.indexing import ExplicitIndexer, IndexingSupport, LazilyIndexedArray, explicit_indexing_adapter

from ss4d.pipelines.inspect.summary import axis_names
from ss4d.storage.artifact import Artifact


class _StoredArray(BackendArray):
    """A Zarr array as xarray's lazy indexing wants it."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self.shape, self.dtype, self._array = array.shape, array.dtype, array

    def __getitem__(self, key: ExplicitIndexer) -> Any:
        return explicit_indexing_adapter(key, self.shape, IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        return np.asarray(self._array.oindex[key])


def dataset(artifact: Artifact) -> xarray.Dataset:
    """The dataset; what the artifact's maker noted (recipe, device, seconds) stands in its attributes.

    Raises:
        StoreError: if an array is damaged.
    """
    arrays = {name: artifact.array(name) for name in artifact.arrays()}
    return xarray.Dataset(
        {
            name: xarray.Variable(axis_names(array), LazilyIndexedArray(_StoredArray(array)), dict(array.attrs))
            for name, array in arrays.items()
        },
        attrs={name: value for name, value in artifact.attributes.items() if name not in ("arrays", "files")},
    )
