"""Runs of a model from the hub: they fetch what their goals need, and keep the commit that they began with."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import constants

from ss4d.pipelines import networks
from ss4d.pipelines.dataset.keys import choose_settings, open_keys, portable
from ss4d.pipelines.dataset.launch import DatasetOptions, plan_dataset, run_dataset
from ss4d.pipelines.dataset.layout import open_dataset
from ss4d.pipelines.dataset.opened import open_for
from ss4d.pipelines.dataset.rebuild import rebuild_index
from ss4d.pipelines.dataset.select import Choice
from ss4d.pipelines.dataset.workers.progress import Snapshot
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.plan import REUSE, RUN
from ss4d.pipelines.prepare import Preparation, RunOptions, prepare
from ss4d.pipelines.run import LogReporter, run_clip
from ss4d.pipelines.training import train
from ss4d.pipelines.training.train_options import DataTrainOptions
from ss4d.stages.roles import GAUSSIAN_DECODER, IMAGE_ENCODER, STRUCTURE_DECODER, STRUCTURE_FLOW
from ss4d.stages.training.tiny import file_name
from ss4d.stages.types import silent
from tests.conftest import FAST
from tests.helpers.poisoned import make_dataset

if TYPE_CHECKING:
    from tests.helpers.fake_hub import FakeHub, Repository

pytest_plugins = ["tests.helpers.fake_hub"]

NAME = "org/model"


@pytest.fixture
def repository(fake_hub: "FakeHub", model_folder: Path) -> "Repository":
    """The small model, one part of which lies in another repository, beside files that nothing names."""
    files = {str(path.relative_to(model_folder)): path.read_bytes() for path in model_folder.rglob("*.*")}
    pipeline = json.loads(files["pipeline.json"])
    pipeline["args"]["models"][STRUCTURE_DECODER] = "org/parts/ckpts/decoder"
    pipeline["args"]["models"]["slat_decoder_mesh"] = "ckpts/mesh"
    pair = (".json", ".safetensors")
    parts = {f"ckpts/decoder{suffix}": files.pop(f"ckpts/{STRUCTURE_DECODER}{suffix}") for suffix in pair}
    fake_hub.new("org/parts", parts)
    more = {"README.md": b"", "ckpts/mesh.json": b"{}", "ckpts/mesh.safetensors": b"m", "ckpts/old.safetensors": b"o"}
    return fake_hub.new(NAME, {**files, **more, "pipeline.json": json.dumps(pipeline).encode()})


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No model is open, as in a new process."""
    networks._open.cache_clear()
    yield
    networks._open.cache_clear()


class Silent:
    """Hears how a run of a dataset goes on."""

    def message(self, text: str) -> None:
        """Nothing."""

    def show(self, snapshot: Snapshot) -> None:
        """Nothing."""


def options(clip: Path, out: Path, *overrides: str) -> RunOptions:
    fast = (word for word in FAST if word.startswith(("sparse_structure", "segmentation")))
    return RunOptions(
        source=clip,
        out=out,
        overrides=(f"model=hub:{NAME}", *fast, "goals=[sparse_structure]", *overrides),
        device="cpu",
        engine="direct",
    )


def planned(options: RunOptions) -> Preparation:
    """As a new command plans it."""
    networks._open.cache_clear()
    return prepare(options)


def of(*roles: str) -> set[str]:
    """The files of networks."""
    return {f"ckpts/{file_name(role)}{suffix}" for role in roles for suffix in (".json", ".safetensors")}


def change(repository: "Repository") -> str:
    """Moves the branch on to a model of which all weights are others, and gives the commit before."""
    before = repository.main
    files = repository.commits[before]
    decoder = files[f"ckpts/{GAUSSIAN_DECODER}.safetensors"]
    repository.commit({name: decoder if name.endswith(".safetensors") else data for name, data in files.items()})
    return before


def test_a_run_fetches_what_its_goals_need_and_a_plan_no_weights(
    fake_hub: "FakeHub", repository: "Repository", model_folder: Path, clip: Path, tmp_path: Path
) -> None:
    wanted = options(clip, tmp_path / "out")
    plan = planned(wanted)
    needed = {*of(IMAGE_ENCODER, STRUCTURE_FLOW), "ckpts/decoder.json", "ckpts/decoder.safetensors"}
    descriptions = {name for name in needed if name.endswith(".json")}
    assert fake_hub.fetched == {"pipeline.json", "NOTICE.md", *descriptions}
    run_clip(wanted, LogReporter())
    assert fake_hub.fetched == {"pipeline.json", "NOTICE.md", *needed}
    local = RunOptions(
        source=clip, out=tmp_path / "local", overrides=(*wanted.overrides, f"model={model_folder}"), device="cpu"
    )
    keys = {step.stage: step.ref.key for step in plan.steps}
    assert {step.stage: step.ref.key for step in planned(local).steps} == keys
    record = json.loads((tmp_path / "out" / "runs" / clip.name / "run.json").read_text())
    assert record["model"]["location"] == f"hub:{NAME}"
    commits = {NAME: repository.main, "org/parts": fake_hub.repositories["org/parts"].main}
    assert record["model"]["revisions"] == commits


