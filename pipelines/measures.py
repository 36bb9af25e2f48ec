"""What can be said of a stage's result in a few numbers, kept beside it and in the catalog of a dataset.

This list is the only one: the index, the catalog's columns, what `--where` may ask, and the report's numbers follow
from it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ss4d.stages.types import Clip, Value

Format = Literal["count", "percent"]  # how a page writes a number; viewer/columns.js has a function for each


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number that says something of a result.

    Attributes:
        name: of the column.
        meaning: with its unit.
        kind: int or float.
        title: for people.
        format: how pages write it.
        value: the type of results that have it, by its name in `ss4d.stages.types`: tables of measures need no torch.
        of: computes it from such a result.
    """

    name: str
    meaning: str
    kind: type[int] | type[float]
    title: str
    format: Format
    value: str
    of: Callable[[Any], float]


def _foreground(clip: "Clip") -> float:
    opacity = sum(int(frame.sum()) for frame in clip.alpha)  # torch sums in eight bytes for each of them
    return round(opacity / (255 * max(clip.alpha.numel(), 1)), 6)


def _confidence(clip: "Clip") -> float:
    seen = clip.confidence[clip.confidence > 0]
    return round(float(seen.min()), 6) if len(seen) else 0.0


MEASURES = {
    measure.name: measure
    for measure in (
        Measure(
            name="voxels",
            meaning="over all frames",
            kind=int,
            title="Voxels",
            format="count",
            value="Voxels",
            of=lambda voxels: len(voxels.coords),
        ),
        Measure(
            name="gaussians",
            meaning="over all frames",
            kind=int,
            title="Gaussians",
            format="count",
            value="GaussianClip",
            of=lambda gaussians: len(gaussians.means),
        ),
        Measure(
            name="foreground",
            meaning="the share of the cropped frames that the object covers, from 0 to 1",
            kind=float,
            title="Foreground",
            format="percent",
            value="Clip",
            of=_foreground,
        ),
        Measure(
            name="confidence",
            meaning="the lowest of the frames in which the object is seen, from 0 to 1",
            kind=float,
            title="Confidence",
            format="percent",
            value="Clip",
            of=_confidence,
        ),
        Measure(
            name="frames",
            meaning="that the configuration chooses",
            kind=int,
            title="Frames",
            format="count",
            value="Clip",
            of=lambda clip: len(clip.alpha),
        ),
    )
}


def measures(value: "Value | None") -> dict[str, float]:
    """The numbers by their names in `MEASURES`; none for files, and for a value that tells nothing new."""
    kinds = {kind.__name__ for kind in type(value).__mro__}
    return {name: measure.of(value) for name, measure in MEASURES.items() if measure.value in kinds}
