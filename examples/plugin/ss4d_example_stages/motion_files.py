"""What the stage `motion` computes and writes: `motion.parquet`, a row for each frame, and `motion.png`, the path."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet

from ss4d.pipelines.stage_inputs import StageInputs
from ss4d.stages.types import Clip, GaussianClip
from ss4d_example_stages.motion import MotionConfig

AXES = {"x": (60, 60, 220), "y": (60, 160, 60), "z": (220, 120, 40)}  # blue, green, red of each line


def write_motion(config: MotionConfig, inputs: StageInputs) -> None:
    """The center and the extent of the object in world units, frame by frame; of an empty frame they are null."""
    gaussians = inputs.value("decoding", GaussianClip)
    fps = inputs.value("segmentation", Clip).fps
    num_frames = len(gaussians.offsets) - 1
    rows = np.full((num_frames, 6), np.nan, np.float32)  # center x, y, z and extent x, y, z
    for t, (first, last) in enumerate(zip(gaussians.offsets[:-1], gaussians.offsets[1:], strict=True)):
        seen = gaussians.opacities[first:last] >= config.opacity
        means = gaussians.means[first:last][seen]
        if len(means):
            weights = (gaussians.opacities[first:last] * gaussians.scales[first:last].prod(-1))[seen, None]
            center = (means * weights).sum(0) / weights.sum()
            rows[t] = torch.cat([center, means.amax(0) - means.amin(0)]).numpy()
        inputs.progress(t + 1, num_frames)
    _write_table(rows, fps, inputs.folder / "motion.parquet")
    _write_plot(rows[:, :3], config.size, inputs.folder / "motion.png")


def _write_table(rows: np.ndarray, fps: float, path: Path) -> None:
    steps = np.linalg.norm(np.diff(rows[:, :3], axis=0, prepend=rows[:1, :3]), axis=1)
    columns = {"frame": np.arange(len(rows)), "seconds": np.arange(len(rows)) / fps}
    columns |= {f"center_{axis}": rows[:, number] for number, axis in enumerate(AXES)}
    columns |= {f"extent_{axis}": rows[:, 3 + number] for number, axis in enumerate(AXES)}
    columns["moved"] = np.nancumsum(steps)
    parquet.write_table(pa.table({name: pa.array(data, from_pandas=True) for name, data in columns.items()}), path)


def _write_plot(centers: np.ndarray, size: int, path: Path) -> None:
    """The center's coordinates over time, -0.5 to 0.5 from bottom to top."""
    image = np.full((size, 2 * size, 3), 255, np.uint8)
    cv2.line(image, (0, size // 2), (2 * size, size // 2), (220, 220, 220), 1)
    across = np.linspace(0, 2 * size - 1, max(len(centers), 2))[: len(centers)]
    for number, (axis, color) in enumerate(AXES.items()):
        up = (0.5 - centers[:, number]) * (size - 1)
        there = np.isfinite(up)
        points = np.stack([across[there], up[there]], axis=1).round().astype(np.int32)
        cv2.polylines(image, [points], isClosed=False, color=color, thickness=2, lineType=cv2.LINE_AA)
        cv2.putText(image, axis, (12 + 30 * number, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.8, color, 2, cv2.LINE_AA)
    if not cv2.imwrite(str(path), image):
        raise OSError(f"{path} could not be written")
