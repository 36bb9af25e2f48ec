"""How a glTF file plays frames: a node for each, whose scale is 1 while it is shown and 0 while it is not, in steps."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ss4d.stages.export.glb_file import GlbArrays

SHOWN, HIDDEN = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)


def frame_animation(arrays: GlbArrays, num_frames: int, fps: float) -> dict[str, Any]:
    """The animation of nodes 0 to n - 1, of at least two frames; declares its arrays, `animation_parts` gives them."""
    samplers, channels = [], []
    for t in range(num_frames):
        times, _ = _schedule(t, num_frames, fps)
        times_at = arrays.add(len(times), "SCALAR", min=[float(times[0])], max=[float(times[-1])])
        samplers.append({"input": times_at, "output": arrays.add(len(times), "VEC3"), "interpolation": "STEP"})
        channels.append({"sampler": t, "target": {"node": t, "path": "scale"}})
    return {"name": "clip", "samplers": samplers, "channels": channels}


def animation_parts(num_frames: int, fps: float) -> Iterator[bytes]:
    """The bytes of the arrays that `frame_animation` declares, in order."""
    for t in range(num_frames):
        for column in _schedule(t, num_frames, fps):
            yield column.astype("<f4").tobytes()


def _schedule(t: int, num_frames: int, fps: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """When the scale of node `t` changes (k), in seconds, and to what (k, 3).

    Every node has a last entry at the clip's end, so that the last frame is shown as long as the others.
    """
    changes = {0.0: HIDDEN, t / fps: SHOWN, (t + 1) / fps: HIDDEN, num_frames / fps: HIDDEN}
    if t == num_frames - 1:
        changes[num_frames / fps] = SHOWN
    return np.array(sorted(changes), np.float32), np.array([changes[time] for time in sorted(changes)], np.float32)
