"""The implementations of stages that come with the program, as one table; the first one of a stage is its default."""

from ss4d.pipelines.implementation import Implementation, Work
from ss4d.stages.conditioning import encode_images
from ss4d.stages.conditioning_config import ConditioningConfig
from ss4d.stages.decoding import decode_gaussians
from ss4d.stages.decoding_config import DecodingConfig
from ss4d.stages.export.asset import export_asset
from ss4d.stages.export.config import ExportConfig
from ss4d.stages.inflation import inflate
from ss4d.stages.inflation_config import InflationConfig
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.segmentation.config import SegmentationConfig
from ss4d.stages.segmentation.segment import segment
from ss4d.stages.slat import sample_latents
from ss4d.stages.slat_config import SlatConfig
from ss4d.stages.sparse_structure import sample_structure
from ss4d.stages.sparse_structure_config import SparseStructureConfig
from ss4d.stages.types import Clip, GaussianClip, StructuredLatents, Tokens, Voxels


def _segmentation(config: SegmentationConfig, work: Work) -> Clip:
    return segment(config, work.video(), progress=work.progress)


def _conditioning(config: ConditioningConfig, work: Work) -> Tokens:
    encoder = work.network("image_cond_model")
    return encode_images(config, encoder, work.input("segmentation", Clip), progress=work.progress)


def _sparse_structure(config: SparseStructureConfig, work: Work) -> Voxels:
    flow = work.network("sparse_structure_flow_model")
    decoder = work.network("sparse_structure_decoder")
    tokens = work.input("conditioning", Tokens)
    return sample_structure(config, flow, decoder, tokens, work.generator(), progress=work.progress)


def _slat(config: SlatConfig, work: Work) -> StructuredLatents:
    flow = work.network("slat_flow_model")
    tokens = work.input("conditioning", Tokens)
    voxels = work.input("sparse_structure", Voxels)
    normalization = work.model.folder.slat_normalization
    return sample_latents(config, flow, normalization, tokens, voxels, work.generator(), progress=work.progress)


def _decoding(config: DecodingConfig, work: Work) -> GaussianClip:
    decoder = work.network("slat_decoder_gs")
    return decode_gaussians(config, decoder, work.input("slat", StructuredLatents), progress=work.progress)


def _inflation(config: InflationConfig, work: Work) -> GaussianClip:
    return inflate(config, work.input("segmentation", Clip), progress=work.progress)


def _export(config: ExportConfig, work: Work) -> None:
    gaussians = work.input("decoding", GaussianClip)
    fps = work.input("segmentation", Clip).fps
    export_asset(config, gaussians, fps, work.folder, render=work.model.ops.rasterize, progress=work.progress)


def _structure_sampler(config: SparseStructureConfig, folder: ModelFolder) -> SparseStructureConfig:
    return config.model_copy(update={"sampler": config.sampler.resolve(folder.structure_sampler)})


def _slat_sampler(config: SlatConfig, folder: ModelFolder) -> SlatConfig:
    return config.model_copy(update={"sampler": config.sampler.resolve(folder.slat_sampler)})


BUILT_IN = (
    Implementation(stage="segmentation", config=SegmentationConfig, run=_segmentation, source=True),
    Implementation(
        stage="conditioning",
        config=ConditioningConfig,
        run=_conditioning,
        inputs=("segmentation",),
        roles=("image_cond_model",),
    ),
    Implementation(
        stage="sparse_structure",
        config=SparseStructureConfig,
        run=_sparse_structure,
        inputs=("conditioning",),
        roles=("sparse_structure_flow_model", "sparse_structure_decoder"),
        seeded=True,
        resolve=_structure_sampler,
    ),
    Implementation(
        stage="slat",
        config=SlatConfig,
        run=_slat,
        inputs=("conditioning", "sparse_structure"),
        roles=("slat_flow_model",),
        seeded=True,
        resolve=_slat_sampler,
    ),
    Implementation(
        stage="decoding", config=DecodingConfig, run=_decoding, inputs=("slat",), roles=("slat_decoder_gs",)
    ),
    Implementation(stage="decoding", config=InflationConfig, run=_inflation, inputs=("segmentation",)),
    Implementation(stage="export", config=ExportConfig, run=_export, inputs=("decoding", "segmentation"), revision=2),
)
