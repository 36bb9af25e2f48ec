"""Pictures with alpha as a file: MP4, GIF or WebP, or a folder of PNG files. Pictures are (h, w, 4) float32, 0 to 1."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ss4d.stages.errors import InputError
from ss4d.stages.video_io import write_video

ANIMATED = {".gif": "GIF", ".webp": "WEBP"}
WEBP_QUALITY = 90
Background = tuple[float, float, float] | None  # None: transparent


def check_target(path: Path, background: Background) -> None:
    """Raises InputError if no film can be written there: before anything is drawn."""
    ending = path.suffix.lower()
    if ending not in (".mp4", *ANIMATED, ""):
        raise InputError(
            f"{path.name}: a film is .mp4, .gif or .webp, and a name without an ending is a folder of PNG files"
        )
    if ending == ".mp4" and background is None:
        raise InputError("an MP4 has no transparency: write a .webp, a .gif or a folder of PNG files")
    fits = path.is_file() if ending else path.is_dir() and not any(path.iterdir())
    if path.exists() and not fits:
        raise InputError(f"{path} is there already, and no {'file' if ending else 'empty folder'}: give another")


def write_film(path: Path, pictures: Iterable[Tensor], fps: float, background: Background) -> None:
    """Writes a film; its name's ending says how, and a name without one is a folder of PNG files, 0001.png and so on.

    Args:
        path: of the file or folder; its parent exists.
        pictures: at least one; consumed one at a time, but for GIF and WebP.
        fps: pictures per second.
        background: RGB behind the object, or None to keep the alpha.

    Raises:
        InputError: there is no such kind of file, or it has no transparency.
    """
    check_target(path, background)
    solid = (over(picture, background) for picture in pictures)
    ending = path.suffix.lower()
    if ending == ".mp4":
        write_video(path, solid, fps)
    elif ending:
        _write_animated(path, map(_image, solid), fps)
    else:
        path.mkdir(exist_ok=True)
        for number, picture in enumerate(solid, start=1):
            _image(picture).save(path / f"{number:04d}.png")


def over(picture: Tensor, background: Background) -> Tensor:
    """A picture as bytes: (h, w, 3) on a background, (h, w, 4) without one."""
    if background is not None:
        alpha = picture[..., 3:]
        picture = picture[..., :3] * alpha + torch.tensor(background) * (1 - alpha)
    return (picture.clamp(0, 1) * 255).round().byte()


def _image(picture: Tensor) -> Image.Image:
    return Image.fromarray(picture.numpy())


def _write_animated(path: Path, images: Iterator[Image.Image], fps: float) -> None:
    first = next(images)
    kind = ANIMATED[path.suffix.lower()]
    more = {"quality": WEBP_QUALITY} if kind == "WEBP" else {"disposal": 2}
    first.save(path, kind, save_all=True, append_images=list(images), duration=round(1000 / fps), loop=0, **more)
