"""The baselines, the cameras that measures look through, and whole evaluations of a small model."""

import json
import logging
import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from typer.testing import CliRunner

from ss4d.cli.main import app
from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.hub import model_path
from ss4d.pipelines.networks import ModelChoice, open_model
from ss4d.pipelines.training import answers
from ss4d.pipelines.training import evaluate as evaluation
from ss4d.pipelines.training.evaluate import EvaluationOptions, ProceduralClips, ScoreFile, evaluate
from ss4d.pipelines.training.evaluation_report import Score, margins, summary, write_sheet
from ss4d.pipelines.training.make_records import Sizes, make_records
from ss4d.pipelines.training.records import open_records
from ss4d.stages.data.clip import HELD_OUT_SEED, SOURCE_SIZE, ClipSpec, TrainingClip, make_clip
from ss4d.stages.errors import InputError
from ss4d.stages.evaluation.baselines import mean_shape, mean_shape_answer, occupied_by, truth_answer
from ss4d.stages.evaluation.metrics import occupancy_iou, psnr
from ss4d.stages.evaluation.views import input_camera, input_clip, over_white
from ss4d.stages.fitting.config import AppearanceFitConfig, StructureFitConfig
from ss4d.stages.nn.checkpoint import save_network
from ss4d.stages.nn.latent_encoder import SLatEncoder, SLatEncoderArgs
from ss4d.stages.nn.occupancy import SparseStructureEncoder, SparseStructureEncoderArgs
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.ops.rasterize import rasterize
from ss4d.stages.training.recipe import MICRO, RECIPES
from ss4d.stages.training.tiny import PUBLISHED
from ss4d.stages.types import Axes, Camera, silent
from tests.helpers.untrained import write_model

SEED = HELD_OUT_SEED
SMALL = Sizes(frames=2, size=24, views=2, resolution=8)


@pytest.fixture(scope="module")
def fine() -> TrainingClip:
    """One frame on a grid so fine that its voxels look like the object."""
    return make_clip(ClipSpec(seed=SEED + 2, num_frames=1, num_views=2, view_size=64, input_size=64, resolution=128))


