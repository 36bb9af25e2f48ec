"""SAM 2: the object at a point or in a box of the first frame, followed through the frames (t, y, x, RGB).

The network is that of transformers, which is given one frame after the other. Not run with the published weights so
far, only with small random ones.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ss4d.stages.errors import ModelError
from ss4d.stages.segmentation.alpha import clean_alpha
from ss4d.stages.segmentation.masks import Box
from ss4d.stages.segmentation.saliency_net import MEAN, STD
from ss4d.stages.types import Progress

OBJECT = 1  # what the one object is called
CORNERS, INSIDE = (2, 3), 1  # labels of the points that a prompt is made of: a box has two


def load_sam2(weights: Path, device: str) -> Any:
    """The network whose weights lie in a safetensors file, with its `config.json` beside it.

    Raises:
        ModelError: either is missing or damaged, or they do not belong together.
    """
    from transformers import Sam2VideoConfig, Sam2VideoModel  # an extra

    description = weights.with_name("config.json")
    try:
        model: Any = Sam2VideoModel(Sam2VideoConfig(**json.loads(description.read_text())))
        model.load_state_dict(load_file(weights), strict=True)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"{weights} and {description.name} beside it are not those of SAM 2: {str(error).splitlines()[0]}"
        ) from error
    return model.to(device).eval()


def sam2_masks(
    model: Any, frames: Tensor, box: Box | None, point: tuple[int, int] | None, progress: Progress
) -> tuple[Tensor, Tensor]:
    """Alpha (t, h, w) uint8 of the object, and confidence (t,): how sure the network is to see it.

    Args:
        model: from `load_sam2`.
        frames: (t, h, w, 3) uint8.
        box: the object's in the first frame, or
        point: (x, y) on it there.
        progress: told after each frame.
    """
    height, width = frames.shape[1:3]
    alpha, confidence = torch.zeros(frames.shape[:3], dtype=torch.uint8), torch.zeros(len(frames))
    for t, (logits, seen) in enumerate(followed(model, frames.numpy(), box, point)):
        if seen > 0.5:
            fine = cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR)
            alpha[t] = torch.from_numpy(np.rint(255 / (1 + np.exp(-fine.clip(-40, 40)))).astype(np.uint8))
            confidence[t] = seen
        progress(t + 1, len(frames))
    return clean_alpha(alpha), confidence


def followed(
    model: Any, frames: NDArray[np.uint8], box: Box | None, point: tuple[int, int] | None
) -> Iterator[tuple[NDArray[np.float32], float]]:
    """For each frame the logits (y, x) of the mask, and how likely the object is to be seen at all, from 0 to 1."""
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    side, device = int(model.config.prompt_encoder_config.image_size), model.device
    height, width = frames.shape[1:3]
    session: Any = Sam2VideoInferenceSession(
        video_height=height, video_width=width, inference_device=device, dtype=torch.float32
    )
    index = session.obj_id_to_idx(OBJECT)
    session.add_point_inputs(index, 0, _prompt(box, point, side / width, side / height))
    session.obj_with_new_inputs = [OBJECT]
    for t, frame in enumerate(frames):
        scaled = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        pixels = torch.from_numpy(((scaled - MEAN) / STD).transpose(2, 0, 1)[None].copy()).to(device)
        with torch.inference_mode():
            found = model(session, frame=pixels, frame_idx=t)
        session.processed_frames.pop(t)  # it has been looked at, and all of them would take gigabytes
        seen = float(found.object_score_logits.flatten()[0].sigmoid())
        yield found.pred_masks[0, 0].float().cpu().numpy(), seen


def _prompt(box: Box | None, point: tuple[int, int] | None, x: float, y: float) -> dict[str, Tensor]:
    """Points and their labels as the network takes them, in pixels of the square that it sees."""
    points, labels = ([box[:2], box[2:]], [*CORNERS]) if box is not None else ([], [])
    if point is not None:
        points, labels = [*points, point], [*labels, INSIDE]
    coords = torch.tensor([points], dtype=torch.float32)[None] * torch.tensor([x, y])
    return {"point_coords": coords, "point_labels": torch.tensor([[labels]], dtype=torch.int32)}
