"""Keys of stored results stay: `tests/data/recipes` holds recipes and keys as an earlier version stored them."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from ss4d.pipelines.config import load_config
from ss4d.pipelines.plan import Recipes, parameters
from ss4d.stages.stage_config import AsBefore, StageConfig
from ss4d.storage.refs import artifact_key
from tests.helpers.places import DATA

RUNS = sorted((DATA / "recipes").glob("*.json"))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_stored_keys_are_those_of_the_same_configuration(path: Path, tmp_path: Path) -> None:
    stored = json.loads(path.read_text())
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(stored["config"]))
    made = Recipes(load_config(str(file)), stored["source"], stored["seed"], stored["weights"]).of_all()
    assert made == {stage: known["recipe"] for stage, known in stored["stages"].items()}
    assert {stage: artifact_key(recipe) for stage, recipe in made.items()} == {
        stage: known["key"] for stage, known in stored["stages"].items()
    }


def test_there_are_stored_recipes() -> None:
    assert [path.stem for path in RUNS] == ["inflation", "tiny"]


class OldSampler(BaseModel):
    model_config = ConfigDict(frozen=True)

    steps: int = 3


class OldConfig(StageConfig):
    method: Literal["flow"] = "flow"
    sampler: OldSampler = OldSampler()


class NewSampler(OldSampler):
    solver: Annotated[Literal["euler", "adams"], AsBefore("euler")] = "euler"


class NewConfig(OldConfig):
    sampler: NewSampler = NewSampler()
    window: Annotated[int | None, AsBefore(None)] = None


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({}, {}),
        ({"window": None, "sampler": {"solver": "euler"}}, {}),
        ({"window": 8}, {"window": 8}),
        ({"sampler": {"solver": "adams"}}, {"sampler": {"steps": 3, "solver": "adams"}}),
    ],
)
def test_an_option_that_came_later_counts_where_it_changes_something(changes: dict[str, Any], more: Any) -> None:
    new = NewConfig.model_validate(changes)
    assert parameters(new) == parameters(OldConfig()) | more