@pytest.fixture(scope="module")
def model(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder to add to, that samples in one step."""
    return in_one_step(model_folder, tmp_path_factory.mktemp("evaluated") / "model")


def in_one_step(model: Path, folder: Path) -> Path:
    """A copy of a model that samples in one step."""
    shutil.copytree(model, folder)
    pipeline = json.loads((folder / "pipeline.json").read_text())
    for stage in ("sparse_structure_sampler", "slat_sampler"):
        pipeline["args"][stage]["params"]["steps"] = 1
    (folder / "pipeline.json").write_text(json.dumps(pipeline))
    return folder


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    arguments = {"families": (), "workers": 1, "progress": silent}
    make_records(folder, num_clips=3, seed=SEED, sizes=SMALL, **arguments)  # type: ignore[arg-type] # of mixed types
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean shape of few clips."""
    monkeypatch.setattr(evaluation, "MEAN_CLIPS", 2)


def enlarged(camera: Camera, factor: int) -> Camera:
    return replace(camera, focal=camera.focal * factor, width=camera.width * factor, height=camera.height * factor)


def seen(clip: TrainingClip, camera: Camera) -> torch.Tensor:
    """RGB over white and alpha (h, w, 4) of the true voxels, without what splatting adds to outlines."""
    rgb, alpha = rasterize(truth_answer(clip).gaussians, enlarged(camera, 4), background=(1.0, 1.0, 1.0))
    layers = torch.cat((rgb, alpha[..., None]), dim=-1).permute(2, 0, 1)
    return functional.avg_pool2d(layers, 4).permute(1, 2, 0)


def test_true_voxels_look_like_the_truth(fine: TrainingClip) -> None:
    for view in range(2):
        picture = seen(fine, fine.view_camera(view))[..., :3]
        assert psnr(picture, over_white(fine.views[view, 0])) > 27
        assert psnr(picture.roll(1, 0), over_white(fine.views[view, 0])) < 24  # a pixel's shift would be noticed


def test_input_camera_sees_the_crop(fine: TrainingClip) -> None:
    alpha = seen(fine, input_camera(fine, SOURCE_SIZE))[..., 3]
    truth = fine.frames[0, ..., 3] / 255
    error = (alpha - truth).abs().mean()
    assert error < 0.02
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        assert (alpha.roll(shift, axis) - truth).abs().mean() > error


def test_input_clip_is_premultiplied() -> None:
    clip = make_clip(ClipSpec(seed=SEED, num_frames=1, num_views=1, view_size=16, input_size=32))
    given = input_clip(clip)
    assert (given.rgb[given.alpha == 0] == 0).all()
    assert (given.rgb <= given.alpha[..., None]).all()
    opaque = given.alpha == 255
    torch.testing.assert_close(given.rgb[opaque], clip.frames[opaque][:, :3])


def test_cells_of_gaussians_are_the_voxels_they_came_from() -> None:
    clip = make_clip(ClipSpec(seed=SEED + 1, num_frames=2, num_views=1, view_size=16, resolution=16))
    answer = truth_answer(clip)
    iou = occupancy_iou(occupied_by(answer.gaussians, 16), clip.coords, 2, 16)
    assert (iou > 0.98).all()  # an offset of half a cell may round into the next
    faint = replace(answer.gaussians, opacities=torch.full_like(answer.gaussians.opacities, 0.05))
    assert len(occupied_by(faint, 16)) == 0


def test_mean_shape_has_the_mean_number_of_cells_where_most_are() -> None:
    shape = mean_shape(8, 3)
    clips = [make_clip(ClipSpec(seed=s, num_views=1, view_size=8, input_size=8, resolution=8)) for s in range(3)]
    counts = torch.zeros(8, 8, 8)
    for clip in clips:
        for _, _, x, y, z in clip.coords.tolist():
            counts[x, y, z] += 1
    assert len(shape.cells) == round(float(counts.sum()) / 48)
    chosen = torch.zeros(8, 8, 8, dtype=torch.bool)
    chosen[tuple(shape.cells.long().T)] = True
    assert counts[chosen].min() >= counts[~chosen].max()
    answer = mean_shape_answer(shape, 3)
    assert answer.gaussians.offsets.tolist() == [k * len(shape.cells) for k in range(4)]
    assert ((shape.colors >= 0) & (shape.colors <= 1)).all()


def test_held_out_clips_have_seeds_nothing_trains_on() -> None:
    clips = ProceduralClips(HELD_OUT_SEED, 3, 8)
    assert clips.ids == [f"seed {2**31 + k}" for k in range(3)]
    assert clips.read_or_skip(1).seed == HELD_OUT_SEED + 1


def report_of(path: Path) -> dict:
    return json.loads((path.parent / "report.json").read_text())


def table_of(report: Path) -> str:
    """The tables of a report, without the words between them."""
    return "\n".join(line for line in report.read_text().splitlines() if line.startswith("|"))


@pytest.mark.usefixtures("quick")
def test_evaluation_goes_on_where_it_stopped(
    model: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    score_clip = evaluation.score_clip
    monkeypatch.setattr(
        evaluation, "score_clip", lambda clip, *rest: measured.append(clip.seed) or score_clip(clip, *rest)
    )
    options = EvaluationOptions(model=str(model), data=records, out=tmp_path, clips=2, device="cpu")
    first = report_of(evaluate(options))
    assert set(first["methods"]) == {"true voxels", "model", "inflation", "mean shape"}
    assert "no encoders" in (tmp_path / "report.md").read_text()
    assert "±" in table_of(tmp_path / "report.md")
    assert first["methods"]["true voxels"]["iou"]["mean"] == 1
    assert first["methods"]["mean shape"]["flicker"]["mean"] == pytest.approx(-1)
    assert (tmp_path / "clip001.png").stat().st_size > 0

    (scores,) = tmp_path.glob("scores-*.jsonl")
    with scores.open("a") as file:
        file.write('{"clip": "cut off')
    again = report_of(evaluate(replace(options, clips=3)))
    assert len(measured) == 3  # two at first, then the one that was new
    assert again["clips"][:2] == first["clips"]
    assert len(ScoreFile(scores, first["methods"]).read()) == 3


@pytest.mark.usefixtures("quick")
def test_fitted_answers_are_measured_beside_the_others(
    model: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "StructureFitConfig", partial(StructureFitConfig, steps=1))
    monkeypatch.setattr(answers, "AppearanceFitConfig", partial(AppearanceFitConfig, steps=1, size=16))
    options = EvaluationOptions(model=str(model), data=records, out=tmp_path, clips=1, device="cpu", fit=True)
    methods = report_of(evaluate(options))["methods"]
    assert {*answers.FITS, "inflation, fitted"} < set(methods)
    assert all(methods[name]["psnr"]["mean"] > 0 for name in methods)
    told = {name for name, measures in methods.items() if measures["found_psnr"] is not None}
    found = {name for name, fit in {**answers.FITS, "model": answers.NO_FIT}.items() if not fit.true_camera}
    assert told == {*found, "inflation, fitted"}, "others have no camera but the true one"
    margins = report_of(tmp_path / "report.md")["margins"]
    rivals = methods["model, both fitted"], methods["inflation, fitted"]
    assert margins["inflation, fitted"]["psnr"]["mean"] == pytest.approx(
        rivals[0]["psnr"]["mean"] - rivals[1]["psnr"]["mean"]
    )


def test_what_answers_have_in_common_is_computed_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "StructureFitConfig", partial(StructureFitConfig, steps=1))
    monkeypatch.setattr(answers, "AppearanceFitConfig", partial(AppearanceFitConfig, steps=1, size=16))
    counts: Counter[str] = Counter()

    def counted(name: str) -> None:
        function = getattr(answers, name)
        monkeypatch.setattr(answers, name, lambda *given: counts.update([name]) or function(*given))

    for name in ("encode_images", "sample_structure", "find_camera", "fit_structure", "fit_outline"):
        counted(name)
    opened = open_model(ModelChoice(model=str(model)), "cpu")
    clip = make_clip(ClipSpec(seed=SEED, num_frames=2, num_views=2, view_size=16, input_size=32, resolution=8))
    both = answers.FITS["model, both fitted"]
    of_clip = answers.ClipAnswers(clip, opened)
    for fit in (answers.NO_FIT, both, replace(both, appearance=False), replace(both, true_camera=True)):
        of_clip.answer(fit)
    assert counts == dict.fromkeys(counts, 1)
    assert len(counts) == 5


@pytest.mark.parametrize("axes", ["world", "camera", "crop"])
def test_an_inflated_silhouette_is_as_large_as_objects_in_the_grid(axes: Axes) -> None:
    spec = ClipSpec(seed=SEED + 3, num_frames=1, num_views=1, view_size=16, input_size=64, resolution=32, axes=axes)
    clip = make_clip(spec)
    means = answers.inflated(clip, 32).gaussians.means
    width, height = (means.amax(0) - means.amin(0))[[0, 2]].tolist()
    assert max(width, height) == pytest.approx(1 / 1.2 if axes == "crop" else 1.0, abs=0.04)
    if axes == "crop":
        cells = (clip.coords[:, 2:].amax(0) - clip.coords[:, 2:].amin(0) + 1)[[0, 2]].tolist()
        assert [width, height] == pytest.approx([count / 32 for count in cells], abs=0.08)


def test_measured_frames_and_views_are_the_first_and_evenly_chosen() -> None:
    clip = make_clip(ClipSpec(seed=SEED, num_frames=4, num_views=6, view_size=16, input_size=16, resolution=8))
    few = EvaluationOptions(model="", out=Path(), frames=3, views=2).of(clip)
    assert torch.equal(few.views, clip.views[[0, 3], :3])
    assert torch.equal(few.frames, clip.frames[:3])
    assert few.view_camera(1) == clip.view_camera(3)
    many = EvaluationOptions(model="", out=Path(), frames=30, views=20).of(clip)
    assert torch.equal(many.views, clip.views)


@pytest.mark.usefixtures("quick")
def test_damaged_files_of_an_evaluation_are_named_and_made_anew(
    model: Path, records: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = EvaluationOptions(model=str(model), data=records, out=tmp_path, clips=1, device="cpu")
    first = report_of(evaluate(options))
    (scores,), (shape,) = tmp_path.glob("scores-*.jsonl"), tmp_path.glob("mean_shape_*.safetensors")
    line, whole = scores.read_bytes(), shape.read_bytes()
    assert line.count(b"\n") == 1
    lines = (line[40:], b"\n", b"\xff\n", b"null\n", b"{}\n", line.replace(b"psnr", b"qsnr"))
    strange = (line.replace(b'"family": "', b'"family": 1, "x": "'), line.replace(b"inflation", b"inflatiom"))
    shapes = (whole[:50], b"", whole.replace(b"colors", b"color"), whole[:-1] + bytes([whole[-1] ^ 1]))
    for number, damaged in enumerate((*lines, *strange)):
        caplog.clear()
        scores.write_bytes(damaged)
        shape.write_bytes(shapes[number % len(shapes)])
        with caplog.at_level(logging.WARNING, "ss4d.evaluation"):
            assert report_of(evaluate(options)) == first
        assert f"{scores}, line 1, is damaged" in caplog.text
        assert f"{shape} is damaged and is made again" in caplog.text
        assert shape.read_bytes() == whole
        assert scores.read_bytes() == damaged + line


@pytest.mark.usefixtures("quick")
def test_encoders_beside_the_model_are_measured(model: Path, records: Path, tmp_path: Path) -> None:
    complete = tmp_path / "model"
    shutil.copytree(model, complete)
    channels = PUBLISHED["sparse_structure_decoder"][1]["latent_channels"]
    structure = SparseStructureEncoderArgs(in_channels=1, latent_channels=channels, num_res_blocks=1, channels=(8, 16))
    options = {"resolution": 8, "model_channels": 24, "latent_channels": 8, "num_blocks": 1, "num_heads": 2}
    attention = {"attn_mode": "swin", "window_size": 4, "pe_mode": "rope_t", "expand_self_attn": True}
    looks = SLatEncoderArgs(in_channels=9, mlp_ratio=2, **options, **attention)
    for name, args, network in (
        ("SparseStructureEncoder", structure, SparseStructureEncoder(structure)),
        ("SLatEncoder", looks, SLatEncoder(looks, TORCH_OPS)),
    ):
        role = "slat_encoder" if name == "SLatEncoder" else "sparse_structure_encoder"
        save_network(complete / "training" / role, name, args, network)
    report = evaluate(EvaluationOptions(model=str(complete), data=records, out=tmp_path / "out", clips=1, device="cpu"))
    scores = report_of(report)["methods"]["autoencoders"]
    assert 0 <= scores["iou"]["mean"] < 1
    assert scores["psnr"]["mean"] > 0


@pytest.mark.usefixtures("quick")
def test_damaged_record_is_named_and_left_out(model: Path, records: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "records"
    shutil.copytree(records, damaged)
    broken = open_records(damaged).rows[0]
    for file in (damaged / "store").rglob("*"):
        if broken.key is not None and broken.key in str(file) and file.is_file():
            file.unlink()
    report = evaluate(EvaluationOptions(model=str(model), data=damaged, out=tmp_path / "out", clips=2))
    assert list(report_of(report)["skipped"]) == [broken.id]
    assert broken.id in report.read_text()
    assert "--remove" in report.read_text()
    assert "--force" not in report.read_text(), "that is for results of runs"
    assert len(report_of(report)["clips"]) == 1
    assert "±" not in table_of(report), "the standard error of one clip is not known"
    assert report_of(report)["methods"]["model"]["psnr"]["error"] is None


def test_model_of_another_grid_is_refused(records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wider = {role: {**args, "resolution": 16} for role, args in MICRO.items() if role.startswith("slat_")}
    write_model(tmp_path / "model", seed=0, changes={**MICRO, **wider})

    def computed(*_: object) -> NoReturn:
        raise AssertionError("the mean shape takes long, and is not needed")

    monkeypatch.setattr(evaluation, "mean_shape", computed)
    with pytest.raises(InputError, match="grid of 8 cells, but the model's is 16; make the clips with --resolution 16"):
        evaluate(EvaluationOptions(model=str(tmp_path / "model"), data=records, out=tmp_path / "out", clips=1))


@pytest.mark.usefixtures("quick")
def test_model_of_other_axes_is_refused(model: Path, tmp_path: Path) -> None:
    sizes = replace(SMALL, frames=1, axes="yaw")
    make_records(tmp_path / "yaw", num_clips=1, seed=SEED, sizes=sizes, families=(), workers=1, progress=silent)
    with pytest.raises(InputError, match="are the yaw's, but the model's are the camera's"):
        evaluate(EvaluationOptions(model=str(model), data=tmp_path / "yaw", out=tmp_path / "out", clips=1))


@pytest.mark.usefixtures("quick")
def test_clips_made_without_a_resolution_have_the_grid_of_the_bundled_model(tmp_path: Path) -> None:
    def ss4d(*words: object) -> str:
        done = CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return done.output

    sizes = ("--frames", 2, "--size", 24, "--views", 1)
    ss4d("data", "make", tmp_path / "heldout", "--clips", 1, "--seed", SEED, *sizes, "--workers", 1)
    words = ("--clips", 1, "--out", tmp_path / "out", "--device", "cpu")
    model = in_one_step(model_path("bundled:tiny"), tmp_path / "model")
    assert "on 1 held-out clip" in ss4d("eval", model, "--data", tmp_path / "heldout", *words)
    assert RECIPES["tiny"].networks["slat_decoder_gs"][1]["resolution"] == Sizes().resolution


@pytest.mark.parametrize("changes", [{"clips": 0}, {"seed": -1}, {"seed": 2**31}, {"frames": 0}, {"views": -1}])
def test_impossible_numbers_are_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(changes))}"):
        evaluate(EvaluationOptions(**({"model": "bundled:tiny", "out": tmp_path} | changes)))


def test_margins_pair_clips() -> None:
    def score(clip: str, model: float, baseline: float) -> Score:
        measures = dict.fromkeys(("ssim", "iou", "input_psnr", "found_psnr", "flicker", "motion_error"))
        methods = {"model": model, "inflation": baseline, "mean shape": 10.0}
        return Score(clip, "fish", {name: {"psnr": value, **measures} for name, value in methods.items()})

    scores = [score("a", 20.0, 15.0), score("b", 30.0, 24.0)]
    assert margins(scores)["inflation"]["psnr"] == pytest.approx({"mean": 5.5, "error": 0.5})
    assert margins(scores)["mean shape"]["psnr"] == pytest.approx({"mean": 15, "error": 5})
    assert summary(scores)["model"]["ssim"] is None


def test_names_in_a_sheet_are_not_cut_off(tmp_path: Path) -> None:
    rows = {name: torch.full((2, 16, 16, 3), 0.5) for name in ("a", "a method with a name that takes a while to read")}
    write_sheet(tmp_path / "sheet.png", rows)
    picture = np.asarray(Image.open(tmp_path / "sheet.png").convert("L"))
    labels = picture[:, : -2 * 16]
    assert (picture[:, -2 * 16 :] == 128).all()
    assert (labels[16:] < 100).sum() > 100
    assert (labels[:, -4:] == 255).all()
