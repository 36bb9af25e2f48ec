"""Measures a model on clips it was not trained on, beside baselines without learning, clip by clip and resumable."""

import hashlib
import json
import logging
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.networks import Model, ModelChoice, open_model
from ss4d.pipelines.training.answers import (
    FIT_CONFIGS,
    FITS,
    NO_FIT,
    SAMPLING_SEED,
    ClipAnswers,
    Fit,
    autoencoded,
    fitted_inflation,
    inflated,
)
from ss4d.pipelines.training.evaluation_report import Score, read_score, write_report, write_sheet
from ss4d.pipelines.training.records import open_records
from ss4d.stages.data.clip import HELD_OUT_SEED, REVISION, SOURCE_SIZE, ClipSpec, TrainingClip, make_clip
from ss4d.stages.errors import InputError
from ss4d.stages.evaluation.baselines import (
    MEAN_CLIPS,
    Answer,
    MeanShape,
    mean_shape,
    mean_shape_answer,
    truth_answer,
)
from ss4d.stages.evaluation.metrics import flicker, motion_error, occupancy_iou, psnr, ssim
from ss4d.stages.evaluation.views import input_camera, over_white, pictures
from ss4d.stages.fitting.pictures import resized
from ss4d.stages.inflation_config import InflationConfig
from ss4d.stages.ops.device import resolve_device
from ss4d.stages.ops.rasterize import Rasterize
from ss4d.stages.roles import (
    GAUSSIAN_DECODER,
    IMAGE_ENCODER,
    LATENT_ENCODER,
    LATENT_FLOW,
    STRUCTURE_DECODER,
    STRUCTURE_ENCODER,
    STRUCTURE_FLOW,
)
from ss4d.stages.training.clips import cut
from ss4d.stages.types import Axes, Progress, silent
from ss4d.stages.weights import load_role
from ss4d.storage.files import write_bytes

METHOD_REVISION = 15  # rises whenever the same clips and weights would get other scores
ROLES = (IMAGE_ENCODER, STRUCTURE_FLOW, STRUCTURE_DECODER, LATENT_FLOW, GAUSSIAN_DECODER)
ENCODERS = {role: f"training/{role}" for role in (STRUCTURE_ENCODER, LATENT_ENCODER)}
NUM_SHEETS = 12  # contact sheets: of the first clips
# The file of the mean shape: what each array holds in each row.
MEAN_SHAPE_ARRAYS = {"cells": (torch.int32, (3,)), "colors": (torch.float32, (3,)), "crc32": (torch.int64, ())}
LOG = logging.getLogger("ss4d.evaluation")

