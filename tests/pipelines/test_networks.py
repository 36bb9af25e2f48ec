"""The model of a configuration: what its networks are loaded with, and what a run's record says of it."""

import json
import logging
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ss4d.pipelines import loading
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.networks import KernelNames, Model, ModelChoice, open_model
from ss4d.pipelines.prepare import RunOptions, prepare
from ss4d.pipelines.run import LogReporter, run_clip
from ss4d.stages.errors import ModelError
from ss4d.stages.nn.flow_trunk import KEPT_BYTES
from ss4d.stages.ops import kernel_choice
from ss4d.stages.roles import IMAGE_ENCODER, LATENT_FLOW, STRUCTURE_DECODER, STRUCTURE_FLOW
from ss4d.stages.sampler_params import SamplerParams
from tests.conftest import draw_frames, save_frames
from tests.helpers.places import ROOT

TINY = ROOT / "configs" / "models" / "tiny"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny model."""
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def test_the_record_names_the_tensors_that_nothing_takes(folder: Path) -> None:
    weights = folder / "ckpts" / "sparse_structure_decoder.safetensors"
    save_file(load_file(weights) | {"head.weight": torch.zeros(2)}, weights)
    model = open_model(ModelChoice(model=str(folder)), "cpu")
    assert model.describe()["left_over"] == {}
    model.network(STRUCTURE_DECODER)
    assert model.describe()["left_over"] == {"sparse_structure_decoder.safetensors": ["head.weight"]}


def say_half(folder: Path) -> None:
    """Lets the occupancy decoder say that it was run in float16."""
    file = folder / "ckpts" / "sparse_structure_decoder.json"
    content = json.loads(file.read_text())
    content["args"]["use_fp16"] = True
    file.write_text(json.dumps(content))


def half(folder: Path, precision: str) -> Model:
    return open_model(ModelChoice(model=str(folder), precision=precision), "cpu")


def test_half_precision_on_a_cpu_is_answered_by_a_sentence(folder: Path) -> None:
    say_half(folder)
    sampler = SamplerParams(steps=100_000, cfg_strength=0.0)
    for precision, role in (("published", STRUCTURE_DECODER), ("float16", IMAGE_ENCODER)):
        # How long, each machine says for itself.
        estimates = (
            rf"precision {precision} computes in float16 here, .* precision=bfloat16 \(about \d+ (min|hours)\) "
            r"or --set precision=float32 \(about \d+ (min|hours)\); both are estimated for a clip of"
        )
        with pytest.raises(ConfigError, match=estimates):
            half(folder, precision).check_precision({role: None}, None)
    with pytest.raises(ConfigError, match=r"float32 \(about \d+ (min|hours)\); .* for the 64 frames of this clip"):
        half(folder, "float16").check_precision({STRUCTURE_FLOW: sampler}, lambda: 64)


@pytest.mark.parametrize("begin", [prepare, lambda options: run_clip(options, LogReporter())], ids=["plan", "run"])
def test_half_precision_on_a_cpu_is_refused_before_weights_are_hashed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Callable[[RunOptions], object]
) -> None:
    say_half(folder)
    monkeypatch.setattr(Model, "fingerprint", lambda *_: pytest.fail("weights were hashed"))
    options = RunOptions(
        source=ROOT / "examples" / "clips" / "bird_alpha.webm",
        out=tmp_path / "out",
        overrides=[f"model={folder}", "precision=published", "input.frames=5"],
        device="cpu",
    )
    with pytest.raises(ConfigError, match=r"computes in float16 here, .* for the 5 frames of this clip"):
        begin(options)
    assert not (tmp_path / "out").exists()


def test_what_computes_in_full_precision_runs_on_a_cpu(folder: Path) -> None:
    say_half(folder)
    half(folder, "published").check_precision({IMAGE_ENCODER: None}, None)
    half(folder, "bfloat16").check_precision({STRUCTURE_DECODER: None}, None)
    half(folder, "float16").check_precision({}, None)


def test_the_log_says_what_each_network_computes_in(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    say_half(folder)
    model = open_model(ModelChoice(model=str(folder), precision="published"), "cpu")
    with caplog.at_level(logging.INFO, logger="ss4d"):
        model.network(STRUCTURE_DECODER)
        model.network(IMAGE_ENCODER)
    said = [f"{STRUCTURE_DECODER} computes in float16", f"{IMAGE_ENCODER} computes in float32"]
    assert caplog.messages == ["kernels: attention torch; convolution torch", *said]


def loaded(model: Model) -> set[str]:
    """The roles whose networks are in memory."""
    return set(model._loader._networks)


@pytest.fixture
def large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The tiny model, whose flows count as large networks."""
    monkeypatch.setattr(loading, "SMALL", (folder / "ckpts" / "sparse_structure_decoder.safetensors").stat().st_size)
    return open_model(ModelChoice(model=str(folder)), "cpu")


def test_small_networks_stay_and_large_ones_are_given_back(large: Model) -> None:
    roles = [STRUCTURE_FLOW, STRUCTURE_DECODER]
    large.prepare(roles)
    assert loaded(large) == {STRUCTURE_DECODER}
    flow = weakref.ref(large.network(STRUCTURE_FLOW))
    assert flow() is large.network(STRUCTURE_FLOW)
    large.release(roles)
    assert loaded(large) == {STRUCTURE_DECODER}
    assert flow() is None


