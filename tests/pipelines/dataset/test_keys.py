"""Keys of whole datasets: the same as those of single runs, whatever the configuration, and fast."""

import hashlib
import json
import os
import zipfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ss4d.pipelines.config import RunConfig, load_config
from ss4d.pipelines.dataset.keys import Settings, StageKeys, choose_settings, last_settings, recorded_keys
from ss4d.pipelines.dataset.layout import create_dataset
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.implementation import Package
from ss4d.pipelines.plan import NO_WISH, RUN, Recipes, make_plan
from ss4d.storage.errors import StoreError
from ss4d.storage.refs import ArtifactRef, artifact_key
from ss4d.storage.store import ArtifactStore
from tests.helpers.unfitted import OFF

ROLES = {role for implementation in load_config("tiny").stages().values() for role in implementation.roles}
WEIGHTS = {role: hashlib.sha256(role.encode()).hexdigest() for role in ROLES}
DIGESTS = [hashlib.sha256(bytes([n])).hexdigest() for n in range(3)]


def expected(config: RunConfig, digest: str, seed: int) -> dict[str, str]:
    recipes = Recipes(config, digest, seed, WEIGHTS)
    refs: dict[str, ArtifactRef] = {}
    for stage, implementation in config.stages().items():
        refs[stage] = ArtifactRef(stage, artifact_key(recipes.of(implementation, refs)))
    return {stage: ref.key for stage, ref in refs.items()}


def with_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the segmentation that of a package, which goes into its recipe."""
    chosen = RunConfig.implementations

    def implementations(self: RunConfig) -> dict[str, Any]:
        known = chosen(self)
        return known | {"segmentation": replace(known["segmentation"], package=Package("100%s-stages", "1.2"))}

    monkeypatch.setattr(RunConfig, "implementations", implementations)


@pytest.mark.parametrize(
    "overrides",
    [(), ("slat.sampler.steps=7", "input.count=3"), ("decoding.method=inflation",)],
    ids=["default", "changed", "inflation"],
)
@pytest.mark.parametrize("package", [False, True])
def test_keys_are_those_of_single_runs(
    overrides: tuple[str, ...], package: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package:
        with_package(monkeypatch)
    config = load_config("tiny", overrides)
    keys = StageKeys(config, WEIGHTS, 7).of(DIGESTS)
    assert list(keys) == list(config.stages())
    for index, digest in enumerate(DIGESTS):
        assert {stage: column[index] for stage, column in keys.items()} == expected(config, digest, 7)


def test_what_is_missing_is_what_a_plan_would_run(tmp_path: Path) -> None:
    """For every set of artifacts that may be there."""
    keys = StageKeys(load_config("tiny", OFF), WEIGHTS, 42)
    columns = keys.of(DIGESTS[:1])
    recipes = Recipes(keys.config, DIGESTS[0], 42, WEIGHTS)

    class Half(ArtifactStore):
        def contains(self, ref: ArtifactRef) -> bool:
            return ref.stage in stored

    for present in product((False, True), repeat=len(keys.stages)):
        stored = {stage for stage, there in zip(keys.stages, present, strict=True) if there}
        steps = make_plan(recipes, Half(tmp_path), wish=NO_WISH, previous={})
        complete = {stage: set(columns[stage]) if stage in stored else set() for stage in keys.stages}
        assert keys.missing(columns, complete) == [tuple(step.stage for step in steps if step.action == RUN)]


def test_a_hundred_thousand_clips_have_keys_of_their_own() -> None:
    keys = StageKeys(load_config("tiny", OFF), WEIGHTS, 42)
    digests = [f"{n:064x}" for n in range(100_000)]
    columns = keys.of(digests)
    assert len({key for column in columns.values() for key in column}) == 600_000


def test_no_clips() -> None:
    keys = StageKeys(load_config("tiny", OFF), WEIGHTS, 42)
    assert keys.missing(keys.of([]), {stage: set() for stage in keys.stages}) == []


def test_settings_of_the_last_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = create_dataset(tmp_path / "set")
    assert last_settings(dataset) is None
    monkeypatch.chdir(tmp_path)
    said = Settings(configuration="mine.yaml", overrides=["slat.sampler.steps=3"], seed=9)
    with dataset.launches.open("w") as file:
        file.write(Settings().model_dump_json() + "\n")
        file.write(Settings(**said.recorded(), started="now", counts={"done": 3}).model_dump_json() + "\n")
    assert last_settings(dataset) == Settings(
        configuration=str(tmp_path / "mine.yaml"), overrides=said.overrides, seed=9
    )
    with dataset.launches.open("a") as file:
        file.write('{"seed": 7, "configura')  # torn by a kill
    assert last_settings(dataset) == Settings(
        configuration=str(tmp_path / "mine.yaml"), overrides=said.overrides, seed=9
    )


def test_what_a_command_means(tmp_path: Path) -> None:
    dataset = create_dataset(tmp_path / "set")
    assert choose_settings(dataset) == Settings()
    assert choose_settings(dataset, None, ["precision=float32"], 3) == Settings(overrides=["precision=float32"], seed=3)
    last = Settings(configuration="ss4d", overrides=["slat.sampler.steps=3", "export.frames=4"], seed=9)
    dataset.launches.write_text(json.dumps(last.recorded()) + "\n")
    assert choose_settings(dataset) == last
    changed = choose_settings(dataset, None, ["slat.sampler.steps=5"])
    assert changed == Settings(configuration="ss4d", overrides=["slat.sampler.steps=5", "export.frames=4"], seed=9)
    assert choose_settings(dataset, "ss4d") == Settings(configuration="ss4d")
    assert choose_settings(dataset, "tiny", seed=1) == Settings(seed=1)


def test_keys_of_recorded_recipes() -> None:
    """Without the model and the configuration that they came from."""
    keys = StageKeys(load_config("tiny", OFF), WEIGHTS, 7)
    assert recorded_keys(json.loads(json.dumps(keys.recipes())), DIGESTS) == keys.of(DIGESTS)


def test_a_dataset_is_made_once(tmp_path: Path) -> None:
    dataset = create_dataset(tmp_path / "set", "s3://bucket/prefix")
    assert dataset == create_dataset(tmp_path / "set", "s3://bucket/prefix")
    assert create_dataset(tmp_path / "set").store == dataset.store
    assert dataset.store == "s3://bucket/prefix"
    with pytest.raises(ConfigError, match="cannot have it at elsewhere"):
        create_dataset(tmp_path / "set", "elsewhere")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(ConfigError, match="holds other files"):
        create_dataset(tmp_path / "other")


def test_a_dataset_has_no_store_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    zipfile.ZipFile(tmp_path / "run.zip", "w").close()
    for name, told in (("file", "is a file"), ("pipe", "is a file"), ("run.zip", "can only be read")):
        with pytest.raises(StoreError, match=told):
            create_dataset(tmp_path / "set", str(tmp_path / name))
    with pytest.raises(StoreError, match="cannot be used"):
        create_dataset(tmp_path / "set", "ftp://host/store")
    assert not (tmp_path / "set").exists()
