"""The plan: keys follow from recipes, and every step says whether it runs, and why."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from ss4d.pipelines.config import load_config
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.implementation import Package
from ss4d.pipelines.plan import NO_WISH, REUSE, RUN, SKIP, Recipes, Step, Wish, make_plan, sure_to_run
from ss4d.stages.stage_config import StageConfig
from ss4d.storage.codec import ArrayData
from ss4d.storage.refs import artifact_key
from ss4d.storage.store import ArtifactStore
from tests.helpers.unfitted import OFF

STAGES = load_config("tiny", OFF).stages()
WEIGHTS = {role: "0" * 64 for stage in STAGES.values() for role in stage.roles}
ORDER = list(STAGES)


class WithFile(StageConfig):
    method: Literal["with_file"] = "with_file"
    file: Path


def recipes(**changes: Any) -> Recipes:
    given = {"config": load_config("tiny", OFF), "source_digest": "1" * 64, "seed": 42, "fingerprints": WEIGHTS}
    return Recipes(**{**given, **changes})


def plan(store: ArtifactStore, made_from: Recipes, **options: Any) -> dict[str, Step]:
    steps = make_plan(made_from, store, **{"wish": NO_WISH, "previous": {}, **options})
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


def test_what_changes_no_result_is_in_no_key() -> None:
    changed = load_config("tiny", [*OFF, "memory=low", "kernels.rasterizer=torch"])
    assert recipes(config=changed).of_all() == recipes().of_all()


def test_a_first_run_runs_everything(store: ArtifactStore) -> None:
    steps = plan(store, recipes())
    assert set(actions(steps)) == {RUN}
    assert {step.reason for step in steps.values()} == {"nothing is stored for this input and these parameters"}


def test_what_is_stored_is_reused_and_the_rest_runs(store: ArtifactStore) -> None:
    make(store, plan(store, recipes()), *ORDER[:3])
    assert actions(plan(store, recipes())) == [REUSE] * 3 + [RUN] * 3


@pytest.mark.parametrize("stored", [[], ORDER[:3], ORDER[3:5], ORDER[5:], ORDER], ids=len)
@pytest.mark.parametrize("wish", [NO_WISH, Wish(from_stage="decoding"), Wish(force=("slat",))], ids=str)
def test_without_keys_it_is_known_what_is_sure_to_run(store: ArtifactStore, stored: list[str], wish: Wish) -> None:
    make(store, plan(store, recipes()), *stored)
    sure = sure_to_run(load_config("tiny", OFF), set(stored), wish)
    assert set(sure) == {name for name, step in plan(store, recipes(), wish=wish).items() if step.action == RUN}
    others = {name for name, step in plan(store, recipes(seed=1), wish=wish).items() if step.action == RUN}
    assert set(sure) <= others  # of another clip, what is stored does not count


def test_without_keys_one_stage_alone_may_be_sure_to_run() -> None:
    config = load_config("tiny", OFF)
    assert sure_to_run(config, {"slat"}, Wish(only="decoding")) == ["decoding"]
    assert sure_to_run(config, {"slat", "decoding"}, Wish(only="decoding")) == []
    with pytest.raises(ConfigError, match="no stage 'nowhere'"):
        sure_to_run(config, set(), Wish(from_stage="nowhere"))


def test_what_nothing_needs_is_not_made_again(store: ArtifactStore) -> None:
    """Image tokens may be dropped to free space: as long as what they led to is there, they stay away."""
    make(store, plan(store, recipes()), *(stage for stage in ORDER if stage != "conditioning"))
    steps = plan(store, recipes())
    assert steps["conditioning"].action == SKIP
    assert actions(steps).count(REUSE) == 5
    assert plan(store, recipes(), wish=Wish(from_stage="slat"))["conditioning"].action == RUN


def test_from_a_stage_on(store: ArtifactStore) -> None:
    make(store, plan(store, recipes()), *ORDER)
    steps = plan(store, recipes(), wish=Wish(from_stage="slat"))
    assert actions(steps) == [REUSE] * 3 + [RUN] * 3
    assert [step.replace for step in steps.values()] == [False] * 3 + [True] * 3


def test_one_stage_again_alone(store: ArtifactStore) -> None:
    make(store, plan(store, recipes()), *ORDER)
    steps = plan(store, recipes(), wish=Wish(force=("slat", "export")))
    assert actions(steps) == [REUSE] * 3 + [RUN, REUSE, RUN]
    assert [step.replace for step in steps.values()] == [False] * 3 + [True, False, True]
    assert steps["slat"].reason == "asked for by --force slat"


def test_a_forced_stage_brings_back_what_it_takes(store: ArtifactStore) -> None:
    make(store, plan(store, recipes()), *(stage for stage in ORDER if stage != "conditioning"))
    assert plan(store, recipes(), wish=Wish(force=("slat",)))["conditioning"].action == RUN


def test_only_one_stage(store: ArtifactStore) -> None:
    make(store, plan(store, recipes()), *ORDER[:4])
    steps = plan(store, recipes(), wish=Wish(only="decoding"))
    assert actions(steps) == [REUSE] * 4 + [RUN, SKIP]
    assert steps["export"].reason == "left out by --only decoding"
    make(store, steps, "decoding")
    assert actions(plan(store, recipes(), wish=Wish(only="decoding"))) == [REUSE] * 5 + [SKIP]
    assert actions(plan(store, recipes(), wish=Wish(only="decoding", force=("decoding",))))[4:] == [RUN, SKIP]
    store.remove(steps["segmentation"].ref)  # nothing that --only asks for needs it
    assert actions(plan(store, recipes(), wish=Wish(only="slat"))) == [SKIP, *[REUSE] * 4, SKIP]
    with pytest.raises(ConfigError, match="--only export needs the result of segmentation, which is not stored"):
        plan(store, recipes(), wish=Wish(only="export"))


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish(from_stage="slats"), "--from: there is no stage 'slats' in this run; choose one of segmentation"),
        (Wish(only="slats"), "--only: there is no stage 'slats'"),
        (Wish(force=("slat", "slats")), "--force: there is no stage 'slats'"),
        (Wish(only="slat", from_stage="slat"), "exclude each other"),
        (Wish(only="slat", force=("decoding",)), "leaves the other stages alone"),
    ],
)
def test_wishes_that_cannot_be_met(store: ArtifactStore, wish: Wish, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan(store, recipes(), wish=wish)


def test_a_file_counts_by_its_content(store: ArtifactStore, tmp_path: Path) -> None:
    """A key must say what was read, wherever it lay."""

    def key(path: Path) -> str:
        config = load_config("tiny", OFF)
        section = WithFile(file=path)
        changed = config.model_copy(update={"sections": {**config.sections, "slat": section}})
        return artifact_key(recipes(config=changed).of(replace(STAGES["slat"], config=WithFile), refs))

    refs = {stage: step.ref for stage, step in plan(store, recipes()).items()}
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a")
    two.write_bytes(b"a")
    before = key(one)
    assert key(two) == before
    one.write_bytes(b"b")
    assert key(one) != before


def test_the_package_of_an_implementation_is_in_the_key(store: ArtifactStore) -> None:
    refs = {stage: step.ref for stage, step in plan(store, recipes()).items()}
    keys = {
        artifact_key(recipes().of(replace(STAGES["slat"], package=package, revision=revision), refs))
        for package in (None, Package("a", "1"), Package("a", "2"), Package("b", "1"))
        for revision in (1, 2)
    }
    assert len(keys) == 8


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"source_digest": "2" * 64}, "segmentation"),
        ({"config": load_config("tiny", [*OFF, "input.step=2"])}, "segmentation"),
        ({"fingerprints": {**WEIGHTS, "image_cond_model": "2" * 64}}, "conditioning"),
        ({"seed": 1}, "sparse_structure"),
        ({"fingerprints": {**WEIGHTS, "sparse_structure_decoder": "2" * 64}}, "sparse_structure"),
        ({"config": load_config("tiny", [*OFF, "slat.sampler.steps=99"])}, "slat"),
        ({"fingerprints": {**WEIGHTS, "slat_decoder_gs": "2" * 64}}, "decoding"),
        ({"config": load_config("tiny", [*OFF, "export.size=64"])}, "export"),
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
    config = load_config("tiny", [*OFF, "slat.sampler.steps=99"])
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