def test_a_worker_keeps_networks_where_there_is_room(large: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    roles = [STRUCTURE_FLOW, STRUCTURE_DECODER]
    size = sum(p.nbytes for role in roles for p in large.network(role).state_dict().values())
    large.release(roles)
    monkeypatch.setattr(loading, "device_memory", lambda _: 8 * size - 1)
    large.keep_if_room(roles, 1 / 2)
    large.prepare(roles)
    assert loaded(large) == {STRUCTURE_DECODER}
    monkeypatch.setattr(loading, "device_memory", lambda _: 8 * size)
    large.keep_if_room(roles, 1 / 2)
    large.prepare(roles)
    large.release(roles)
    assert loaded(large) == set(roles)


def test_faults_of_large_networks_are_found_before_any_computes(large: Model) -> None:
    weights = large.folder.files(STRUCTURE_FLOW).weights
    state = load_file(weights)
    del state["out_layer.bias"]
    save_file(state, weights)
    with pytest.raises(ModelError, match=r"lacks tensor 'out_layer\.bias'"):
        large.prepare([STRUCTURE_FLOW])


@pytest.mark.parametrize(
    ("holds", "sentence"),
    [
        (False, r"tensor 'pos_emb', which .*safetensors leaves to be computed, takes [\d,]+ GiB"),
        (True, r"tensor 'pos_emb' is \(8, 192\) of F\d\d, but SparseStructureFlow4DModel needs \(64000000000, 192\)"),
    ],
    ids=["left out", "of another shape"],
)
def test_a_grid_that_no_memory_holds_is_refused_before_its_positions_are_computed(
    folder: Path, holds: bool, sentence: str
) -> None:
    files = open_model(ModelChoice(model=str(folder)), "cpu").folder.files(STRUCTURE_FLOW)
    assert files.description is not None
    content = json.loads(files.description.read_text())
    content["args"]["resolution"] = 4000
    files.description.write_text(json.dumps(content))
    state = load_file(files.weights)
    del state["pos_emb"]
    save_file(state | ({"pos_emb": torch.zeros(8, 192)} if holds else {}), files.weights)
    with pytest.raises(ModelError, match=sentence):
        open_model(ModelChoice(model=str(folder)), "cpu").network(STRUCTURE_FLOW)


def test_little_memory_keeps_nothing_from_step_to_step(folder: Path) -> None:
    flows = [
        open_model(ModelChoice(model=str(folder), memory=memory), "cpu").network(LATENT_FLOW)
        for memory in ("default", "low")
    ]
    assert [flow.kept_bytes for flow in flows] == [KEPT_BYTES, 0]


def test_a_run_has_one_large_network_at_a_time(large: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    flows = {STRUCTURE_FLOW, LATENT_FLOW}
    network = Model.network

    def watched(model: Model, role: str) -> object:
        found = network(model, role)
        seen.append(loaded(model) & flows)
        return found

    monkeypatch.setattr(Model, "network", watched)
    steps = ("sparse_structure.sampler.steps=1", "slat.sampler.steps=1", "goals=[decoding]")
    options = RunOptions(
        source=save_frames(tmp_path / "disc", draw_frames(1)),
        out=tmp_path / "out",
        overrides=[f"model={large.folder.path}", *steps],
        device="cpu",
        engine="direct",
    )
    run_clip(options, LogReporter())
    assert {role for roles in seen for role in roles} == flows
    assert max(map(len, seen)) == 1


def test_what_draws_is_tried_only_where_something_is_drawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = kernel_choice.Kernel(make=lambda _: pytest.fail("a rasterizer was made"))
    monkeypatch.setattr(kernel_choice, "KERNELS", {**kernel_choice.KERNELS, "rasterizer": {"numba": broken}})
    options = RunOptions(
        source=save_frames(folder.parent / "disc", draw_frames(1)),
        out=folder.parent / "out",
        overrides=[f"model={folder}", "sparse_structure.sampler.steps=1", "goals=[sparse_structure]"],
        device="cpu",
        engine="direct",
    )
    record = json.loads((run_clip(options, LogReporter()) / "run.json").read_text())
    assert list(record["kernels"]) == ["attention", "convolution"]


def test_what_cannot_draw_is_refused_before_anything_computes(folder: Path) -> None:
    asked = ModelChoice(model=str(folder), kernels=KernelNames(rasterizer="gsplat"))
    with pytest.raises(ModelError, match=r"kernels\.rasterizer: gsplat is not for cpu"):
        open_model(asked, "cpu").prepare([], draws=True)


def test_a_kernel_that_is_asked_for_by_name(folder: Path) -> None:
    drawing = open_model(ModelChoice(model=str(folder), kernels=KernelNames(rasterizer="torch")), "cpu")
    drawing.prepare([], draws=True)
    assert drawing.kernels["rasterizer"] == {"kernel": "torch", "asked_for": True, "passed_over": {}}
    for_cards = open_model(ModelChoice(model=str(folder), kernels=KernelNames(attention="flash3")), "cpu")
    with pytest.raises(ModelError, match=r"kernels\.attention: flash3 is not for cpu; choose auto, torch"):
        for_cards.network(STRUCTURE_DECODER)
