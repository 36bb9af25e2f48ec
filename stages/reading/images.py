"""Pictures that Pillow or libheif decode: upright, in sRGB, of 8 bit."""

import io
import logging
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
from PIL import Image, ImageCms, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from ss4d.stages.errors import InputError
from ss4d.stages.extras import how_to_install
from ss4d.stages.input_files import InputConfig
from ss4d.stages.reading.picture import Bounds, Picture
from ss4d.stages.reading.timeline import Step, Timeline, steady, timeline, too_fast, typical_step

LOG = logging.getLogger("ss4d")
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)  # what Pillow raises
BETWEEN = (IndexError, KeyError, TypeError, struct.error)  # ... and where a file ends between its pictures
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
DEFAULT_DURATION = 0.1  # seconds a frame of an animation is shown that asks for none, as browsers do
HEAD = 1 << 16  # bytes in which a file says what its colors are
HDR = {16: "HDR (PQ)", 18: "HDR (HLG)"}  # transfer characteristics of H.273
HASTY = 0.01  # ... or for so few, which nobody means
PHOTOMETRIC, BITS, PLANAR = 262, 258, 284  # tags of TIFF
WHITE_IS_0 = 0
SRGB_GAMMA, SRGB_GAMMA_ERROR = 1 / 2.2, 0.02
SRGB = ImageCms.createProfile("sRGB")


def open_image(file: IO[bytes], name: str, bounds: Bounds) -> Image.Image | None:
    """The image a file begins with; None when it holds something else, such as a video.

    Raises:
        InputError: it is too large, or a HEIC picture that is damaged or that nothing here can decode.
    """
    head = file.read(HEAD)
    file.seek(0)
    image = _with_pillow(file, name) or _with_libheif(file, name, bounds)
    if image is not None:
        bounds.check(name, *image.size)
        if image.format in (None, "AVIF", "PNG") and (hdr := _hdr(head)):
            LOG.warning("%s is %s, which is not converted in pictures: its colors are taken for sRGB", name, hdr)
    return image


def _hdr(head: bytes) -> str | None:
    """Whether a PNG, AVIF or HEIC file says that its pixels tell more light than a screen has; by its first bytes."""
    for mark, size in ((b"cICP", 1), (b"colrnclx", 2)):
        primaries = head.find(mark) + len(mark)
        transfer = int.from_bytes(head[primaries + size : primaries + 2 * size], "big")
        if mark in head and transfer in HDR:
            return HDR[transfer]
    return None


def _with_pillow(file: IO[bytes], name: str) -> Image.Image | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `Bounds` has a sentence for it
        try:
            return Image.open(file, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise InputError(f"{name} is larger than any picture that can be read: {error}") from error
        except UNREADABLE:
            file.seek(0)
            return None


def _with_libheif(file: IO[bytes], name: str, bounds: Bounds) -> Image.Image | None:
    """The picture that a HEIF file presents: not its tiles, thumbnails and depth maps."""
    head = file.read(12)
    file.seek(0)
    if head[4:8] != b"ftyp" or head[8:12] not in HEIF_BRANDS:
        return None
    try:
        import pillow_heif  # an extra: what comes with it has licenses of its own
    except ImportError as error:
        raise InputError(
            f"{name} is a HEIC picture: {how_to_install('heif')} reads it, or save it as PNG or JPEG."
        ) from error
    try:
        held = pillow_heif.open_heif(file)
        bounds.check(name, *held.size)
        return held[held.primary_index].to_pillow()
    except InputError:
        raise
    except (*UNREADABLE, RuntimeError) as error:
        why = " ".join(str(error).split())  # libheif ends some lines
        raise InputError(f"{name} is a HEIC picture that cannot be decoded ({why}); save it as PNG.") from error


def decode_image(image: Image.Image, index: int, name: str, bounds: Bounds) -> Picture:
    """Frame `index` of an open image, upright, as RGB or RGBA of 8 bit in sRGB.

    Raises:
        InputError: it is damaged, or of a pixel type without a known range.
    """
    width, height = image.size
    try:
        _seek(image, index)
        bounds.check(name, *image.size)  # pages and frames of one file need not be of one size
        if bounds.side is not None and index == 0:
            image.draft(None, (bounds.side, bounds.side))  # JPEG is decoded at a fraction of its size, at no cost
        image.load()
        _check_pixels(image, name)
        upright = ImageOps.exif_transpose(image)
        colored = _in_srgb(_of_8_bit(upright, white=_tags(image).get(PHOTOMETRIC) != WHITE_IS_0), name)
        size = bounds.reduced(*colored.size)
        if size != colored.size:
            colored = colored.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"{name} is damaged ({error}); replace it.") from error
    return Picture(np.array(colored), max(width, height) / max(colored.size))


def _tags(image: Image.Image) -> Mapping[int, Any]:
    """What a TIFF file says of its picture; nothing for others."""
    return image.tag_v2 if isinstance(image, TiffImageFile) else {}


def _check_pixels(image: Image.Image, name: str) -> None:
    """Raises InputError for pixels whose range nobody knows, or that Pillow reads wrongly."""
    tags = _tags(image)
    if image.mode == "F":
        raise InputError(f"{name} holds floating-point pixels, whose range is unknown; save it with 8 or 16 bit.")
    if image.mode == "I" and tags:
        raise InputError(f"{name} holds pixels of 32 bit, whose range is unknown; save it with 8 or 16 bit.")
    if tags.get(PLANAR) == 2 and np.max(tags.get(BITS, 8)) > 8:
        raise InputError(f"{name} has each channel apart, of 16 bit, which cannot be read; save it as PNG.")


