"""Pictures and videos among the files of a stage, as a page can hold them: bounded in size, and never as markup.

A picture is decoded and written anew as WebP, so that what stands in the page is pixels, whatever the file holds. Of
other kinds, SVG and HTML among them, only the name is shown.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from PIL import Image

from ss4d.pipelines.inspect.html import data_url
from ss4d.pipelines.inspect.opened import OpenedStage
from ss4d.storage.artifact import Artifact
from ss4d.storage.errors import StoreError

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
VIDEO = ".mp4"
MOST_BYTES = 24 * 2**20  # of pictures and videos in one page
MOST_SHOWN = 24  # pictures and videos of one stage
LARGEST, MOST_PIXELS = 2**26, 2**26  # bytes and pixels of a picture that is decoded
SIDE, QUALITY = 1280, 90  # of a picture in the page: most pixels along a side, quality of WebP
TOO_LARGE = "too large for this page"


@dataclass(frozen=True)
class StageFile:
    """A file of a stage.

    Attributes:
        name: in the artifact.
        size: bytes, as its description says.
        kind: whether it can be shown, and as what.
        url: what shows it; empty where it is not shown.
        note: why it is not shown although it is a picture or a video.
    """

    name: str
    size: int
    kind: Literal["picture", "video", "other"]
    url: str = ""
    note: str = ""


class Media:
    """Reads the pictures and videos of a page, stage after stage, until the page holds as much as it may.

    Args:
        most_bytes: of all of them, as they stand in the page before they are encoded as text.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._left = most_bytes

    def files(self, stage: OpenedStage) -> list[StageFile]:
        """All files of a stage, in order.

        Raises:
            StoreError: if the stage is not stored.
        """
        found: list[StageFile] = []
        num_shown = 0
        for name, listed in stage.artifact.attributes["files"].items():
            kind = _kind(name)
            file = StageFile(name, _size(listed), kind)
            if kind != "other":
                few = num_shown < MOST_SHOWN
                file = self._shown(stage.artifact, file) if few else _left_out(file, f"{MOST_SHOWN} are shown")
                num_shown += bool(file.url)
            found.append(file)
        return found

    def _shown(self, artifact: Artifact, file: StageFile) -> StageFile:
        if file.size > (self._left if file.kind == "video" else LARGEST):
            return _left_out(file, TOO_LARGE)
        try:
            data = artifact.read_file(file.name)
            data, media_type = (_picture(data), "image/webp") if file.kind == "picture" else (_video(data), "video/mp4")
        except StoreError as error:
            return _left_out(file, str(error))
        except Exception as error:  # whatever a decoder makes of bytes that may be anything
            return _left_out(file, f"cannot be shown ({error})")
        if len(data) > self._left:
            return _left_out(file, TOO_LARGE)
        self._left -= len(data)
        return StageFile(file.name, file.size, file.kind, data_url(data, media_type))


def _kind(name: str) -> Literal["picture", "video", "other"]:
    ending = PurePosixPath(name).suffix.lower()
    return "picture" if ending in PICTURES else "video" if ending == VIDEO else "other"


def _size(listed: Mapping[str, Any]) -> int:
    size = listed.get("bytes")
    return size if isinstance(size, int) else 0


def _left_out(file: StageFile, note: str) -> StageFile:
    return StageFile(file.name, file.size, file.kind, note=note)


def _picture(data: bytes) -> bytes:
    """The picture in a PNG, JPEG or WebP file as WebP, no larger than a page needs."""
    with Image.open(io.BytesIO(data), formats=list(set(PICTURES.values()))) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels")
        image.draft("RGB", (SIDE, SIDE))  # a JPEG can be decoded smaller at once
        smaller = image.convert("RGBA" if image.has_transparency_data else "RGB")
    smaller.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    smaller.save(file, "WEBP", quality=QUALITY)
    return file.getvalue()


def _video(data: bytes) -> bytes:
    if data[4:8] != b"ftyp":
        raise ValueError("no MP4 file")
    return data
