"""The card of a trained model: what it is, what it saw, for how long and where; Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ss4d.stages.training.log import Row
from ss4d.stages.training.recipe import TrainingRecipe

HIDDEN = {"step", "rate", "gradient", "steps_per_second"}
LAST = 100  # rows that the last measures are averaged over

TEXT = """# Model card: {name}

Turns the frames of a video of one object into one set of 3D Gaussians for each frame, with the networks of SS4D (a 4D
generator of two stages) at the sizes of {sizes}. {origin}

## Data

{data}

## Training

Seed {seed}, on {machine}. Weights are the exponential moving average of those of the steps.

| step | steps | batch | learning rate | time | last measures |
| --- | --- | --- | --- | --- | --- |
{rows}

The last measures are means over the last {last} steps of training, on training clips: not what new clips would give.
`ss4d eval` measures that.

## Limits

{limits}
"""
MADE = """Procedural animated objects, made by this package with ground truth: {clips}.
Seeds from 2^31 on are held out."""
ASSETS = """ Of what was shown, {share:.0%} were clips of {count} asset
files instead, every animation that moves: {names}."""
LIMITS = """The model has seen {seen}: simple bodies with plain colors and patterns, filmed from
about the front and cut out cleanly. Real videos are another world to it. Its grid is coarse, so thin parts are lost,
and colors do not depend on the view."""

UNKNOWN = "What the data do not show, the model has not learned."


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One step that was trained.

    Attributes:
        loop: the settings that it followed.
        rows: of its log.
    """

    loop: Mapping[str, Any]
    rows: Sequence[Row]


def model_card(
    recipe: TrainingRecipe,
    trained: Mapping[str, Trained],
    *,
    records: int | None,
    fresh: bool,
    assets: Sequence[str],
    start: str | None,
    deepened: bool,
    lora: int | None,
    seed: int,
    machine: str,
) -> str:
    """The card.

    Args:
        recipe: that was followed.
        trained: by step.
        records: how many clips of a data folder it saw, or None for made ones.
        fresh: whether these were new ones for every step.
        assets: names of the asset files that were shown beside made clips.
        start: the name of the model that it goes on from.
        deepened: whether its image encoder got a block more on each level.
        lora: the rank of the adapters that learned, or None where all weights did.
        seed: where random numbers began.
        machine: on which it ended.
    """
    if records:
        data = f"{records} clips of a data folder."
    elif fresh:
        data = MADE.format(clips="new clips for every step, none seen twice")
    else:
        pools = {recipe.plans[step].pool for step in trained}
        lengths = sorted({pool.num_frames for pool in pools}, reverse=True)
        counts = [f"{sum(p.size for p in pools if p.num_frames == t)} clips of {t} frames" for t in lengths]
        data = MADE.format(clips=" and ".join(counts))
    if assets:
        data += ASSETS.format(share=recipe.asset_share, count=len(assets), names=", ".join(assets))
    seen = "procedural objects and a few modelled ones" if assets else "procedural objects alone"
    how = "all weights" if lora is None else f"adapters of rank {lora} on the flows, merged"
    return TEXT.format(
        name=recipe.name,
        sizes=(f"the model {start}" if start else f"the recipe `{recipe.name}`")
        + (" and a block more on each level of the image encoder" if deepened else ""),
        origin=f"It goes on from the model {start} ({how}), whose card says how that was trained."
        if start
        else "It was trained from random weights.",
        data=data,
        seed=seed,
        machine=machine,
        rows="\n".join(_row(step, done) for step, done in trained.items()),
        last=LAST,
        limits=UNKNOWN if records or start else LIMITS.format(seen=seen),
    )


def _row(step: str, trained: Trained) -> str:
    batch = trained.loop["batch"]
    minutes = sum(1 / row["steps_per_second"] for row in trained.rows) / 60
    last = trained.rows[-LAST:]
    measures = [f"{name} {sum(r[name] for r in last) / len(last):.4g}" for name in last[-1] if name not in HIDDEN]
    rate = f"{trained.loop['learning_rate']:g}"
    cells = (step, len(trained.rows), batch, rate, f"{minutes:.1f} min", ", ".join(measures))
    return f"| {' | '.join(map(str, cells))} |"