def _of_8_bit(image: Image.Image, *, white: bool) -> Image.Image:
    """Gray of 16 bit, whose highest level is white or else black, as 8: Pillow would clip instead of scaling."""
    if not image.mode.startswith("I"):
        return image
    levels = np.asarray(image).astype(np.int64)
    gray = Image.fromarray(((levels if white else 65535 - levels) >> 8).clip(0, 255).astype(np.uint8))
    gray.info = {key: value for key, value in image.info.items() if key != "transparency"}
    clear = image.info.get("transparency")
    if clear is not None:  # a level of 16 bit, not of 8
        gray.putalpha(Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8)))
    return gray


def _in_srgb(image: Image.Image, name: str) -> Image.Image:
    """As RGB or RGBA; what an embedded color profile says is converted, or the gamma of a PNG without one."""
    mode = "RGBA" if image.has_transparency_data else "RGB"
    profile = image.info.get("icc_profile")
    if not profile:
        return _of_gamma(image, mode)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image.convert(mode)
        alpha = image.convert("RGBA").getchannel("A") if mode == "RGBA" else None
        if image.mode != "CMYK":
            image = image.convert("L" if source.profile.xcolor_space.strip() == "GRAY" else "RGB")
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        converted = ImageCms.profileToProfile(image, source, SRGB, renderingIntent=intent, outputMode="RGB")
    except (ImageCms.PyCMSError, *UNREADABLE) as error:
        LOG.warning("%s has a color profile that cannot be used (%s): its colors are taken for sRGB", name, error)
        return image.convert(mode)
    made = cast(Image.Image, converted)  # not in place, so it is an image
    if alpha is not None:
        made.putalpha(alpha)
    return made


def _of_gamma(image: Image.Image, mode: str) -> Image.Image:
    """An image without a profile as `mode`, of whose colors a PNG file may say by which power they are coded."""
    gamma, colored = image.info.get("gamma"), image.convert(mode)
    if not gamma or "srgb" in image.info or abs(gamma - SRGB_GAMMA) < SRGB_GAMMA_ERROR:
        return colored
    light = (np.arange(256) / 255) ** (1 / gamma)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    table = np.rint(255 * coded).astype(int).tolist()
    return colored.point([*table * 3, *(range(256) if mode == "RGBA" else ())])


@dataclass(frozen=True, eq=False)
class ImageFrames:
    """A still or animated image as the frames of a clip.

    Attributes:
        image: open.
        first: index of its first frame that is shown: the still that stands for an animation is none.
        remarks: on what is wrong with its times, for the log.
    """

    image: Image.Image
    name: str
    line: Timeline
    first: int = 0
    damage: str | None = None
    remarks: Sequence[str] = ()

    def label(self, frame: int) -> str:
        """The frame's number."""
        return f"frame {frame}"

    def read(self, wanted: Sequence[int], bounds: Bounds) -> Iterator[Picture]:
        """The wanted frames, in order."""
        for remark in self.remarks:
            LOG.warning("%s: %s", self.name, remark)
        shown, picture = -1, None
        for frame in wanted:
            index = self.first + self.line.picture(frame)
            if picture is None or index != shown:
                shown, picture = index, decode_image(self.image, index, self.name, bounds)
            yield picture


def num_pictures(image: Image.Image, name: str) -> int:
    """How many pictures an open file holds.

    Raises:
        InputError: it is damaged between them.
    """
    try:
        count: int = getattr(image, "n_frames", 1)
    except (*UNREADABLE, *BETWEEN) as error:
        raise InputError(f"{name} is damaged ({error}); replace it.") from error
    return count


def _seek(image: Image.Image, index: int) -> None:
    """Turns to a picture of a file.

    Raises:
        One of UNREADABLE: it is damaged.
    """
    try:
        image.seek(index)
    except BETWEEN as error:
        raise OSError(f"picture {index} is cut off: {error}") from error


def image_frames(image: Image.Image, name: str, config: InputConfig) -> ImageFrames:
    """The frames of an open image; a still has the rate that `config` gives it.

    Raises:
        InputError: an animation is damaged or too large.
    """
    count = num_pictures(image, name)
    if count == 1 or image.format == "MPO":
        return ImageFrames(image, name, steady(1, config.fps))
    first = 1 if image.info.get("default_image") else 0
    bounds, decoded, shown = Bounds(max_pixels=config.max_pixels), 0, []
    for index in range(first, count):
        try:
            _seek(image, index)
            bounds.check(f"{name}: frame {index}", *image.size)
            decoded += image.width * image.height
            _check_decoded(decoded, index, name, config)
            image.load()  # webp states how long a frame is shown only once it is decoded
        except UNREADABLE as error:
            raise InputError(f"{name} is damaged after {index} frames ({error}); replace it.") from error
        seconds = image.info.get("duration", 0) / 1000
        shown.append(seconds if seconds > HASTY else DEFAULT_DURATION)
    step = typical_step([0.0, *np.cumsum(shown).tolist()]) or Step(DEFAULT_DURATION)
    remarks = []
    if step.seconds < 1 / config.max_rate:
        remarks.append(too_fast(1 / step.seconds, config.max_rate))
        step, shown = Step(DEFAULT_DURATION), [DEFAULT_DURATION] * len(shown)
    line = timeline(shown, 1 / step.seconds, config.max_pause)
    return ImageFrames(image, name, line, first, remarks=[*remarks, *line.pauses()])


def _check_decoded(pixels: int, index: int, name: str, config: InputConfig) -> None:
    """Raises InputError for an animation that takes too long to decode: few bytes can stand for many large frames."""
    if pixels > config.max_animation:
        raise InputError(
            f"{name}: all of it up to frame {index} has more than the {config.max_animation:,} pixels of "
            "input.max_animation; raise that, or give smaller pictures or a video."
        )