Method = Callable[[TrainingClip], Answer]


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What a user asks for.

    Attributes:
        model: bundled:NAME, hub:ORG/NAME, or a model folder.
        data: a folder of records; None makes procedural clips.
        clips: how many at most.
        seed: shifts which procedural clips are made.
        out: where the report goes.
        device: "auto", "cpu" or "cuda".
        fit: whether answers that are fitted to the input view are measured, too.
        frames: of each clip, its first, at most; None takes all.
        views: of each clip besides the input's, evenly chosen, at most; None takes all.
    """

    model: str
    out: Path
    data: Path | None = None
    clips: int = 64
    seed: int = 0
    device: str = "auto"
    fit: bool = False
    frames: int | None = None
    views: int | None = None

    def of(self, clip: TrainingClip) -> TrainingClip:
        """The frames and views of a clip that are measured."""
        if self.frames is not None:
            clip = cut(clip, 0, min(self.frames, clip.num_frames))
        if self.views is None or self.views >= len(clip.views):
            return clip
        chosen = torch.arange(self.views) * len(clip.views) // self.views
        arrays = {name: getattr(clip, name)[chosen] for name in ("views", "view_cameras", "view_focals")}
        return replace(clip, **arrays)


class Clips(Protocol):
    """Clips to measure on, made or read when asked for."""

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def skipped(self) -> Mapping[str, str]:
        """Why each clip that was skipped so far cannot be used, by its id."""

    def read_or_skip(self, index: int) -> TrainingClip | None:
        """The clip at `index`; None where it cannot be used."""


@dataclass(frozen=True)
class ProceduralClips:
    """Clips with seeds that nothing trains on, from `HELD_OUT_SEED` on."""

    first: int
    count: int
    resolution: int
    axes: Axes = "world"
    skipped: Mapping[str, str] = field(default_factory=dict, init=False)  # stays empty: each can be made

    @property
    def ids(self) -> Sequence[str]:
        return [f"seed {self.first + index}" for index in range(self.count)]

    def read_or_skip(self, index: int) -> TrainingClip:
        return make_clip(ClipSpec(seed=self.first + index, resolution=self.resolution, axes=self.axes))


def evaluate(options: EvaluationOptions, progress: Progress = silent) -> Path:
    """Scores every clip that has no score yet, then writes the report; gives its path, DIR/report.md.

    Raises:
        ConfigError, InputError, ModelError, StoreError: one sentence each, see `ss4d.pipelines.errors`.
        OSError: the folder cannot be written.
    """
    if options.clips < 1 or not 0 <= options.seed < HELD_OUT_SEED:
        raise ConfigError(
            f"--clips must be at least 1 and --seed from 0 to {HELD_OUT_SEED - 1}; got {options.clips}, {options.seed}"
        )
    for name, number in (("--frames", options.frames), ("--views", options.views)):
        if number is not None and number < 1:
            raise ConfigError(f"{name} must be at least 1; got {number}")
    model = open_model(ModelChoice(model=options.model), resolve_device(options.device))
    resolution, axes = model.network(GAUSSIAN_DECODER).args.resolution, model.network(IMAGE_ENCODER).axes
    clips = _clips(options, resolution, axes)
    options.out.mkdir(parents=True, exist_ok=True)
    encoders = _encoders(model)
    settings = _settings(options, model, encoders)
    methods = _methods(model, encoders, _cached_mean_shape(options.out, resolution, axes), fit=options.fit)
    scores = ScoreFile(options.out / f"scores-{_digest(settings)}.jsonl", methods)
    ids = clips.ids[: options.clips]
    done = scores.read()
    for index, name in enumerate(ids):
        progress(index, len(ids))
        if name in done:
            continue
        clip = clips.read_or_skip(index)
        if clip is None:
            continue
        if clip.axes != axes:
            raise InputError(
                f"the axes of the grid of {name} are the {clip.axes}'s, but the model's are the {axes}'s; make the "
                f"clips with --axes {axes}"
            )
        sheet = options.out / f"clip{index:03d}.png" if index < NUM_SHEETS else None
        done[name] = Score(name, clip.family, score_clip(options.of(clip), methods, model, sheet))
        scores.append(done[name])
    progress(len(ids), len(ids))
    counted = [done[name] for name in ids if name in done]
    if not counted:
        raise InputError(f"none of {len(ids)} clips could be read, so there is nothing to report")
    return write_report(options.out, counted, settings, clips.skipped)


def score_clip(
    clip: TrainingClip, methods: Mapping[str, Method], model: Model, sheet: Path | None
) -> dict[str, dict[str, float | None]]:
    """The measures of every method on one clip; draws a contact sheet if told where."""
    render = model.rasterize
    truth, seen = over_white(clip.views), over_white(clip.frames)
    scores, drawn = {}, {}
    for name, method in methods.items():
        answer = method(clip)
        cameras = [clip.view_camera(view) for view in range(len(clip.views))]
        images = torch.stack([pictures(answer.gaussians, camera, render) for camera in cameras])
        from_input = pictures(answer.gaussians, input_camera(clip, SOURCE_SIZE), render)
        iou = occupancy_iou(answer.cells, clip.coords, clip.num_frames, clip.resolution)
        scores[name] = {
            "iou": float(iou.mean()),
            "psnr": float(psnr(images, truth).mean()),
            "ssim": float(ssim(images, truth).mean()),
            "input_psnr": float(psnr(from_input, seen).mean()),
            "found_psnr": None if answer.camera is None else _psnr_from(answer, seen, render),
            "flicker": flicker(images, truth),
            "motion_error": motion_error(images, truth),
        }
        drawn[name] = images[clip.seed % len(images)]
    if sheet is not None:
        write_sheet(sheet, {"input": seen, "truth": truth[clip.seed % len(truth)], **drawn})
    return scores


def _psnr_from(answer: Answer, seen: Tensor, render: Rasterize) -> float:
    """How like the input view (t, s, s, 3) the answer is from the camera that it says, dB."""
    assert answer.camera is not None
    camera = resized(answer.camera, seen.shape[1])
    return float(psnr(pictures(answer.gaussians, camera, render), seen).mean())


class ScoreFile:
    """Scores in a file that is only appended to, one line of JSON per clip; a line cut off by a crash does not count.

    Attributes:
        path: the file.
        methods: those that every clip has scores of.
    """

    def __init__(self, path: Path, methods: Iterable[str]) -> None:
        self.path, self.methods = path, frozenset(methods)

    def read(self) -> dict[str, Score]:
        """The scores so far, by clip; truncates an unfinished last line, and leaves out damaged ones."""
        if not self.path.exists():
            return {}
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        scores = {}
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            score = read_score(line)
            if score is None or score.methods.keys() != self.methods:
                LOG.warning("%s, line %d, is damaged: what it held is measured again; delete it", self.path, number)
            else:
                scores[score.clip] = score
        return scores

    def append(self, score: Score) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"clip": score.clip, "family": score.family, "methods": score.methods}) + "\n")


def _clips(options: EvaluationOptions, resolution: int, axes: Axes) -> Clips:
    """The clips to measure on.

    Raises:
        StoreError, ConfigError: there are none, see `open_records`.
        InputError: their grid has not the model's resolution.
    """
    if options.data is not None:
        records = open_records(options.data, "held_out")
        for row in records.rows[: options.clips]:
            if row.resolution != resolution:
                raise InputError(
                    f"{row.id} has voxels on a grid of {row.resolution} cells, but the model's is {resolution}; make "
                    f"the clips with --resolution {resolution}"
                )
        return records
    return ProceduralClips(HELD_OUT_SEED + options.seed, options.clips, resolution, axes)


def _encoders(model: Model) -> dict[str, Any] | None:
    """The encoders that training left beside the model, or None without them; a model is published without."""
    if not any((model.folder.path / f"{path}.json").is_file() for path in ENCODERS.values()):
        return None
    device = model.network(STRUCTURE_DECODER).out_layer[-1].weight.device
    folder = replace(model.folder, references={**model.folder.references, **ENCODERS})
    return {role: load_role(folder, role, model.ops, device=device) for role in ENCODERS}


def _settings(options: EvaluationOptions, model: Model, encoders: Mapping[str, Any] | None) -> dict[str, Any]:
    """Everything that decides a score, and so which scores may stand in one report."""
    folder = replace(model.folder, references={**model.folder.references, **ENCODERS})
    roles = [role for role in model.folder.references if role in ROLES]
    samplers = (model.folder.structure_sampler, model.folder.slat_sampler)
    return {
        "revision": METHOD_REVISION,
        "clips_revision": REVISION,
        "model": {
            **{role: model.fingerprint(role) for role in roles},
            **({role: folder.fingerprint(role) for role in ENCODERS} if encoders else {}),
        },
        "samplers": [repr(sampler) for sampler in samplers],
        "sampling_seed": SAMPLING_SEED,
        "data": None if options.data is None else str(options.data.absolute()),
        "mean_clips": MEAN_CLIPS,
        "inflation": InflationConfig().model_dump(),
        "frames": options.frames,
        "views": options.views,
        **({"fits": [config().model_dump() for config in FIT_CONFIGS]} if options.fit else {}),
    }


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _cached_mean_shape(out: Path, resolution: int, axes: Axes) -> MeanShape:
    """The mean training shape, computed once for a folder of reports, and again if its file is damaged."""
    path = out / f"mean_shape_{resolution}_{axes}_{MEAN_CLIPS}_{REVISION}.safetensors"
    if path.exists():
        shape = _read_mean_shape(path, resolution)
        if shape is not None:
            return shape
        LOG.warning("%s is damaged and is made again", path)
    LOG.info("computing the mean shape of %d training clips", MEAN_CLIPS)
    shape = mean_shape(resolution, MEAN_CLIPS, axes=axes)
    write_bytes(path, save({"cells": shape.cells, "colors": shape.colors, "crc32": _checksum(shape)}))
    return shape


def _read_mean_shape(path: Path, resolution: int) -> MeanShape | None:
    """The mean shape in a file; None where it holds none on this grid."""
    try:
        tensors = load(path.read_bytes())
    except SafetensorError:
        return None
    if {name: (x.dtype, x.shape[1:]) for name, x in tensors.items()} != MEAN_SHAPE_ARRAYS:
        return None
    shape = MeanShape(tensors["cells"], tensors["colors"], resolution)
    return shape if torch.equal(tensors["crc32"], _checksum(shape)) else None


def _checksum(shape: MeanShape) -> Tensor:
    return torch.tensor([zlib.crc32(shape.cells.numpy().tobytes() + shape.colors.numpy().tobytes())])


def _methods(
    model: Model, encoders: Mapping[str, Any] | None, shape: MeanShape, *, fit: bool = False
) -> dict[str, Method]:
    """What is measured, by name, best expected first."""
    resolution = shape.resolution

    @lru_cache(maxsize=1)
    def answers(clip: TrainingClip) -> ClipAnswers:
        return ClipAnswers(clip, model)

    def answered(fit: Fit) -> Method:
        return lambda clip: answers(clip).answer(fit)

    trained: dict[str, Method] = {"model": answered(NO_FIT)}
    if encoders is not None:
        trained = {"autoencoders": lambda clip: autoencoded(clip, model, encoders), **trained}
    fitted: dict[str, Method] = {}
    if fit:
        trained |= {name: answered(stages) for name, stages in FITS.items()}
        fitted = {"inflation, fitted": lambda clip: fitted_inflation(clip, model, resolution)}
    return {
        "true voxels": truth_answer,
        **trained,
        "inflation": lambda clip: inflated(clip, resolution),
        **fitted,
        "mean shape": lambda clip: mean_shape_answer(shape, clip.num_frames),
    }
