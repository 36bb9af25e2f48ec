"""Makes the clips of the example: procedural objects, each a folder of RGBA images, and one video, whole and damaged.

`python make_clips.py FOLDER CLIPS` fills FOLDER/clips with so many, the last two of them in FOLDER/clips/bad, and
FOLDER/whole with what the damaged one was before.
"""

import sys
from pathlib import Path

import torch
from PIL import Image

from ss4d.stages.data.clip import ClipSpec, TrainingClip, make_clip
from ss4d.stages.video_io import write_video

NUM_FRAMES, SIZE = 6, 128
FIRST_SEED = 2**31  # clips that the bundled model was not trained on


def film(seed: int) -> TrainingClip:
    """An object that the seed decides."""
    return make_clip(ClipSpec(seed=seed, num_frames=NUM_FRAMES, input_size=SIZE, num_views=1, view_size=8))


def save_images(folder: Path, clip: TrainingClip) -> None:
    """Its frames as 0.png, 1.png, ..., with alpha."""
    folder.mkdir(parents=True)
    for t, frame in enumerate(clip.frames.numpy()):
        Image.fromarray(frame).save(folder / f"{t}.png")


def save_video(path: Path, clip: TrainingClip) -> None:
    """Its frames before a white wall."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = clip.frames.float()
    alpha = frames[..., 3:] / 255
    write_video(path, (frames[..., :3] * alpha + 255 * (1 - alpha)).to(torch.uint8), clip.fps)


def damage(source: Path, target: Path) -> None:
    """A copy whose end is lost, as after a download that broke off: its first frame can be read, and not all others."""
    target.parent.mkdir(parents=True, exist_ok=True)
    data = source.read_bytes()
    target.write_bytes(data[: len(data) * 7 // 8])


def main(folder: Path, count: int) -> None:
    """Writes all clips."""
    for number in range(count - 2):
        clip = film(FIRST_SEED + number)
        save_images(folder / "clips" / clip.family / f"{number:03}", clip)
    save_images(folder / "clips" / "bad" / "missing", film(FIRST_SEED + count - 2))
    save_video(folder / "whole" / "damaged.mp4", film(FIRST_SEED + count - 1))
    damage(folder / "whole" / "damaged.mp4", folder / "clips" / "bad" / "damaged.mp4")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
