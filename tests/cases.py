"""Run every case of a folder of difficult inputs and say whether each gives what is right.

Usage: python tests/cases.py DIR [NAME ...]

A case is a folder with an input and `expected.json`: `input` names the file or folder, `expected` says what is right,
in values (`frames`, `order`, `colours_within_8`, `method_not`, ...) and in words (`rule`, `or`, `either`, `error`). Of
the words those are understood that `RULES` and `complains` know; a case of which nothing is understood fails.
A folder with `cases.json` holds animated assets instead, see `asset_cases.py`.
The number of a frame is the mean of its top-left block over 10, and PROBES are where its colors are looked at.
"""

import json
import logging
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that the file runs from anywhere

from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig
from ss4d.stages.segmentation.config import SegmentationConfig
from ss4d.stages.segmentation.segment import segment
from ss4d.stages.types import Clip, Video
from ss4d.stages.video_io import read_video
from tests.asset_cases import run as run_assets

PROBES = {"R": (38, 100), "G": (80, 28), "B": (66, 64), "bg": (170, 110)}
BLOCK = 13  # pixels: side of the block whose brightness tells a frame's number
REFERENCE = "plain-reference"
COMPLAINT = re.compile(r"error|warning|, or .* log ", re.IGNORECASE)
FILE = re.compile(r"\b\d+\w*\.\w{3,4}\b")

Check = tuple[str, bool]  # what was looked at, and whether it is right
Numbers = np.ndarray[Any, Any]


class Log(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))


@dataclass
class Case:
    """One case, and what the program makes of it."""

    path: Path
    facts: Mapping[str, Any]
    log: Log = field(default_factory=Log)
    error: str | None = None

    @property
    def source(self) -> Path:
        return self.path / self.facts["input"]

    @property
    def expected(self) -> Mapping[str, Any]:
        return self.facts["expected"]

    @property
    def words(self) -> str:
        return " ".join(str(self.expected[key]) for key in ("rule", "or", "either", "never") if key in self.expected)

    @cached_property
    def video(self) -> Video:
        premultiplied = "premultiplied" in self.words
        return read_video(self.source, InputConfig(premultiplied=premultiplied))

    @cached_property
    def clip(self) -> Clip:
        return segment(SegmentationConfig(), self.video)

    @property
    def complaints(self) -> list[str]:
        """The error that ended it, or the warnings on the way."""
        warned = [text for level, text in self.log.lines if level >= logging.WARNING]
        return [self.error, *warned] if self.error else warned

    def numbers(self) -> list[int]:
        return [round(float(frame[:BLOCK, :BLOCK, :3].float().mean()) / 10) for frame in self.video.frames]

    def beside(self, name: str) -> Video:
        """The input of another case of the same folder."""
        other = self.path.parent / name
        return read_video(other / json.loads((other / "expected.json").read_text())["input"], InputConfig())


def checks(case: Case) -> Iterator[Check]:
    """Every value that is expected, compared, and every rule that is understood."""
    for key, wanted in case.expected.items():
        if key in VALUES:
            yield VALUES[key](case, wanted)
        elif key.startswith("colours"):
            yield colors(case, wanted, int(key.rpartition("_")[2]) if "within" in key else 12)
    for pattern, rule in RULES.items():
        if found := re.search(pattern, case.words):
            yield rule(case, found)


def frames(case: Case, wanted: int) -> Check:
    count = len(case.video.frames)
    return f"{count} frames", count == wanted


def order(case: Case, wanted: list[int]) -> Check:
    numbers = case.numbers()
    return f"order {' '.join(map(str, numbers[:8]))}...", numbers == wanted


def between(name: str, of: Callable[[Case], float]) -> Callable[[Case, list[float]], Check]:
    return lambda case, wanted: (f"{name} {of(case):g}", wanted[0] <= of(case) <= wanted[1])


