"""A package of two stages of its own: `heat` gives arrays of a type that only the package has, `views3` gives files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from ss4d.pipelines.implementation import Implementation, Stage
from ss4d.pipelines.stage_inputs import StageInputs
from ss4d.stages.stage_config import StageConfig
from ss4d.stages.types import GaussianClip, Value, array
from ss4d.stages.video_io import write_video
from tests.helpers.packages import install_stages

HOSTILE = "<script>alert(1)</script>"
PICTURES = ("side.png", "sub/back.JPG", "top.webp")


class HeatConfig(StageConfig):
    method: Literal["even"] = "even"
    degrees: float = 20.0


class ViewsConfig(StageConfig):
    method: Literal["plain"] = "plain"
    shade: int = 90


@dataclass(frozen=True, eq=False, kw_only=True)
class Heat(Value):
    """How warm the object is."""

    degrees: torch.Tensor = array("t n", torch.float32, "temperature of each Gaussian, degrees")
    flags: torch.Tensor = array("n", torch.bool, "whether it is warm")
    scale: str


def heat(config: HeatConfig, inputs: StageInputs) -> Heat:
    count = len(inputs.value("decoding", GaussianClip).means)
    return Heat(
        degrees=torch.full((2, count), config.degrees), flags=torch.ones(count, dtype=torch.bool), scale="Celsius"
    )


def views(config: ViewsConfig, inputs: StageInputs) -> None:
    inputs.value("heat", Heat)
    write_views(inputs.folder, config.shade)


def write_views(folder: Path, shade: int) -> None:
    """Pictures, a video, a file that claims to be a picture, and files that a browser would run."""
    picture = Image.fromarray(np.full((40, 60, 3), shade, np.uint8))
    for name in PICTURES:
        (folder / name).parent.mkdir(exist_ok=True)
        picture.save(folder / name)
    write_video(folder / "turn.mp4", torch.full((3, 32, 32, 3), shade, dtype=torch.uint8), 24)
    (folder / "not.png").write_text(HOSTILE)
    (folder / "page.html").write_text(HOSTILE)
    (folder / "drawing.svg").write_text(f"<svg xmlns='http://www.w3.org/2000/svg'>{HOSTILE}</svg>")
    (folder / 'it\'s <b> & "c".png').write_bytes((folder / "side.png").read_bytes())


HEAT = Stage(name="heat", output=Heat, default="even", meaning="tells how warm the object is")
VIEWS3 = Stage(name="views3", output=None, default="plain", meaning="takes pictures")
EVEN = Implementation(stage="heat", config=HeatConfig, run=heat, inputs=("decoding",))
PLAIN = Implementation(stage="views3", config=ViewsConfig, run=views, inputs=("heat",))


def install(site: Path) -> None:
    """Makes the stages known to every process that has the folder `site` on its path."""
    names = {"heat": "HEAT", "heat.even": "EVEN", "views3": "VIEWS3", "views3.plain": "PLAIN"}
    install_stages(site, "added-stages", {name: f"{__name__}:{place}" for name, place in names.items()})
