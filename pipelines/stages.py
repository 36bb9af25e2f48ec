"""The stages and implementations that come with the program, as two tables; `Deferred` keeps what computes unimported.

A new one takes two files: its own in `stages/`, and its rows here.
"""

from typing import TYPE_CHECKING, Any

from ss4d.pipelines.downloads import with_weights
from ss4d.pipelines.implementation import Deferred, Implementation, Stage
from ss4d.stages.conditioning_config import ConditioningConfig
from ss4d.stages.decoding_config import DecodingConfig
from ss4d.stages.export.config import ExportConfig, needs_meshes
from ss4d.stages.export.packages import check_packages
from ss4d.stages.fitting.config import (
    AppearanceFitConfig,
    CameraConfig,
    CameraFitConfig,
    FrontCameraConfig,
    LatentFitConfig,
    NoAppearanceFitConfig,
    NoCameraConfig,
    NoCameraFitConfig,
    NoStructureFitConfig,
    StructureFitConfig,
)
from ss4d.stages.inflation_config import InflationConfig
from ss4d.stages.meshing.config import MeshConfig, chosen_surface
from ss4d.stages.meshing.packages import check_packages as check_mesh_packages
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.roles import GAUSSIAN_DECODER, IMAGE_ENCODER, LATENT_FLOW, STRUCTURE_DECODER, STRUCTURE_FLOW
from ss4d.stages.segmentation.config import BirefnetConfig, CropConfig, Sam2Config, SegmentationConfig
from ss4d.stages.slat_config import SlatConfig
from ss4d.stages.sparse_structure_config import SparseStructureConfig

if TYPE_CHECKING:
    from ss4d.pipelines.stage_inputs import StageInputs

# Sides of a crop that a frame may be wide: an object of a quarter of the frame's width loses nothing.
FINEST = 4
ROOM = 3 << 27  # bytes of the frames in which the object is looked for; its crops are made of finer ones

# In the order of a run.
STAGES = (
    Stage(
        name="segmentation",
        output=Deferred("ss4d.stages.types:Clip"),
        default="auto",
        meaning="cuts the object out of its background",
    ),
    Stage(
        name="conditioning",
        output=Deferred("ss4d.stages.types:Tokens"),
        default="image_tokens",
        meaning="turns each frame into image tokens",
    ),
    Stage(
        name="sparse_structure",
        output=Deferred("ss4d.stages.types:Voxels"),
        default="flow",
        meaning="finds the occupied voxels",
    ),
    Stage(
        name="camera",
        output=Deferred("ss4d.stages.types:InputCamera"),
        default="none",
        meaning="finds where the input was seen from",
    ),
    Stage(
        name="structure_fit",
        output=Deferred("ss4d.stages.types:FittedVoxels"),
        default="none",
        meaning="fits the voxels to the masks",
    ),
    Stage(
        name="slat",
        output=Deferred("ss4d.stages.types:StructuredLatents"),
        default="flow",
        meaning="gives each voxel a structured latent",
    ),
    Stage(
        name="decoding",
        output=Deferred("ss4d.stages.types:GaussianClip"),
        default="gaussians",
        meaning="turns them into Gaussians",
    ),
    Stage(
        name="camera_fit",
        output=Deferred("ss4d.stages.types:InputCamera"),
        default="none",
        meaning="fits the camera to the masks",
    ),
    Stage(
        name="appearance_fit",
        output=Deferred("ss4d.stages.types:FittedGaussians"),
        default="none",
        meaning="fits the Gaussians to the frames",
    ),
    Stage(
        name="mesh",
        output=Deferred("ss4d.stages.types:MeshClip"),
        default="fusion",
        meaning="turns the Gaussians into textured meshes",
    ),
    Stage(name="export", output=None, default="asset", meaning="writes the files of the asset"),
)

segment = Deferred("ss4d.stages.segmentation.segment:segment")
segment_by_birefnet = Deferred("ss4d.stages.segmentation.networks:segment_by_birefnet")
segment_by_sam2 = Deferred("ss4d.stages.segmentation.networks:segment_by_sam2")
encode_images = Deferred("ss4d.stages.conditioning:encode_images")
sample_structure = Deferred("ss4d.stages.sparse_structure:sample_structure")
sample_latents = Deferred("ss4d.stages.slat:sample_latents")
decode_gaussians = Deferred("ss4d.stages.decoding:decode_gaussians")
inflate = Deferred("ss4d.stages.inflation:inflate")
find_camera = Deferred("ss4d.stages.fitting.camera:find_camera")
front_camera = Deferred("ss4d.stages.fitting.camera:front_camera")
fit_camera = Deferred("ss4d.stages.fitting.alignment:fit_camera")
fit_structure = Deferred("ss4d.stages.fitting.structure:fit_structure")
fit_appearance = Deferred("ss4d.stages.fitting.appearance:fit_appearance")
fit_latents = Deferred("ss4d.stages.fitting.appearance:fit_latents")
make_meshes = Deferred("ss4d.stages.meshing.mesh:make_meshes")
export_asset = Deferred("ss4d.stages.export.asset:export_asset")


