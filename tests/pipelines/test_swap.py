"""Other implementations of stages: from an installed package, chosen by name, checked, and never taken for another."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint, PathDistribution
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from ss4d.pipelines.config import load_config
from ss4d.pipelines.errors import ConfigError, PluginError, explain
from ss4d.pipelines.implementation import Implementation, Package
from ss4d.pipelines.networks import ModelChoice, open_model
from ss4d.pipelines.offers import offers, parameters
from ss4d.pipelines.prepare import RunOptions, prepare
from ss4d.pipelines.registry import GROUP, Registry, installed, unknown_names
from ss4d.pipelines.run import run_clip
from ss4d.pipelines.stage_inputs import StageInputs
from ss4d.pipelines.stages import BUILT_IN, STAGES
from ss4d.stages.errors import InputError, ValueSpecError
from ss4d.stages.stage_config import StageConfig
from ss4d.stages.types import Clip
from tests.conftest import FAST, Silent, draw_frames, record, save_frames
from tests.helpers.places import ROOT

PLUGIN = ROOT / "examples" / "plugin"


class OtherConfig(StageConfig):
    method: Literal["other"] = "other"


def other(config: OtherConfig, inputs: StageInputs) -> Clip:
    raise AssertionError("never called")


OTHER = Implementation(stage="segmentation", config=OtherConfig, run=other)
NOT_ONE = 3


def offered(tmp_path: Path, name: str, value: str, package: str = "some-stages") -> EntryPoint:
    """The entry point of a package that seems installed."""
    info = tmp_path / f"{package}-1.2.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {value}\n")
    (found,) = PathDistribution(info).entry_points
    return found


# The registry


def test_built_in_implementations_are_all_there() -> None:
    registry = Registry(STAGES, BUILT_IN, ())
    for stage in registry.stages():
        assert registry.default(stage) in registry.methods(stage)
        for method in registry.methods(stage):
            assert method in registry.get(stage, method).methods
    assert registry.methods("decoding") == ["gaussians", "inflation"]


def test_a_package_is_imported_only_when_chosen(tmp_path: Path) -> None:
    broken = offered(tmp_path, "segmentation.other", "no_such_module:X")
    registry = Registry(STAGES, BUILT_IN, (broken,))
    assert registry.get("segmentation", "auto").package is None
    with pytest.raises(PluginError, match=r"the package some-stages 1.2 is broken.*no_such_module:X does not load"):
        registry.get("segmentation", "other")


def test_what_a_package_offers(tmp_path: Path) -> None:
    registry = Registry(STAGES, BUILT_IN, (offered(tmp_path, "segmentation.other", f"{__name__}:OTHER"),))
    assert registry.get("segmentation", "other") == replace(OTHER, package=Package("some-stages", "1.2"))
    assert registry.default("segmentation") == "auto"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("segmentation.other", "tests.pipelines.test_swap:NOT_ONE", "is no Implementation but int"),
        ("decoding.other", f"{__name__}:OTHER", "implements segmentation as other"),
        ("segmentation.another", f"{__name__}:OTHER", "implements segmentation as other"),
    ],
)
def test_what_is_not_what_its_name_says(tmp_path: Path, name: str, value: str, words: str) -> None:
    stage, method = name.split(".")
    with pytest.raises(PluginError, match=f"the package some-stages 1.2 is broken.*{words}"):
        Registry(STAGES, BUILT_IN, (offered(tmp_path, name, value),)).get(stage, method)


def test_a_name_that_clashes_is_refused(tmp_path: Path) -> None:
    one = offered(tmp_path, "segmentation.other", f"{__name__}:OTHER", "one")
    two = offered(tmp_path, "segmentation.other", f"{__name__}:OTHER", "two")
    with pytest.raises(ConfigError, match=r"offered by the package one 1.2 and by the package two 1.2"):
        Registry(STAGES, BUILT_IN, (one, two)).get("segmentation", "other")
    own = offered(tmp_path, "segmentation.alpha", f"{__name__}:OTHER")
    with pytest.raises(ConfigError, match=r"offered by this program and by the package some-stages"):
        Registry(STAGES, BUILT_IN, (own,)).get("segmentation", "alpha")


def test_a_name_of_no_stage_is_told(tmp_path: Path) -> None:
    (sentence,) = unknown_names(Registry(STAGES, BUILT_IN, (offered(tmp_path, "segment.other", f"{__name__}:OTHER"),)))
    assert "some-stages 1.2" in sentence
    assert "'segment.other'" in sentence


class Nameless(StageConfig):
    size: int = 3


class Shouting(StageConfig):
    method: Literal["BIG"] = "BIG"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": dict}, "subclass of StageConfig"),
        ({"config": Nameless}, "must be a Literal"),
        ({"config": Shouting}, "must be a Literal"),
        ({"inputs": ("segmentation",)}, "cannot take its own result"),
    ],
)
def test_what_cannot_be_an_implementation(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(PluginError, match=words):
        replace(OTHER, **changes)


# The list


def test_every_parameter_is_told_with_its_type_default_and_meaning() -> None:
    for offer in offers(Registry(STAGES, BUILT_IN, ())):
        assert offer.problem is None
        for parameter in offer.parameters:
            assert parameter.meaning, parameter.key
            assert parameter.kind != "any", parameter.key
    told = {p.key: p for one in BUILT_IN for p in parameters(one.stage, one.config)}
    size = told["segmentation.size"]
    assert (size.kind, size.default, size.limits) == ("integer", "518", ">= 14, <= 2048")
    assert told["slat.sampler.cfg_interval"].kind == "[number, number] or null"
    assert told["slat.sampler.cfg_interval"].limits == ">= 0, <= 1"


def test_a_broken_package_is_told_in_the_list(tmp_path: Path) -> None:
    broken = offered(tmp_path, "segmentation.other", "no_such_module:X")
    told = [offer for offer in offers(Registry(STAGES, BUILT_IN, (broken,))) if offer.problem]
    assert [(offer.stage, tuple(offer.methods)) for offer in told] == [("segmentation", ("other",))]


# A real package and the real command


WRONG = """
import torch
from typing import Literal
from ss4d.pipelines.implementation import Implementation
from ss4d.stages.stage_config import StageConfig
from ss4d.stages.types import Tokens