def longest_run(case: Case, most: int) -> Check:
    longest = max(len(list(group)) for _, group in groupby(case.numbers()))
    return f"{longest} equal in a row", longest <= most


def distinct(case: Case, wanted: int) -> Check:
    count = len(set(case.numbers()))
    return f"{count} distinct", count == wanted


def colors(case: Case, wanted: Mapping[str, list[int]], within: int) -> Check:
    frame = case.video.frames[0, ..., :3].numpy().astype(int)
    off = max(int(np.abs(frame[y, x] - wanted[name]).max()) for name, (x, y) in PROBES.items() if name in wanted)
    return f"colors within {off}", off <= within


def size(case: Case, wanted: list[int]) -> Check:
    height, width = case.video.frames.shape[1:3]
    return f"{width} x {height}", max(abs(width - wanted[0]), abs(height - wanted[1])) <= 2


def channels(case: Case, wanted: int) -> Check:
    return f"{case.video.frames.shape[3]} channels", case.video.frames.shape[3] == wanted


def method_not(case: Case, wanted: str) -> Check:
    return f"method {case.clip.method}", case.clip.method != wanted


def crop_side(case: Case, wanted: float) -> Check:
    left, _, right, _ = case.clip.crop.tolist()
    return f"crop of {right - left}", abs(right - left - wanted) <= 0.1 * wanted


def object_pixels(case: Case, wanted: list[int]) -> Check:
    left, _, right, _ = case.clip.crop.tolist()
    pixel = ((right - left) / case.clip.alpha.shape[1]) ** 2
    found = [round(float(a.float().sum()) / 255 * pixel) for a in case.clip.alpha]
    return f"object of {found} pixels", all(abs(a - b) <= 0.15 * b for a, b in zip(found, wanted, strict=True))


def refused(case: Case, wanted: str) -> Check:
    try:
        len(case.video.frames)
    except InputError as error:
        return f"error: {error}", wanted in str(error)
    return "no error", False


VALUES: dict[str, Callable[[Case, Any], Check]] = {
    "frames": frames,
    "order": order,
    "order_at_10fps": order,
    "fps_about": between("fps", lambda case: case.video.fps),
    "frames_about": between("frames", lambda case: len(case.video.frames)),
    "max_run_of_equal_frames": longest_run,
    "distinct": distinct,
    "size_about": size,
    "channels": channels,
    "method_not": method_not,
    "crop_side_about": crop_side,
    "object_pixels_about": object_pixels,
    "error": refused,
}


def like_reference(change: Callable[[Numbers], Numbers]) -> Callable[[Case, Any], Check]:
    def rule(case: Case, _: Any) -> Check:
        wanted = change(case.beside(REFERENCE).frames.numpy().astype(int)[0])
        off = float(np.abs(case.video.frames.numpy()[0] - wanted).mean())
        return f"{off:.1f} from the reference", off < 3

    return rule


def same_as(case: Case, found: "re.Match[str]") -> Check:
    wanted = case.beside(found[1]).frames.numpy().astype(int)
    ours = case.video.frames.numpy()
    off = int(np.abs(ours - wanted)[ours[..., 3] > 0].max())
    return f"{off} levels from {found[1]}", off <= int(found[2])


def not_combed(case: Case, _: Any) -> Check:
    lines = case.video.frames[4].float().mean(-1)
    adjacent, parity = (lines[1:] - lines[:-1]).abs().mean(), (lines[2:] - lines[:-2]).abs().mean()
    return f"lines differ by {adjacent:.2f}, of one field by {parity:.2f}", bool(adjacent <= 1.1 * parity)


def mean_of_pixels(case: Case, found: "re.Match[str]") -> Check:
    mean = float(case.video.frames[..., :3].float().mean())
    return f"mean {mean:.1f}", abs(mean - float(found[1])) < 2


def at_most(case: Case, found: "re.Match[str]") -> Check:
    return f"{len(case.video.frames)} frames", len(case.video.frames) <= int(found[1])


