"""Where the input was seen from: known where the model works in the camera's axes, and found by the masks if not."""

import torch
from torch import Tensor

from ss4d.stages.fitting.config import CameraConfig, FrontCameraConfig
from ss4d.stages.fitting.matching import Known, Match, by_crop, explained, matched
from ss4d.stages.input_camera import View, opening, upright_rotation
from ss4d.stages.nn.column_encoder import ColumnEncoder
from ss4d.stages.nn.image_encoders import ImageEncoder, fit_images
from ss4d.stages.ops.geometry import CROP_MARGIN
from ss4d.stages.types import Clip, InputCamera, Progress, Voxels, silent

FAR = 50.0  # world units: from there a view is as good as orthographic
FRAMES_AT_ONCE = 4


def find_camera(
    config: CameraConfig, encoder: ImageEncoder, clip: Clip, voxels: Voxels, *, progress: Progress = silent
) -> InputCamera:
    """The camera of the clip.

    A model in the axes of the crop knows the camera but for its distance, one in the camera's axes its direction; their
    encoders guess the pitch above the horizon, by which the grid is turned upright. Else the direction is the mean of
    those from which the voxels look like the masks. What is left, of which masks tell little apart, is found so.

    Args:
        config: what is given.
        encoder: the model's.
        clip: the input.
        voxels: the model's.
        progress: hears of the search.
    """
    masks = clip.alpha.float() / 255
    straight = encoder.axes in ("camera", "crop")
    if encoder.axes == "crop":
        found = Match(by_crop(voxels.coords, voxels.resolution, masks, config.distance, config.fov), (0.0, 0.0))
    else:
        yaw, pitch = (0.0, 0.0) if straight else (config.yaw, config.pitch)
        known = Known(yaw=yaw, pitch=pitch, distance=config.distance, fov=config.fov)
        found = matched(voxels.coords, voxels.resolution, masks, known, progress)
    overlap = explained(voxels.coords, voxels.resolution, masks, found.view)
    if not straight:
        return _value(found, found.view.yaw, found.view.pitch, overlap, torch.eye(3))
    above = guessed_pitch(encoder, clip) if config.pitch is None else config.pitch
    return _value(found, config.yaw or 0.0, above, overlap)


def front_camera(
    config: FrontCameraConfig,  # noqa: ARG001  every stage takes its configuration first, this one's is empty
    clip: Clip,
) -> InputCamera:
    """The camera that `ss4d.stages.inflation` assumes, whose outline is the mask by construction."""
    view = View(yaw=0.0, pitch=0.0, distance=FAR, focal=FAR / CROP_MARGIN, shift=(0.0, 0.0))
    return _value(Match(view, (0.0, 0.0)), 0.0, 0.0, torch.ones(len(clip.alpha)), torch.eye(3))


def guessed_pitch(encoder: ImageEncoder, clip: Clip) -> float:
    """Degrees above the horizon: the median over frames of what an encoder in the camera's axes guesses."""
    assert isinstance(encoder, ColumnEncoder)
    seen = torch.cat([clip.rgb, clip.alpha[..., None]], -1).permute(0, 3, 1, 2)
    device = encoder.out.weight.device
    with torch.no_grad():
        guesses = [
            encoder.tokens(fit_images(frames.to(device).float() / 255, encoder.args.image_size))[1].float().cpu()
            for frames in torch.split(seen, FRAMES_AT_ONCE)
        ]
    return float(torch.cat(guesses).median().rad2deg().clamp(-90, 90))


def _value(found: Match, yaw: float, pitch: float, overlap: Tensor, upright: Tensor | None = None) -> InputCamera:
    """The camera, with these angles in world space; `upright` None: a grid with the camera's axes."""
    view = found.view
    return InputCamera(
        yaw=torch.tensor(yaw),
        pitch=torch.tensor(pitch),
        distance=torch.tensor(view.distance),
        fov=torch.tensor(opening(view.focal)),
        shift=torch.tensor(view.shift),
        upright=upright_rotation(yaw, pitch) if upright is None else upright,
        overlap=overlap,
        spread=torch.tensor(found.spread),
    )