def _frames(config: CropConfig, inputs: "StageInputs") -> tuple[Any, Any]:
    """The frames in which the object is looked for, and finer ones to crop where those are coarse."""
    side = FINEST * config.size
    video = inputs.video(side=side, room=ROOM, beside=4 * config.size**2)
    return video, inputs.frames(side=side) if video.coarse else None


def _segmentation(config: SegmentationConfig, inputs: "StageInputs") -> Any:
    video, finer = _frames(config, inputs)
    masks = None if config.mask is None else inputs.masks(config.mask, video)
    return segment(config, video, masks=masks, finer=finer, progress=inputs.progress)


def _birefnet(config: BirefnetConfig, inputs: "StageInputs") -> Any:
    video, finer = _frames(config, inputs)
    return segment_by_birefnet(config, config.weights, video, finer=finer, progress=inputs.progress)


def _sam2(config: Sam2Config, inputs: "StageInputs") -> Any:
    (video, finer), device = _frames(config, inputs), inputs.model.device
    return segment_by_sam2(config, config.weights, video, device, finer=finer, progress=inputs.progress)


def _conditioning(config: ConditioningConfig, inputs: "StageInputs") -> Any:
    encoder = inputs.network(IMAGE_ENCODER)
    return encode_images(config, encoder, inputs.value("segmentation"), progress=inputs.progress)


def _sparse_structure(config: SparseStructureConfig, inputs: "StageInputs") -> Any:
    flow = inputs.network(STRUCTURE_FLOW)
    decoder = inputs.network(STRUCTURE_DECODER)
    tokens = inputs.value("conditioning")
    return sample_structure(config, flow, decoder, tokens, inputs.generator(), progress=inputs.progress)


def _camera(config: CameraConfig, inputs: "StageInputs") -> Any:
    clip, voxels = inputs.value("segmentation"), inputs.value("sparse_structure")
    return find_camera(config, inputs.network(IMAGE_ENCODER), clip, voxels, progress=inputs.progress)


def _front_camera(config: FrontCameraConfig, inputs: "StageInputs") -> Any:
    return front_camera(config, inputs.value("segmentation"))


def _structure_fit(config: StructureFitConfig, inputs: "StageInputs") -> Any:
    voxels, clip, camera = (inputs.value(name) for name in ("sparse_structure", "segmentation", "camera"))
    return fit_structure(config, inputs.network(STRUCTURE_DECODER), voxels, clip, camera, progress=inputs.progress)


def _slat(config: SlatConfig, inputs: "StageInputs") -> Any:
    flow = inputs.network(LATENT_FLOW)
    tokens = inputs.value("conditioning")
    voxels = inputs.value("structure_fit")
    normalization = inputs.model.folder.slat_normalization
    return sample_latents(config, flow, normalization, tokens, voxels, inputs.generator(), progress=inputs.progress)


def _decoding(config: DecodingConfig, inputs: "StageInputs") -> Any:
    return decode_gaussians(config, inputs.network(GAUSSIAN_DECODER), inputs.value("slat"), progress=inputs.progress)


def _inflation(config: InflationConfig, inputs: "StageInputs") -> Any:
    return inflate(config, inputs.value("segmentation"), progress=inputs.progress)


def _camera_fit(config: CameraFitConfig, inputs: "StageInputs") -> Any:
    gaussians, clip, camera = (inputs.value(name) for name in ("decoding", "segmentation", "camera"))
    return fit_camera(config, gaussians, clip, camera, inputs.model.device, progress=inputs.progress)


def _appearance_fit(config: AppearanceFitConfig, inputs: "StageInputs") -> Any:
    gaussians, clip, camera = (inputs.value(name) for name in ("decoding", "segmentation", "camera_fit"))
    return fit_appearance(config, gaussians, clip, camera, inputs.model.device, progress=inputs.progress)


def _latent_fit(config: LatentFitConfig, inputs: "StageInputs") -> Any:
    latents, gaussians = (inputs.value(name) for name in ("slat", "decoding"))
    clip, camera = (inputs.value(name) for name in ("segmentation", "camera_fit"))
    decoder, device = inputs.network(GAUSSIAN_DECODER), inputs.model.device
    return fit_latents(config, decoder, latents, gaussians, clip, camera, device, progress=inputs.progress)


def _mesh(config: MeshConfig, inputs: "StageInputs") -> Any:
    gaussians = inputs.value("appearance_fit")
    return make_meshes(config, gaussians, render=inputs.rasterize, see=inputs.see, progress=inputs.progress)