def counted(case: Case, found: "re.Match[str]") -> Check:
    return frames(case, int(found[1]))


def one_object(case: Case, found: "re.Match[str]") -> Check:
    return object_pixels(case, [int(found[1])] * len(case.clip.alpha))


def empty_to_the_end(case: Case, found: "re.Match[str]") -> Check:
    """Frames without the object have no Gaussians that are seen, in a whole run."""
    import ss4d

    with tempfile.TemporaryDirectory() as out:
        run = ss4d.run(case.source, out=Path(out))
        seen, splats = run["segmentation"].value(), run["decoding"].value()
    named = re.search(r"frames ([\d and,]+) of the asset", found.string)
    # Words count an asset's frames from 1, as its files do.
    numbers = [int(number) - 1 for number in re.findall(r"\d+", named[1])] if named else []
    frames = numbers or (seen.confidence == 0).nonzero().flatten().tolist()
    visible = {t: int((splats.frame(t).opacities > 0.5).sum()) for t in frames}
    return f"visible Gaussians by frame: {visible}", bool(visible) and not any(visible.values())


RULES: dict[str, Callable[[Case, Any], Check]] = {
    r"flipud": like_reference(lambda frame: frame[::-1]),
    r"mirrored left-right": like_reference(lambda frame: frame[:, ::-1]),
    r"same clip as ([\w-]+) within (\d+) levels": same_as,
    r"no combing": not_combed,
    r"mean (\d+\.\d+)": mean_of_pixels,
    r"at most ~?(\d+) frames": at_most,
    r"^(\d+) of \d+;": counted,
    r"about (\d+) object pixels": one_object,
    r"no(?:t seen gives no)? visible Gaussians": empty_to_the_end,
}


def complains(case: Case) -> Check:
    """Whether it was refused or warned of, by the names that the words give."""
    try:
        case.clip  # noqa: B018  computes it
    except InputError as error:
        case.error = str(error)
    named = set(FILE.findall(case.words))
    said = " ".join(case.complaints)
    return f"said: {said or 'nothing'}", bool(said) and all(name in said for name in named)


def judge(case: Case) -> tuple[bool, str]:
    """Whether a case is right, and what was seen of it."""
    try:
        seen = list(checks(case))
    except InputError as error:
        case.error = str(error)
        seen = [(f"error: {error}", False)]
    if seen and all(right for _, right in seen):
        return True, "; ".join(text for text, _ in seen)
    if COMPLAINT.search(case.words):
        seen.append(complains(case))
        if seen[-1][1]:
            return True, seen[-1][0]
    if not seen:
        if not case.expected:
            return True, f"read: {len(case.video.frames)} frames"
        return False, f"nothing of {case.expected} is understood"
    return False, "; ".join(text if right else f"{text} (!)" for text, right in seen)


def main(folder: Path, names: list[str]) -> int:
    """Prints a row for each case; returns how many failed, at least 1 if there is none at all."""
    if (folder / "cases.json").exists():
        return run_assets(folder, names)
    found = sorted(path.parent for path in folder.glob("*/expected.json") if not names or path.parent.name in names)
    failed = 0
    logger = logging.getLogger("ss4d")
    logger.setLevel(logging.INFO)
    for path in found:
        case = Case(path, json.loads((path / "expected.json").read_text()))
        logger.addHandler(case.log)
        try:
            right, text = judge(case)
        except Exception as error:  # one broken case must not hide the others
            right, text = False, f"{type(error).__name__}: {error}"
        logger.removeHandler(case.log)
        failed += not right
        print(f"{'ok  ' if right else 'FAIL'} {path.name:34} {text}", flush=True)
    print(f"{len(found) - failed} of {len(found)} cases are right")
    return failed if found else 1


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(min(main(Path(sys.argv[1]), sys.argv[2:]), 1))
