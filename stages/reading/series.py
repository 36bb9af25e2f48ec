"""Which of the files of a folder or an archive are the frames of one clip, and in which order; told by their names."""

import re
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from pathlib import PurePosixPath

from ss4d.stages.errors import InputError

STILLS = {".avif", ".bmp", ".gif", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tga"}
STILLS |= {".tif", ".tiff", ".webp"}
SIDECARS = {".csv", ".json", ".md", ".npy", ".npz", ".txt", ".xml", ".yaml", ".yml"}  # what lies beside frames
NAMED = 3  # files that a sentence names
# Numbers are read as Decimal: names in an archive may have more digits than Python reads as an int.
DIGITS = re.compile(r"[0-9]+")
DECIMAL = re.compile(r"[0-9]+\.[0-9]+")

Template = tuple[str, ...]  # what a name is apart from its numbers


def frame_names(place: str, names: Sequence[str]) -> list[str]:
    """The names of the images among `names`, all in one folder and none hidden, in natural order.

    Raises:
        InputError: there is no image, the images are of two series, such as frames and their masks, or a file that
            cannot be read stands where a frame should.
    """
    images = [name for name in names if PurePosixPath(name).suffix.lower() in STILLS]
    if not images:
        held = f"holds no image among its {len(names)} entries" if names else "is an empty folder"
        raise InputError(f"{place} {held}; give a folder of images ({', '.join(sorted(STILLS))}) or a video file.")
    _refuse_twins(place, images)
    series = _by_template(images)
    _refuse_two_series(place, series)
    _refuse_gaps(place, series, sorted(set(names).difference(images)))
    return sorted(images, key=natural)


def natural(name: str) -> tuple[list[tuple[Decimal | int, str]], str, str]:
    """Sorts 2.png before 10.png: digits by value, then letters without their case; 1.25 before 1.5 in plain numbers."""
    stem, suffix = _stem(name), PurePosixPath(name).suffix
    if DECIMAL.fullmatch(stem):
        return [(Decimal(stem), ""), (-1, suffix.lower())], name.lower(), name
    parts = re.findall(r"[0-9]+|[^0-9]+", name.lower())
    return [(Decimal(part), "") if part[0] in "0123456789" else (-1, part) for part in parts], name.lower(), name


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _numbers(name: str) -> tuple[Decimal, ...]:
    return tuple(map(Decimal, DIGITS.findall(_stem(name))))


def _by_template(images: Sequence[str]) -> dict[Template, dict[tuple[Decimal, ...], str]]:
    """The images of each series, by their numbers; a series is what has one name apart from its numbers."""
    series: dict[Template, dict[tuple[Decimal, ...], str]] = defaultdict(dict)
    for name in sorted(images, key=natural):
        series[_template(name)][_numbers(name)] = name
    return series


def _template(name: str) -> Template:
    return tuple(DIGITS.split(_stem(name).lower()))


def _refuse_twins(place: str, images: Sequence[str]) -> None:
    stems: dict[str, str] = {}
    for name in sorted(images, key=natural):
        twin = stems.setdefault(_stem(name).lower(), name)
        if twin != name:
            raise InputError(
                f"{place} holds the same frame twice, as {twin} and as {name}; leave one file a frame in the folder."
            )


def _refuse_two_series(place: str, series: dict[Template, dict[tuple[Decimal, ...], str]]) -> None:
    by_numbers: dict[tuple[Decimal, ...], Template] = {}
    for template, members in series.items():
        for numbers in members:
            if not numbers:
                continue
            other = by_numbers.setdefault(numbers, template)
            if other != template:
                raise InputError(
                    f"{place} holds two series of images, {_span(series[other])} and {_span(members)}; leave one of "
                    "them there. Masks lie in a folder of their own, and --mask names it."
                )


def _refuse_gaps(place: str, series: dict[Template, dict[tuple[Decimal, ...], str]], others: Sequence[str]) -> None:
    """Files that are no image we read, but are named as a frame that is missing."""
    strangers = [
        name
        for name in others
        if (template := _template(name)) in series
        and len(series[template]) > 1
        and _numbers(name)
        and _numbers(name) not in series[template]
        and PurePosixPath(name).suffix.lower() not in SIDECARS
    ]
    if strangers:
        strangers.sort(key=natural)
        more = f" and {len(strangers) - NAMED} more" if len(strangers) > NAMED else ""
        raise InputError(
            f"{place} has {', '.join(strangers[:NAMED])}{more} among its frames, which cannot be read; save them as "
            "PNG, or take them away."
        )


def _span(members: dict[tuple[Decimal, ...], str]) -> str:
    names = sorted(members.values(), key=natural)
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]} ({len(names)})"