def _export(config: ExportConfig, inputs: "StageInputs") -> None:
    gaussians, clip = inputs.value("appearance_fit"), inputs.value("segmentation")
    export_asset(
        config,
        gaussians,
        clip.fps,
        inputs.folder,
        render=inputs.rasterize,
        camera=inputs.value("camera_fit") if inputs.gives("camera_fit") else None,
        clip=clip,
        meshes=inputs.value("mesh") if needs_meshes(config) else None,
        progress=inputs.progress,
    )


def _check_export(config: ExportConfig) -> None:
    check_packages(config.formats)


def _check_mesh(_config: MeshConfig) -> None:
    check_mesh_packages()


def _iso_surface(config: MeshConfig, _folder: ModelFolder) -> MeshConfig:
    """The method that "auto" stands for here: a surface by another one is another result."""
    return config.model_copy(update={"surface": chosen_surface(config.surface)})


def _structure_sampler(config: SparseStructureConfig, folder: ModelFolder) -> SparseStructureConfig:
    return config.model_copy(update={"sampler": config.sampler.resolve(folder.structure_sampler)})


def _slat_sampler(config: SlatConfig, folder: ModelFolder) -> SlatConfig:
    return config.model_copy(update={"sampler": config.sampler.resolve(folder.slat_sampler)})


BUILT_IN = (
    Implementation(stage="segmentation", config=SegmentationConfig, run=_segmentation, source=True, revision=6),
    Implementation(
        stage="segmentation",
        config=BirefnetConfig,
        run=_birefnet,
        source=True,
        resolve=with_weights("birefnet"),
        revision=2,
    ),
    Implementation(
        stage="segmentation", config=Sam2Config, run=_sam2, source=True, resolve=with_weights("sam2"), revision=2
    ),
    Implementation(
        stage="conditioning",
        config=ConditioningConfig,
        run=_conditioning,
        inputs=("segmentation",),
        roles=(IMAGE_ENCODER,),
        revision=2,
    ),
    Implementation(
        stage="sparse_structure",
        config=SparseStructureConfig,
        run=_sparse_structure,
        inputs=("conditioning",),
        roles=(STRUCTURE_FLOW, STRUCTURE_DECODER),
        seeded=True,
        resolve=_structure_sampler,
        revision=2,
    ),
    Implementation(stage="camera", config=NoCameraConfig, calls_for={"camera_fit": "none"}),
    Implementation(
        stage="camera",
        config=CameraConfig,
        run=_camera,
        inputs=("segmentation", "sparse_structure"),
        roles=(IMAGE_ENCODER,),
        revision=3,
    ),
    Implementation(stage="camera", config=FrontCameraConfig, run=_front_camera, inputs=("segmentation",), revision=2),
    Implementation(stage="structure_fit", config=NoStructureFitConfig, inputs=("sparse_structure",)),
    Implementation(
        stage="structure_fit",
        config=StructureFitConfig,
        run=_structure_fit,
        inputs=("sparse_structure", "segmentation", "camera"),
        roles=(STRUCTURE_DECODER,),
        revision=5,
    ),
    Implementation(
        stage="slat",
        config=SlatConfig,
        run=_slat,
        inputs=("conditioning", "structure_fit"),
        roles=(LATENT_FLOW,),
        seeded=True,
        resolve=_slat_sampler,
    ),
    Implementation(stage="decoding", config=DecodingConfig, run=_decoding, inputs=("slat",), roles=(GAUSSIAN_DECODER,)),
    Implementation(
        stage="decoding",
        config=InflationConfig,
        run=_inflation,
        inputs=("segmentation",),
        calls_for={"camera": "front", "camera_fit": "none"},
    ),
    Implementation(stage="camera_fit", config=NoCameraFitConfig, inputs=("camera",)),
    Implementation(
        stage="camera_fit",
        config=CameraFitConfig,
        run=_camera_fit,
        inputs=("decoding", "segmentation", "camera"),
    ),
    Implementation(stage="appearance_fit", config=NoAppearanceFitConfig, inputs=("decoding",)),
    Implementation(
        stage="appearance_fit",
        config=AppearanceFitConfig,
        run=_appearance_fit,
        inputs=("decoding", "segmentation", "camera_fit"),
        revision=13,
    ),
    Implementation(
        stage="appearance_fit",
        config=LatentFitConfig,
        run=_latent_fit,
        inputs=("slat", "decoding", "segmentation", "camera_fit"),
        roles=(GAUSSIAN_DECODER,),
        revision=12,
    ),
    Implementation(
        stage="mesh",
        config=MeshConfig,
        run=_mesh,
        inputs=("appearance_fit",),
        draws=True,
        triangles=True,
        resolve=_iso_surface,
        check=_check_mesh,
        revision=2,
    ),
    Implementation(
        stage="export",
        config=ExportConfig,
        run=_export,
        inputs=("appearance_fit", "segmentation"),
        optional=("camera_fit",),
        on_request={"mesh": needs_meshes},
        draws=True,
        check=_check_export,
        revision=3,
    ),
)
