"""How well and how fast objects are found: IoU with known masks and CPU seconds, for several efforts.

`python -m tests.benchmarks.segmentation [--frames N] [--assets FOLDER] [--clips FOLDER]` makes clips of procedural
objects, of up to `ASSETS` animated GLB files of one folder, and of each folder of images with alpha in another. CPU
seconds of all threads, not seconds of a clock: other work on the machine does not count.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ss4d.stages.segmentation.masks import largest_subject
from ss4d.stages.segmentation.saliency import USUAL, Effort, saliency_masks
from ss4d.stages.types import silent
from tests.benchmarks.object_clips import BACKGROUNDS, ObjectClip, object_clips

CLIP = 32  # frames that seconds are told for
VARIANTS = {
    "as it is": USUAL,
    "without a second look": Effort(closer=0),
    "256 pixels at once": Effort(side=256, closer=0),
    "second look at 320 pixels": Effort(closer=320),
    "two iterations of GrabCut": Effort(iterations=2),
    "three iterations of GrabCut": Effort(iterations=3),
    "without GrabCut": Effort(iterations=0),
    "160 pixels": Effort(side=160),
    "window found at 160 pixels": Effort(glance=160),
    "256 pixels at once, more glances, three iterations": Effort(every=4, side=256, closer=0, iterations=3),
}


@dataclass
class Score:
    """What a variant did.

    Attributes:
        clips: mean IoU of each clip, by background.
        frames: IoU of each frame.
        seconds: of the processor, for all frames.
    """

    clips: dict[str, list[float]] = field(default_factory=dict)
    frames: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, clip: ObjectClip, alpha: np.ndarray, seconds: float) -> None:
        found = [iou(frame > 127, truth) for frame, truth in zip(alpha, clip.truth, strict=True)]
        self.clips.setdefault(clip.background, []).append(float(np.mean(found)))
        self.frames += found
        self.seconds += seconds

    def cells(self) -> list[str]:
        """As `HEADINGS` has them."""
        every = [value for values in self.clips.values() for value in values]
        means = [np.mean(every), *(np.mean(self.clips[name]) for name in BACKGROUNDS), np.median(every)]
        worst = np.sort(every)[: len(every) // 4].mean()
        return [*(f"{value:.3f}" for value in (*means, worst)), f"{CLIP * self.seconds / len(self.frames):.1f}"]


HEADINGS = ["mean", *BACKGROUNDS, "median", "worst quarter", f"CPU seconds for {CLIP}"]


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / max(1, (found | truth).sum()))


def masks(clip: ObjectClip, effort: Effort) -> tuple[np.ndarray, float]:
    """Alpha (t, h, w) of a clip, and the CPU seconds that it took."""
    begun = time.process_time()
    alpha, _ = saliency_masks(torch.from_numpy(clip.frames), None, silent, effort)
    kept, _ = largest_subject(alpha.numpy())
    return kept, time.process_time() - begun


def main(count: int, assets: Path | None, folders: Path | None, names: Sequence[str]) -> None:
    scores = {name: Score() for name in names or VARIANTS}
    total = 0
    for clip in object_clips(count, assets, folders):
        total += 1
        for name, score in scores.items():
            score.add(clip, *masks(clip, VARIANTS[name]))
        print(f"{clip.name} ({clip.background}): {next(iter(scores.values())).frames[-count:]}", flush=True)
    print(f"\nIoU over {total} clips of {count} frames\n\n| | {' | '.join(HEADINGS)} |\n|---|{'---:|' * len(HEADINGS)}")
    for name, score in scores.items():
        print(f"| {name} | {' | '.join(score.cells())} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=())
    given = parser.parse_args()
    main(given.frames, given.assets, given.clips, given.only)
