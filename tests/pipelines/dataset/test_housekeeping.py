"""Freeing the store of a dataset: what its launches need stays, and what went is known to be gone."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ss4d.pipelines.config import load_config
from ss4d.pipelines.dataset.events import Attempt, EventWriter, now, worker_name
from ss4d.pipelines.dataset.index import open_index
from ss4d.pipelines.dataset.keys import Settings, StageKeys
from ss4d.pipelines.dataset.launches import Launch, recorded_launches
from ss4d.pipelines.dataset.layout import Dataset, create_dataset
from ss4d.pipelines.dataset.manifest import Row
from ss4d.pipelines.dataset.plan import plan_clips
from ss4d.pipelines.dataset.references import dataset_references, known_digests
from ss4d.pipelines.dataset.select import ALL
from ss4d.pipelines.dataset.workers.policy import Policy
from ss4d.pipelines.store import housekeeping
from ss4d.pipelines.store.housekeeping import ABANDONED, Sorting, collect, verify_store
from ss4d.pipelines.store_notes import note_launch
from ss4d.stages.types import silent
from ss4d.storage.codec import ArrayData
from ss4d.storage.errors import StoreError
from ss4d.storage.manifest import write_rows
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import open_store
from tests.helpers.dataset_history import row
from tests.helpers.unfitted import OFF
from tests.pipelines.dataset.test_keys import WEIGHTS

OLD, NEW = (StageKeys(load_config("tiny", [*OFF, f"slat.sampler.steps={steps}"]), WEIGHTS, seed=1) for steps in (2, 3))
CLIPS = ("a", "b")
AFTER = ("slat", "decoding", "export")  # stages that the parameter changes


def refs(keys: StageKeys, stages: Sequence[str] = tuple(OLD.stages)) -> set[ArtifactRef]:
    made = keys.of([row(name).sha256 or "" for name in CLIPS])
    return {ArtifactRef(stage, key) for stage in stages for key in made[stage]}


def launch(dataset: Dataset, keys: StageKeys) -> Launch:
    return Launch(dataset, Settings(), keys.recipes(), {})


def end(started: Launch) -> None:
    started.end(state="finished", reason=None, clips=2, done=2, failed={}, seconds=1.0)


def gc(dataset: Dataset, drop: Sequence[str] = ()) -> Sorting:
    return collect(dataset.store, drop=drop, min_age=0, dry_run=False, progress=silent)


def stored(dataset: Dataset) -> set[ArtifactRef]:
    return set(open_store(dataset.store).refs())


def known(dataset: Dataset) -> set[ArtifactRef]:
    with open_index(dataset) as index:
        return {ArtifactRef(stage, key) for stage, keys in index.complete(OLD.stages).items() for key in keys}


def made_since(dataset: Dataset, clip: str, ref: ArtifactRef) -> Attempt:
    """As it is recorded after the last deletion."""
    deletions = open_store(dataset.store).deletions()
    return Attempt(clip=clip, stage=ref.stage, key=ref.key, state="done", time=now(), deletions=deletions)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two clips, done with two configurations, of which no launch is recorded."""
    made = create_dataset(tmp_path / "set")
    write_rows(made.manifest, Row, [*(row(name) for name in CLIPS), row("bad", sha256=None, error="damaged")])
    store = open_store(made.store)
    with EventWriter(made.events, {}) as events:
        for ref in refs(OLD) | refs(NEW):
            with store.create(ref) as writer:
                writer.write("feats", ArrayData(np.ones((2, 3)), ("n", "c")))
                writer.commit({})
            events.write(Attempt(clip="a", stage=ref.stage, key=ref.key, state="done", time=now()))
    return made


def test_the_last_launch_keeps_what_it_needs(dataset: Dataset) -> None:
    end(launch(dataset, OLD))
    end(launch(dataset, NEW))
    sorting = gc(dataset)
    superseded = refs(OLD, AFTER)
    assert {unused.ref for unused in sorting.unused} == superseded
    assert stored(dataset) == known(dataset) == refs(NEW)
    assert gc(dataset).unused == []


def test_a_dataset_that_never_ran_keeps_nothing(dataset: Dataset) -> None:
    with pytest.raises(StoreError, match=r"runs\.jsonl is not there, though clips were run; nothing is deleted"):
        gc(dataset)
    for path in dataset.events.iterdir():
        path.unlink()
    for _ in range(2):  # what is deleted is an event, too
        gc(dataset)
        assert stored(dataset) == set()


def test_launches_that_are_lost_are_known_by_what_they_noted(dataset: Dataset) -> None:
    end(launch(dataset, NEW))
    note_launch(open_store(dataset.store), dataset.folder, NEW.recipes(), known_digests(dataset))
    dataset.launches.rename(dataset.folder / "lost")
    for _ in range(2):
        assert [text.endswith("what they noted in the store is kept") for text in gc(dataset).doubts] == [True]
        assert stored(dataset) == refs(NEW)
    (dataset.folder / "lost").rename(dataset.launches)
    assert gc(dataset).doubts == []
    assert stored(dataset) == refs(NEW)