def test_a_precision_that_a_cpu_cannot_do_is_refused_from_descriptions(
    fake_hub: "FakeHub", repository: "Repository", clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="precision float16 computes in float16 here, for which a CPU is too slow"):
        planned(options(clip, tmp_path / "out", "precision=float16"))
    assert repository.main
    assert not [words for words in fake_hub.asked if words.endswith(".safetensors")]


def test_a_run_keeps_its_commit_and_another_one_is_chosen_by_its_name(
    fake_hub: "FakeHub", repository: "Repository", clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = options(clip, tmp_path / "out")
    folder = run_clip(wanted, LogReporter())
    begun = change(repository)
    again = planned(wanted)
    assert {step.action for step in again.steps} == {REUSE}
    assert again.model.revisions[NAME] == begun

    newest = options(clip, tmp_path / "out", f"revisions={{{NAME}: main}}")
    assert {step.action for step in planned(newest).steps if step.stage != "segmentation"} == {RUN}
    assert planned(options(clip, tmp_path / "other")).model.revisions[NAME] == repository.main

    fake_hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    shutil.rmtree(tmp_path / "out" / "store" / "sparse_structure")
    run_clip(wanted, LogReporter())
    assert json.loads((folder / "run.json").read_text())["model"]["revisions"][NAME] == begun
    assert fake_hub.asked == []


def test_a_dataset_keeps_the_commit_of_its_first_launch(
    fake_hub: "FakeHub", repository: "Repository", clip: Path, tmp_path: Path
) -> None:
    make_dataset(tmp_path / "dataset", [clip])
    dataset = open_dataset(tmp_path / "dataset")
    words = list(options(clip, tmp_path).overrides)

    def asked() -> DatasetOptions:
        networks._open.cache_clear()
        settings = choose_settings(dataset, "tiny", words)
        return DatasetOptions(folder=dataset.folder, settings=settings, choice=Choice(), device="cpu", workers=1)

    first = asked()
    run_clip(replace(options(clip, tmp_path / "out"), store=dataset.store), LogReporter())
    with open_for(dataset, first.settings) as opened:
        rebuild_index(opened, silent)
    assert run_dataset(first, Silent()).ending is None  # all is there, so no worker starts
    begun = change(repository)
    assert [json.loads(line)["revisions"][NAME] for line in dataset.launches.read_text().splitlines()] == [begun] * 2
    assert plan_dataset(asked()).finished == 1
    keys, _ = open_keys(asked().settings)
    networks._open.cache_clear()
    assert portable(first.settings).revisions[NAME] == repository.main  # what has never been launched is new
    assert portable(asked().settings).revisions == dict(keys.config.revisions)


def test_users_variables_are_heeded(fake_hub: "FakeHub", repository: "Repository", clip: Path, tmp_path: Path) -> None:
    repository.token = "secret"

    def plan(**variables: str) -> subprocess.CompletedProcess[str]:
        words = [word for value in options(clip, tmp_path / "out").overrides for word in ("--set", value)]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_ENDPOINT": fake_hub.address, **variables}
        command = [sys.executable, "-m", "ss4d.cli.entry", "plan", str(clip), "--out", str(tmp_path / "out"), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    home = str(tmp_path / "home")
    refused = plan(HF_HOME=home)
    assert refused.returncode == 1
    assert "the hub has no repository org/model, or it is private" in " ".join(refused.stderr.split())
    assert "secret" not in refused.stderr
    told = plan(HF_HOME=home, HF_TOKEN="secret")
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "home" / "hub" / "models--org--model").is_dir()
    offline = plan(HF_HOME=home, HF_HUB_OFFLINE="1")
    assert offline.returncode == 1
    assert "is not on this machine and HF_HUB_OFFLINE is set" in " ".join(offline.stderr.split())


def test_training_from_a_model_of_the_hub_names_its_commits(
    fake_hub: "FakeHub", repository: "Repository", tmp_path: Path
) -> None:
    options = DataTrainOptions(recipe="tiny", out=tmp_path / "trained", device="cpu", init=f"hub:{NAME}")
    start = train.opened(options, lambda _: None).start
    assert start is not None
    parts = fake_hub.repositories["org/parts"]
    assert start.origin == f"hub:{NAME} ({NAME} at {repository.main}, org/parts at {parts.main})"
