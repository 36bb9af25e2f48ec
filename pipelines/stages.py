"""The stages of video-to-4D as one table: what each takes, gives and depends on, and the function that does it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from pipelines.config import RunConfig
from pipelines.networks import Model
from stages.conditioning import encode_images
from stages.decoding import DecodingConfig, decode_gaussians
from stages.export.asset import export_asset
from stages.inflation import InflationConfig, inflate
from stages.segmentation.segment import segment
from stages.slat import sample_latents
from stages.sparse_structure import sample_structure
from stages.types import (
    Clip,
    GaussianClip,
    Progress,
    StructuredLatents,
    Tokens,
    Value,
    Voxels,
)
from stages.video_io import read_video

V = TypeVar("V", bound=Value)


@dataclass(frozen=True)
class Work:
    """What a stage's function is given: its configuration, its inputs by stage name, and access to networks."""

    config: RunConfig
    source: Path
    inputs: Mapping[str, Value]
    model: Model
    seed: int
    folder: Path  # for a stage that makes files
    progress: Progress

    def input(self, stage: str, kind: type[V]) -> V:
        """The value the named stage gave."""
        value = self.inputs[stage]
        assert isinstance(value, kind)
        return value

    def generator(self) -> torch.Generator:
        """A CPU generator, so that a seed means the same on every device (specification, section 4)."""
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One way to do one stage; `revision` rises whenever the same recipe would give another result."""

    name: str
    implementation: str
    revision: int = 1
    sections: tuple[str, ...]  # configuration sections that decide its result
    inputs: tuple[str, ...] = ()  # stages whose values it takes
    output: type[Value] | None = None  # None: files
    roles: tuple[str, ...] = ()  # networks it runs, as the model folder names them
    seeded: bool = False
    run: Callable[[Work], Any]


def _segmentation(work: Work) -> Clip:
    video = read_video(work.source, work.config.input)
    return segment(work.config.segmentation, video, progress=work.progress)


def _conditioning(work: Work) -> Tokens:
    encoder = work.model.network("image_cond_model")
    clip = work.input("segmentation", Clip)
    return encode_images(work.config.conditioning, encoder, clip, progress=work.progress)


def _sparse_structure(work: Work) -> Voxels:
    flow = work.model.network("sparse_structure_flow_model")
    decoder = work.model.network("sparse_structure_decoder")
    tokens = work.input("conditioning", Tokens)
    config = work.config.sparse_structure
    return sample_structure(config, flow, decoder, tokens, work.generator(), progress=work.progress)


def _slat(work: Work) -> StructuredLatents:
    flow = work.model.network("slat_flow_model")
    tokens = work.input("conditioning", Tokens)
    voxels = work.input("sparse_structure", Voxels)
    normalization = work.model.folder.slat_normalization
    return sample_latents(
        work.config.slat, flow, normalization, tokens, voxels, work.generator(), progress=work.progress
    )


def _decoding(work: Work) -> GaussianClip:
    decoder = work.model.network("slat_decoder_gs")
    latents = work.input("slat", StructuredLatents)
    config = work.config.decoding
    assert isinstance(config, DecodingConfig)
    return decode_gaussians(config, decoder, latents, progress=work.progress)


def _inflation(work: Work) -> GaussianClip:
    config = work.config.decoding
    assert isinstance(config, InflationConfig)
    return inflate(config, work.input("segmentation", Clip), progress=work.progress)


def _export(work: Work) -> None:
    gaussians = work.input("decoding", GaussianClip)
    fps = work.input("segmentation", Clip).fps
    export_asset(
        work.config.export, gaussians, fps, work.folder, render=work.model.ops.rasterize, progress=work.progress
    )


IMPLEMENTATIONS = (
    Stage(
        name="segmentation",
        implementation="segment",
        sections=("input", "segmentation"),
        output=Clip,
        run=_segmentation,
    ),
    Stage(
        name="conditioning",
        implementation="image_tokens",
        sections=("conditioning",),
        inputs=("segmentation",),
        output=Tokens,
        roles=("image_cond_model",),
        run=_conditioning,
    ),
    Stage(
        name="sparse_structure",
        implementation="flow",
        sections=("sparse_structure",),
        inputs=("conditioning",),
        output=Voxels,
        roles=("sparse_structure_flow_model", "sparse_structure_decoder"),
        seeded=True,
        run=_sparse_structure,
    ),
    Stage(
        name="slat",
        implementation="flow",
        sections=("slat",),
        inputs=("conditioning", "sparse_structure"),
        output=StructuredLatents,
        roles=("slat_flow_model",),
        seeded=True,
        run=_slat,
    ),
    Stage(
        name="decoding",
        implementation="gaussians",
        sections=("decoding",),
        inputs=("slat",),
        output=GaussianClip,
        roles=("slat_decoder_gs",),
        run=_decoding,
    ),
    Stage(
        name="decoding",
        implementation="inflation",
        sections=("decoding",),
        inputs=("segmentation",),
        output=GaussianClip,
        run=_inflation,
    ),
    Stage(
        name="export",
        implementation="asset",
        sections=("export",),
        inputs=("decoding", "segmentation"),
        run=_export,
    ),
)


def stages_of(config: RunConfig) -> dict[str, Stage]:
    """The stages a run of `config` goes through, by name and in order: those that the last one needs."""
    wanted = {"decoding": config.decoding.method}
    chosen = {s.name: s for s in IMPLEMENTATIONS if wanted.get(s.name, s.implementation) == s.implementation}
    needed = {"export"}
    for name in reversed(chosen):
        if name in needed:
            needed.update(chosen[name].inputs)
    return {name: stage for name, stage in chosen.items() if name in needed}