class Config(StageConfig):
    method: Literal["{name}"] = "{name}"

def run(config, inputs):
    {body}

IT = Implementation(stage="conditioning", config=Config, run=run)
"""
BODIES = {
    "halved": "return Tokens(feats=torch.zeros(4, 5, 6, dtype=torch.float16))",
    "crashing": "return 1 / 0",
    "careless": "inputs.video()",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example package installed, and one whose stages give what they must not."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("site")
    shutil.copytree(PLUGIN, source)
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    done = subprocess.run([sys.executable, *words, target, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    info = target / "wrong_stages-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong-stages\nVersion: 0.1\n")
    names = [*BODIES, "unimportable"]
    entries = "".join(f"conditioning.{name} = wrong_{name}:IT\n" for name in names)
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{entries}")
    for name, body in BODIES.items():
        (target / f"wrong_{name}.py").write_text(WRONG.format(name=name, body=body))
    return target


@pytest.fixture
def with_site(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(PLUGIN.parent.parent)]))


def ss4d(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ss4d.cli.entry", *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The disc before a green screen."""
    frames = draw_frames(4)
    frames[frames[..., 3] == 0] = (0, 255, 0, 255)
    return save_frames(tmp_path_factory.mktemp("screen") / "disc", frames[..., :3])


@pytest.mark.usefixtures("with_site", "site_here")
def test_a_run_with_stages_of_a_package(screen: Path, tmp_path: Path, model_folder: Path) -> None:
    resolution = open_model(ModelChoice(model=str(model_folder)), "cpu").network("slat_flow_model").args.resolution
    cells = np.zeros((resolution,) * 3, np.uint8)
    cells[2:5, 1:6, 3] = 1
    np.save(tmp_path / "ball.npy", cells)
    fast = [f"model={model_folder}", *(word for word in FAST if not word.startswith("sparse_structure."))]
    methods = ["segmentation.method=chroma_key", "sparse_structure.method=voxel_file"]
    values = (*fast, *methods, f"sparse_structure.file={tmp_path / 'ball.npy'}")
    sets = [word for value in values for word in ("--set", value)]
    done = ss4d("run", str(screen), "--out", str(tmp_path), "--engine", "direct", *sets)
    assert done.returncode == 0, done.stderr
    made = record(tmp_path, "disc")
    assert made["state"] == "complete"
    assert made["config"]["sparse_structure"] == {"method": "voxel_file", "file": str(tmp_path / "ball.npy")}
    recipe = made["stages"]["sparse_structure"]["recipe"]
    assert recipe["package"] == {"name": "ss4d-example-stages", "version": "1.0"}
    assert list(recipe["inputs"]) == ["segmentation"]

    np.save(tmp_path / "ball.npy", 1 - cells)  # another content under the same name
    run_clip(RunOptions(source=screen, out=tmp_path, overrides=values, device="cpu", engine="direct"), Silent())
    made = record(tmp_path, "disc")
    states = {stage: entry["state"] for stage, entry in made["stages"].items()}
    assert states["conditioning"] == "reused"
    assert [states[s] for s in ("sparse_structure", "slat", "decoding", "export")] == ["computed"] * 4
    assert made["stages"]["sparse_structure"]["reason"] == "the content of sparse_structure.file changed"


