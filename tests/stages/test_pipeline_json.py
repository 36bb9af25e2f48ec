"""What a model folder says of itself: samplers, normalization, and where the files of its networks are."""

import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from ss4d.stages import model_folder
from ss4d.stages.errors import ModelError
from ss4d.stages.model_folder import IMAGE_ENCODER, LocalFiles, ModelFolder, sha256_of
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.roles import LATENT_FLOW
from ss4d.stages.sampler_params import LatentNormalization, SamplerParams
from ss4d.stages.weights import check_role, describe, load_role
from tests.helpers.places import ROOT
from tests.helpers.small_folder import ENCODER, ROLE, edit_json

pytest_plugins = ["tests.helpers.small_folder"]

CPU = torch.device("cpu")


def test_pipeline_values_are_read(folder: Path) -> None:
    model = ModelFolder.open(folder)
    assert model.structure_sampler == SamplerParams(steps=25, cfg_strength=5.0, cfg_interval=(0.5, 1.0), rescale_t=3.0)
    assert model.slat_sampler.steps == 12
    assert model.slat_normalization == LatentNormalization(mean=(0, 1), std=(1, 2.5))
    assert describe(model.description(IMAGE_ENCODER)).args == ENCODER


def test_each_sampler_value_that_an_older_folder_lacks_has_its_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class LaterParams(SamplerParams):
        solver: str = "euler"

    monkeypatch.setattr(model_folder, "SamplerParams", LaterParams)
    given = {"steps": 25, "cfg_strength": 5.0, "cfg_interval": (0.5, 1.0), "rescale_t": 3.0}
    for values in ({}, {"temperature": None}, {"temperature": 0.3, "solver": None}):
        edit_json(folder / "pipeline.json", lambda d, v=values: d["args"]["slat_sampler"].update(params={**given, **v}))
        read = ModelFolder.open(folder).slat_sampler
        assert read == LaterParams(**given, temperature=values.get("temperature") or 1.0, solver="euler")


@pytest.mark.parametrize(
    ("name", "strength", "interval"),
    [
        ("FlowEulerSampler", 0, (0.5, 1)),
        ("FlowEulerCfgSampler", 5, (0, 1)),
        ("FlowEulerGuidanceIntervalSampler", 5, (0.5, 1)),
    ],
)
def test_a_samplers_name_says_where_it_guides(
    folder: Path, name: str, strength: float, interval: tuple[float, float]
) -> None:
    edit_json(folder / "pipeline.json", lambda d: d["args"]["slat_sampler"].update(name=name))
    params = ModelFolder.open(folder).slat_sampler
    assert (params.cfg_strength, params.cfg_interval) == (strength, interval)


def test_sampler_values_left_out_are_the_authors(folder: Path) -> None:
    edit_json(folder / "pipeline.json", lambda d: d["args"]["slat_sampler"].update(params={}))
    params = ModelFolder.open(folder).slat_sampler
    assert params == SamplerParams(steps=50, cfg_strength=3.0, cfg_interval=(0.0, 1.0), rescale_t=1.0, temperature=1.0)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda d: d["args"].pop("slat_sampler"), r"option args\.slat_sampler"),
        (lambda d: d["args"]["slat_sampler"]["params"].update(steps=0), r"option args\.slat_sampler\.params\.steps"),
        (lambda d: d["args"]["slat_sampler"]["params"].update(eta=1), r"option args\.slat_sampler\.params\.eta"),
        (lambda d: d["args"]["slat_sampler"].update(name="Ddim"), r"option args\.slat_sampler\.name"),
        (lambda d: d["args"]["slat_normalization"].update(std=[1.0, 0.0]), r"option args\.slat_normalization\.std\.1"),
        (lambda d: d["args"]["slat_normalization"].update(std=[1.0]), "equally long, got 2 and 1"),
    ],
)
def test_a_wrong_pipeline_option_is_named(folder: Path, edit: Any, expected: str) -> None:
    edit_json(folder / "pipeline.json", edit)
    with pytest.raises(ModelError, match=rf"pipeline\.json.*{expected}"):
        ModelFolder.open(folder)


@dataclass(frozen=True)
class Elsewhere:
    """A repository whose files all lie in one folder; it notes what it is asked for."""

    folder: Path
    asked: list[str] = field(default_factory=list)

    def find(self, name: str) -> Path | None:
        self.asked.append(name)
        file = self.folder / Path(name).name
        return file if file.exists() else None

    def sha256(self, name: str) -> bytes | None:
        file = self.find(name)
        return None if file is None else sha256_of(file)

    def address(self, name: str) -> str:
        return f"there:{name}"


