"""Where the clips of a training come from: records, a pool made before, or clips that are made as they are needed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from ss4d.stages.data.clip import HELD_OUT_SEED, ClipSpec, TrainingClip, make_clip
from ss4d.stages.roles import GAUSSIAN_DECODER, IMAGE_ENCODER
from ss4d.stages.training.assets import MixedClips, asset_pool
from ss4d.stages.training.clips import ClipStore, FreshClips, make_pool
from ss4d.stages.training.loop import Say
from ss4d.stages.training.recipe import PoolPlan, StepPlan
from ss4d.stages.training.results import Results
from ss4d.stages.training.windows import StoredClips, Windows

SHOWN = 2  # clips in pictures
MOST_READERS = 10  # processes: beyond, the step itself takes longer than reading for it
REPORT_EVERY = 10.0  # seconds between two lines on the clips being made


class TimeUpError(Exception):
    """The deadline passed while clips were made."""


class ClipSources:
    """Opens the clips of each step.

    Args:
        results: of the training, whose networks decide the sizes of clips.
        say: called with a line about the clips that are being made.
    """

    def __init__(self, results: Results, say: Say) -> None:
        self._results, self._training, self._say = results, results.training, say

    @contextmanager
    def open(self, plan: StepPlan) -> Iterator[StoredClips | FreshClips]:
        """Batches by step, as `plan` says.

        Raises:
            TimeUpError: if the deadline passes while a pool is made.
        """
        training, spec = self._training, self._spec(plan.pool)
        if training.fresh and training.store is None:
            source: StoredClips | FreshClips = FreshClips(spec, training.seed, training.workers)
        else:
            store = training.store or self._made(plan.pool)
            made = training.store is None
            windows = Windows(
                store=store,
                seed=training.seed,
                num_frames=plan.pool.num_frames,
                resolution=spec.resolution,
                axes=spec.axes,
                num_views=plan.pool.num_views if made else None,
                vary=plan.vary and made,  # a user's data stay as they are
            )
            readers = min(training.workers, MOST_READERS) if made and training.device.type == "cuda" else 0
            source = StoredClips(windows, readers)
        try:
            yield source
        finally:
            source.close()

    def measured(self, plan: StepPlan) -> Iterator[list[TrainingClip]]:
        """What latents are measured on: clips as they are, each a batch of its own, as they may differ in length."""
        with self.open(replace(plan, vary=False)) as clips:
            for index in range(self._training.recipe.measured):
                yield clips.batch(index, 1)

    def shown(self, plan: StepPlan) -> list[TrainingClip]:
        """Clips that nothing trains on; of a user's data, the first ones, whether trained on or not."""
        store = self._training.store
        if store is not None:
            return [store.read(i) for i in range(min(SHOWN, len(store)))]
        spec = self._spec(plan.pool)
        return [make_clip(replace(spec, seed=HELD_OUT_SEED + i)) for i in range(SHOWN)]

    def _made(self, plan: PoolPlan) -> ClipStore:
        """Procedural clips, and clips of assets beside them where there are some."""
        training, recipe = self._training, self._training.recipe
        if training.assets is None:
            return self._pool(plan)
        most = max((step.pool for step in recipe.plans.values()), key=lambda pool: pool.num_views)
        frames = max(step.pool.num_frames for step in recipe.plans.values())
        spec = self._spec(replace(most, num_frames=frames, span=None))  # one pool of them serves all steps
        folder = self._results.folder / "clips" / "assets"
        assets = asset_pool(folder, training.assets, spec, training.seed, recipe.asset_clips)
        assets.make(training.workers, self._until_deadline())
        return MixedClips(self._pool(plan), assets, recipe.asset_share)

    def _pool(self, plan: PoolPlan) -> ClipStore:
        spec = self._spec(plan)
        frames = f"{spec.num_frames}" if spec.span is None else f"{spec.num_frames}of{spec.span}"
        name = f"{frames}x{spec.input_size}-{spec.num_views}x{spec.view_size}-{spec.resolution}"
        return make_pool(
            self._results.folder / "clips" / name,
            spec,
            self._training.seed,
            range(plan.first, plan.first + plan.size),
            self._training.workers,
            progress=self._until_deadline(),
        )

    def _until_deadline(self) -> Callable[[int, int], None]:
        """Tells of clips that are made, and stops the making of them at the deadline."""
        tell = _now_and_then(lambda done, total: self._say(f"clips       {done:>6}/{total} made"))

        def progress(done: int, total: int) -> None:
            tell(done, total)
            if done < total and time.monotonic() > self._training.deadline:
                raise TimeUpError

        return progress

    def _spec(self, plan: PoolPlan) -> ClipSpec:
        return ClipSpec(
            seed=0,
            num_frames=plan.num_frames,
            span=plan.span,
            num_views=plan.num_views,
            view_size=plan.view_size,
            input_size=self._results.option(IMAGE_ENCODER, "image_size"),
            resolution=self._results.option(GAUSSIAN_DECODER, "resolution"),
            axes=self._results.axes(),
        )


def _now_and_then(tell: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Calls `tell` for the last clip, and every `REPORT_EVERY` seconds before."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > REPORT_EVERY:
            last = time.monotonic()
            tell(done, total)

    return progress
