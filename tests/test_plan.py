"""The plan: keys follow from recipes, and every step says whether it runs, and why."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config import load_config
from pipelines.errors import ConfigError
from pipelines.plan import REUSE, RUN, SKIP, Recipes, Step, make_plan
from pipelines.stages import stages_of
from storage.codec import ArrayData
from storage.store import ArtifactStore

STAGES = stages_of(load_config("tiny"))
WEIGHTS = {role: "0" * 64 for stage in STAGES.values() for role in stage.roles}
ORDER = list(STAGES)


def recipes(**changes: Any) -> Recipes:
    given = {"config": load_config("tiny"), "source_digest": "1" * 64, "seed": 42, "fingerprints": WEIGHTS}
    return Recipes(**{**given, **changes})


def plan(store: ArtifactStore, made_from: Recipes, **options: Any) -> dict[str, Step]:
    steps = make_plan(made_from, store, **{"from_stage": None, "previous": {}, **options})
    assert [step.stage for step in steps] == ORDER
    return {step.stage: step for step in steps}


def make(store: ArtifactStore, steps: dict[str, Step], *stages: str) -> None:
    for stage in stages:
        with store.create(steps[stage].ref) as writer:
            writer.write("feats", ArrayData(np.zeros(1, np.float32), ("n",)))
            writer.commit({})


def actions(steps: dict[str, Step]) -> list[str]:
    return [steps[stage].action for stage in ORDER]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def test_a_first_run_runs_everything(store: ArtifactStore) -> None:
    steps = plan(store, recipes())
    assert set(actions(steps)) == {RUN}
    assert {step.reason for step in steps.values()} == {"nothing is stored for this input and these parameters"}


def test_what_is_stored_is_reused_and_the_rest_runs(store: ArtifactStore) -> None:
    make(store, plan(store, recipes()), *ORDER[:3])
    assert actions(plan(store, recipes())) == [REUSE] * 3 + [RUN] * 3


def test_what_nothing_needs_is_not_made_again(store: ArtifactStore) -> None:
    """Image tokens may be dropped to free space: as long as what they led to is there, they stay away."""
    make(store, plan(store, recipes()), *(stage for stage in ORDER if stage != "conditioning"))
    steps = plan(store, recipes())
    assert steps["conditioning"].action == SKIP
    assert actions(steps).count(REUSE) == 5
    assert plan(store, recipes(), from_stage="slat")["conditioning"].action == RUN


def test_from_a_stage_on(store: ArtifactStore) -> None:
    make(store, plan(store, recipes()), *ORDER)
    steps = plan(store, recipes(), from_stage="slat")
    assert actions(steps) == [REUSE] * 3 + [RUN] * 3
    assert [step.replace for step in steps.values()] == [False] * 3 + [True] * 3
    with pytest.raises(ConfigError, match="no stage 'slats'"):
        plan(store, recipes(), from_stage="slats")


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"source_digest": "2" * 64}, "segmentation"),
        ({"config": load_config("tiny", ["input.step=2"])}, "segmentation"),
        ({"fingerprints": {**WEIGHTS, "image_cond_model": "2" * 64}}, "conditioning"),
        ({"seed": 1}, "sparse_structure"),
        ({"fingerprints": {**WEIGHTS, "sparse_structure_decoder": "2" * 64}}, "sparse_structure"),
        ({"config": load_config("tiny", ["slat.sampler.steps=99"])}, "slat"),
        ({"fingerprints": {**WEIGHTS, "slat_decoder_gs": "2" * 64}}, "decoding"),
        ({"config": load_config("tiny", ["export.size=64"])}, "export"),
    ],
)
def test_a_change_reaches_exactly_what_depends_on_it(store: ArtifactStore, changes: dict[str, Any], first: str) -> None:
    before, after = plan(store, recipes()), plan(store, recipes(**changes))
    changed = [stage for stage in ORDER if before[stage].ref != after[stage].ref]
    assert changed == ORDER[ORDER.index(first) :]


def test_reasons(store: ArtifactStore) -> None:
    first = plan(store, recipes())
    previous = {stage: step.recipe for stage, step in first.items()}
    make(store, first, *ORDER)
    config = load_config("tiny", ["slat.sampler.steps=99"])
    steps = plan(store, recipes(config=config, seed=1), previous=previous)
    assert steps["conditioning"].reason == "stored, made from the same input and parameters"
    assert steps["sparse_structure"].reason == "seed changed from 42 to 1"
    assert "slat.sampler.steps changed from None to 99" in steps["slat"].reason
    assert "its input sparse_structure changed" in steps["slat"].reason
    assert steps["export"].reason == "its input decoding changed"
    store.remove(first["export"].ref)
    assert (
        plan(store, recipes(), previous=previous)["export"].reason == "its stored result is gone or was never finished"
    )