@pytest.mark.parametrize("reference", ["../decoder", "/etc/decoder", "a/b/../../../c", "", "..\\decoder", "C:/x/y"])
def test_a_path_that_leaves_the_folder_is_refused(folder: Path, reference: str) -> None:
    edit_json(folder / "pipeline.json", lambda d: d["args"]["models"].update({ROLE: reference}))
    model = ModelFolder.read(LocalFiles(folder), lambda repository: pytest.fail(f"asked for {repository}"))
    for question in (model.files, model.fingerprint):
        with pytest.raises(ModelError, match="must stay inside the model folder"):
            question(ROLE)


def test_a_path_into_another_repository_is_asked_of_it(folder: Path, tmp_path: Path) -> None:
    before = ModelFolder.open(folder).fingerprint(ROLE)
    there = Elsewhere(tmp_path / "elsewhere")
    (folder / "ckpts").rename(there.folder)
    repositories = {"org/repo": there}
    edit_json(folder / "pipeline.json", lambda d: d["args"]["models"].update({ROLE: "org/repo/ckpts/decoder"}))
    model = ModelFolder.read(LocalFiles(folder), repositories.__getitem__)
    load_role(model, ROLE, TORCH_OPS, device=CPU)
    assert there.asked == ["ckpts/decoder.json", "ckpts/decoder.safetensors"]
    assert model.fingerprint(ROLE) == before
    with pytest.raises(ModelError, match=r"org/repo/ckpts/decoder\.json"):
        ModelFolder.open(folder).files(ROLE)
    (there.folder / "decoder.safetensors").unlink()
    with pytest.raises(ModelError, match=r"there:ckpts/decoder\.safetensors is missing"):
        model.files(ROLE)


def test_dinov2_by_name_comes_from_its_repository_and_never_from_a_pickle(folder: Path) -> None:
    edit_json(folder / "pipeline.json", lambda d: d["args"].update(image_cond_model="dinov2_vitl14_reg"))
    pickle = folder / "dinov2_vitl14_reg4_pretrain.pth"
    pickle.touch()

    class OnePickle(Elsewhere):
        def find(self, name: str) -> Path | None:
            assert name == "model.safetensors"
            return pickle

    repositories = {"facebook/dinov2-with-registers-large": OnePickle(folder)}
    model = ModelFolder.read(LocalFiles(folder), repositories.__getitem__)
    assert describe(model.description(IMAGE_ENCODER)).args.image_size == 518
    assert model.fingerprint(IMAGE_ENCODER) == hashlib.sha256(sha256_of(pickle)).hexdigest()
    with pytest.raises(ModelError, match=r"pretrain\.pth is a pickle.*model\.safetensors"):
        load_role(model, IMAGE_ENCODER, TORCH_OPS, device=CPU)


def test_a_fingerprint_follows_the_bytes_of_description_and_weights(folder: Path) -> None:
    def digest(file: str) -> bytes:
        return hashlib.sha256((folder / file).read_bytes()).digest()

    before = ModelFolder.open(folder).fingerprint(ROLE)
    parts = digest("ckpts/decoder.json") + digest("ckpts/decoder.safetensors")
    assert before == hashlib.sha256(parts).hexdigest()
    weights = folder / "ckpts/decoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert ModelFolder.open(folder).fingerprint(ROLE) != before


def test_an_unknown_role_is_named_with_those_there_are(folder: Path) -> None:
    with pytest.raises(ModelError, match=f"names no slat_decoder_mesh; it has {ROLE}, {IMAGE_ENCODER}"):
        ModelFolder.open(folder).files("slat_decoder_mesh")


def test_a_folders_notice_is_handed_on(folder: Path) -> None:
    assert ModelFolder.open(folder).notice is None
    (folder / "NOTICE.md").write_text("These weights are untrained.\n")
    assert ModelFolder.open(folder).notice == "These weights are untrained."
    (folder / "NOTICE.md").write_bytes("Kräfte".encode("latin-1"))
    assert ModelFolder.open(folder).notice == "Kr\ufffdfte"


def test_a_normalization_of_other_channels_than_the_latents_have_is_named(tmp_path: Path) -> None:
    tiny = ROOT / "configs" / "models" / "tiny"
    copy = Path(shutil.copytree(tiny, tmp_path / "tiny"))
    channels = len(ModelFolder.open(tiny).slat_normalization.mean)

    def check(count: int) -> None:
        numbers = {"mean": [0.0] * count, "std": [1.0] * count}
        edit_json(copy / "pipeline.json", lambda d: d["args"].update(slat_normalization=numbers))
        check_role(ModelFolder.open(copy), LATENT_FLOW, "float32")

    for fitting in (channels, 1):  # one number is that of every channel
        check(fitting)
    with pytest.raises(ModelError, match=r"pipeline\.json: option args\.slat_normalization has \d+ means, .* channels"):
        check(channels - 1)