@pytest.fixture
def site_here(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The packages, installed for this process."""
    monkeypatch.syspath_prepend(site)
    installed.cache_clear()
    yield
    installed.cache_clear()


@pytest.mark.usefixtures("site_here")
@pytest.mark.parametrize(
    ("method", "error", "words"),
    [
        ("halved", ValueSpecError, ["Tokens.feats must be a tensor (t, l, c) of torch.float32", "torch.float16"]),
        ("crashing", PluginError, ["'crashing' of the stage conditioning", "failed: ZeroDivisionError"]),
        ("careless", PluginError, ["it must say source=True"]),
        ("unimportable", PluginError, ["is broken", "wrong_unimportable:IT does not load (ModuleNotFoundError"]),
    ],
)
def test_wrong_stages_of_a_package(
    model_folder: Path, clip: Path, tmp_path: Path, method: str, error: type[Exception], words: list[str]
) -> None:
    options = RunOptions(
        source=clip,
        out=tmp_path,
        overrides=(f"model={model_folder}", "segmentation.size=64", f"conditioning.method={method}"),
        device="cpu",
        engine="direct",
    )
    with pytest.raises(error) as caught:
        run_clip(options, Silent())
    for word in (*words, "the package wrong-stages 0.1"):
        assert word in str(caught.value)
    assert explain(caught.value) == str(caught.value)  # so the command ends with this sentence
    assert not list((tmp_path / "store").glob("conditioning/*/*"))


@pytest.mark.usefixtures("site_here")
@pytest.mark.parametrize(
    ("side", "filled", "words"),
    [(5, 1, "Voxels.resolution must be 8, as the model's flow"), (8, 0, "Voxels.coords must have at least one row")],
)
def test_voxels_that_do_not_fit_are_not_stored(
    model_folder: Path, clip: Path, tmp_path: Path, side: int, filled: int, words: str
) -> None:
    np.save(tmp_path / "cells.npy", np.full((side,) * 3, filled, np.uint8))
    chosen = ("sparse_structure.method=voxel_file", f"sparse_structure.file={tmp_path / 'cells.npy'}")
    fast = ("segmentation.size=64", "input.count=1")
    options = RunOptions(
        source=clip, out=tmp_path, overrides=(f"model={model_folder}", *fast, *chosen), device="cpu", engine="direct"
    )
    with pytest.raises(ValueSpecError) as caught:
        run_clip(options, Silent())
    for word in (words, "'voxel_file' of the stage sparse_structure", "the package ss4d-example-stages"):
        assert word in str(caught.value)
    assert not list((tmp_path / "store").glob("sparse_structure/*/*"))


@pytest.mark.usefixtures("site_here")
def test_a_file_that_is_not_there(model_folder: Path, clip: Path, tmp_path: Path) -> None:
    chosen = ("sparse_structure.method=voxel_file", "sparse_structure.file=nowhere.npy")
    options = RunOptions(source=clip, out=tmp_path, overrides=(f"model={model_folder}", *chosen))
    with pytest.raises(InputError, match=r"nowhere\.npy"):
        prepare(options)


@pytest.mark.usefixtures("site_here")
def test_a_path_in_a_file_counts_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    mine = tmp_path / "mine" / "mine.yaml"
    mine.write_text("model: bundled:tiny\nsparse_structure: {method: voxel_file, file: a.npy}\n")
    monkeypatch.chdir(tmp_path)
    assert load_config(str(mine)).section("sparse_structure").model_dump()["file"] == mine.parent / "a.npy"
    given = load_config(str(mine), ["sparse_structure.file=a.npy"]).section("sparse_structure").model_dump()
    assert given["file"] == tmp_path / "a.npy"


@pytest.mark.usefixtures("site_here")
def test_a_method_that_nobody_offers() -> None:
    with pytest.raises(ConfigError, match=r"must be one of image_tokens, careless, crashing, .*; got 'missing'"):
        load_config("tiny", ["conditioning.method=missing"])


@pytest.mark.usefixtures("with_site")
def test_the_list_of_stages() -> None:
    done = ss4d("stages")
    assert done.returncode == 1  # one of them is broken
    assert "wrong-stages 0.1 is broken" in done.stderr
    assert "conditioning.method = unimportable: cannot be used" in done.stdout
    assert "segmentation.method = chroma_key, from ss4d-example-stages 1.0" in done.stdout
    assert "sparse_structure.file    file        (must be given)" in done.stdout
    assert "decoding.depth       number     0.8        > 0, <= 1" in done.stdout