def test_a_launch_that_goes_on_keeps_what_it_needs(dataset: Dataset) -> None:
    with EventWriter(dataset.events, {}):  # as its coordinator has it
        launch(dataset, OLD)
    end(launch(dataset, NEW))
    assert gc(dataset, drop=["tokens"]).unused == []
    assert dataset_references(dataset, ABANDONED) == (refs(OLD) | refs(NEW), refs(OLD))
    assert dataset_references(dataset, patience=-1) == (refs(NEW), set())  # killed long ago


def test_dropped_and_made_again(dataset: Dataset) -> None:
    """Whatever order the files of events are read in."""
    end(launch(dataset, NEW))
    gc(dataset, drop=["tokens"])
    tokens = refs(NEW, ["conditioning"])
    assert stored(dataset) == known(dataset) == refs(NEW) - tokens
    with EventWriter(dataset.events, {}) as events:
        for ref in tokens:
            events.write(made_since(dataset, "a", ref))
    assert known(dataset) == refs(NEW)
    (told,) = (file for file in dataset.events.iterdir() if '"gone"' in file.read_text())
    for name in ("a", "z"):
        told = told.rename(told.with_name(f"{name}.jsonl"))
        dataset.index.unlink()
        assert known(dataset) == refs(NEW)


def test_what_repair_deletes_is_known_to_be_gone(dataset: Dataset) -> None:
    ref = min(refs(NEW, ["export"]), key=str)
    (chunk,) = Path(dataset.store).glob(f"{ref.stage}/*/{ref.key}*/feats/c.*")
    chunk.write_bytes(b"x")
    findings = verify_store(dataset.store, repair=True, progress=silent)
    assert list(findings.damaged) == [ref]
    assert ref not in known(dataset)
    assert known(dataset) == stored(dataset)


def test_what_repair_deletes_is_made_again_though_all_that_follows_is_there(dataset: Dataset) -> None:
    made = NEW.of([row(name).sha256 or "" for name in CLIPS])
    second = ArtifactRef("slat", made["slat"][1])
    (chunk,) = Path(dataset.store).glob(f"slat/*/{second.key}*/feats/c.*")
    chunk.write_bytes(b"x")
    verify_store(dataset.store, repair=True, progress=silent)
    with open_index(dataset) as index:
        assert index.missed() == {second.key}
        todo = NEW.missing(made, index.complete(NEW.stages), index.missed())
    assert todo == [(), ("slat",)]
    assert open_store(dataset.store).misses(second)  # so the worker sees it likewise
    with EventWriter(dataset.events, {}) as events:
        events.write(made_since(dataset, "b", second))
    with open_index(dataset) as index:
        assert index.missed() == set()


def test_what_repair_deleted_on_a_machine_without_the_dataset_is_made_again(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "known_datasets", lambda _store: [])
    second = ArtifactRef("slat", NEW.of([row(name).sha256 or "" for name in CLIPS])["slat"][1])
    (chunk,) = Path(dataset.store).glob(f"slat/*/{second.key}*/feats/c.*")
    chunk.write_bytes(b"x")
    assert plan_clips(dataset, NEW, ALL, Policy()).todo == []
    verify_store(dataset.store, repair=True, progress=silent)
    assert second in known(dataset)
    assert [(todo.source.id, todo.stages) for todo in plan_clips(dataset, NEW, ALL, Policy()).todo] == [
        ("b", ("slat",))
    ]


def test_a_store_elsewhere_knows_its_datasets(dataset: Dataset, tmp_path: Path) -> None:
    elsewhere = create_dataset(tmp_path / "other", store=dataset.store)
    write_rows(elsewhere.manifest, Row, [row(name) for name in CLIPS])
    end(launch(elsewhere, OLD))
    note_launch(open_store(elsewhere.store), elsewhere.folder, OLD.recipes(), known_digests(elsewhere))
    end(launch(dataset, NEW))
    assert gc(dataset).unused == []
    ref = min(refs(OLD, ["export"]), key=str)
    (chunk,) = Path(dataset.store).glob(f"export/*/{ref.key}*/feats/c.*")
    chunk.write_bytes(b"x")
    verify_store(dataset.store, repair=True, progress=silent)
    for given in (dataset, elsewhere):
        with open_index(given) as index:
            assert index.missed() == {ref.key}


def test_launches_are_read_around_torn_lines(dataset: Dataset) -> None:
    end(launch(dataset, OLD))
    with dataset.launches.open("a") as file:
        file.write('{"launch": "abcd", "reci')
    launch(dataset, NEW)
    old, new = recorded_launches(dataset)
    assert (old.ended, new.ended) == (True, False)
    assert (old.coordinator, new.coordinator) == (worker_name(), worker_name())
    assert new.recipes == json.loads(json.dumps(NEW.recipes()))
