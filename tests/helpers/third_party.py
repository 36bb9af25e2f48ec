"""Two stages of a package of somebody else's, known to a process that has its site on the path.

`heights` gives arrays of a value type of its own, and `notes` gives files, made from another stage's files and arrays.
Beside them the example package's stage `motion`. None of them needs a network.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from pydantic import Field
from torch import Tensor

from ss4d.pipelines.implementation import Deferred, Implementation, Stage
from ss4d.pipelines.registry import installed
from ss4d.pipelines.stage_inputs import StageInputs
from ss4d.stages.stage_config import StageConfig
from ss4d.stages.types import Clip, Value, array
from tests.helpers.packages import install_stages
from tests.helpers.places import ROOT


@dataclass(frozen=True, eq=False, kw_only=True)
class Heights(Value):
    """How much of each row of each frame the object covers."""

    share: Tensor = array("t row", torch.float32, "share of the row that the object covers, 0 to 1")
    noise: float


class HeightsConfig(StageConfig):
    method: Literal["rows"] = Field("rows", description="counted row by row")
    noise: float = Field(0.0, ge=0, description="standard deviation of noise on the shares")


class NotesConfig(StageConfig):
    method: Literal["text"] = Field("text", description="a text file")
    fail: bool = Field(False, description="fails")


def measure(config: HeightsConfig, inputs: StageInputs) -> Heights:
    share = inputs.value("segmentation", Clip).alpha.float().mean(-1) / 255
    noise = torch.randn(share.shape, generator=inputs.generator()) * config.noise
    return Heights(share=share + noise, noise=config.noise)


def write_notes(config: NotesConfig, inputs: StageInputs) -> None:
    if config.fail:
        raise ValueError("these notes fail")
    names = sorted(inputs.files("motion"))
    rows = inputs.value("heights", Heights).share.shape
    folder = inputs.folder / "deep"
    folder.mkdir()
    (folder / "notes.txt").write_text(f"{names} {tuple(rows)}")


HEIGHTS = Stage(
    name="heights",
    output=Deferred(f"{__name__}:Heights"),
    default="rows",
    meaning="measures how high the object stands",
)
ROWS = Implementation(stage="heights", config=HeightsConfig, run=measure, inputs=("segmentation",), seeded=True)
NOTES = Stage(name="notes", output=None, default="text", meaning="writes down what there is")
TEXT = Implementation(stage="notes", config=NotesConfig, run=write_notes, inputs=("heights", "motion"))


def install(site: Path) -> None:
    """Makes the stages known to every process that has the folder `site` on its path."""
    names = {"heights": "HEIGHTS", "heights.rows": "ROWS", "notes": "NOTES", "notes.text": "TEXT"}
    install_stages(site, "third-party", {name: f"{__name__}:{value}" for name, value in names.items()})
    motion = {"motion": "MOTION", "motion.gaussians": "BY_GAUSSIANS"}
    install_stages(
        site, "ss4d-example-stages", {name: f"ss4d_example_stages.motion:{value}" for name, value in motion.items()}
    )


@pytest.fixture(scope="session")
def third_party_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stages installed."""
    site = tmp_path_factory.mktemp("third_party")
    install(site)
    return site


@pytest.fixture
def third_party(third_party_site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stages, installed for this process and for those that it starts."""
    plugin = ROOT / "examples" / "plugin"
    monkeypatch.syspath_prepend(plugin)
    monkeypatch.syspath_prepend(third_party_site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (third_party_site, plugin, ROOT))))
    installed.cache_clear()
    yield
    installed.cache_clear()
