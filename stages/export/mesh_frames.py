"""Frames of a mesh in bytes, as `viewer/mesh.js` draws them.

Little-endian: the number of vertices, of faces, and pixels of a side of the texture (32 bits each); least coordinates
and extent in world space (3 floats of 32 bits each); faces (3 integers of 32 bits each); places in the texture (2 of 16
bits, of its side); vertices (3 of 16 bits, of the extent); the texture in WebP. All of it is compressed with gzip.
"""

import gzip
import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ss4d.stages.types import MeshClip

QUALITY = 92  # of the texture
LEAST_EXTENT = 1e-6
LEVEL = 6  # of gzip


def encode_mesh(frame: MeshClip) -> bytes:
    """A clip of one frame, which may be empty."""
    vertices = frame.vertices.numpy().astype(np.float64)
    low, high = (vertices.min(0), vertices.max(0)) if len(vertices) else (np.zeros(3), np.ones(3))
    extent = np.maximum(high - low, LEAST_EXTENT)
    texture = io.BytesIO()
    Image.fromarray(frame.texture[0].numpy()).save(texture, "WEBP", quality=QUALITY)
    parts = (
        struct.pack("<3I", len(vertices), len(frame.faces), frame.texture.shape[1]),
        np.concatenate([low, extent]).astype("<f4").tobytes(),
        frame.faces.numpy().astype("<u4").tobytes(),
        _steps(frame.uv.numpy()),
        _steps((vertices - low) / extent),
        texture.getvalue(),
    )
    return gzip.compress(b"".join(parts), LEVEL, mtime=0)


def most_bytes(mesh: MeshClip) -> int:
    """Bytes of the largest frame once it is unpacked."""
    vertices, faces = (int(offsets.diff().max()) for offsets in (mesh.vertex_offsets, mesh.face_offsets))
    return 10 * vertices + 12 * faces + 4 * mesh.texture.shape[1] ** 2


def _steps(shares: NDArray[np.floating]) -> bytes:
    """Numbers from 0 to 1 in 16 bits each; those outside are clipped."""
    steps: NDArray[np.uint16] = np.rint(shares.clip(0, 1) * 65535).astype("<u2")
    return steps.tobytes()
