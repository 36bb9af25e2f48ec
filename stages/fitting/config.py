"""What a user chooses about fitting an asset to its video; needs nothing that computes."""

from typing import Literal

from pydantic import Field

from ss4d.stages.stage_config import StageConfig


class NoCameraConfig(StageConfig):
    """The input's camera is not wanted."""

    method: Literal["none"] = Field(default="none", description="left out: nothing is fitted, nothing turned upright")


class CameraConfig(StageConfig):
    """What is known of the input's camera; null: found out."""

    method: Literal["auto"] = Field(
        default="auto",
        description="known where the model works in the camera's axes, else found by matching voxels to masks",
    )
    yaw: float | None = Field(
        default=None, ge=-180, le=180, description="of the camera from the object's front, to its right, in degrees"
    )
    pitch: float | None = Field(
        default=None, ge=-90, le=90, description="of the camera above the horizon, in degrees; turns the asset upright"
    )
    distance: float | None = Field(
        default=None, ge=0.9, le=100, description="of the camera from the object's middle, in sides of its cube"
    )
    fov: float | None = Field(
        default=None, gt=0, lt=120, description="angle across the crop, in degrees; else follows from the distance"
    )


class FrontCameraConfig(StageConfig):
    """The camera that silhouette inflation takes for granted; it has no settings."""

    method: Literal["front"] = Field(
        default="front", description="far away in front of the object, as decoding.method=inflation takes it"
    )


class NoStructureFitConfig(StageConfig):
    """The voxels stay as they are."""

    method: Literal["none"] = Field(default="none", description="left out: voxels as the model finds them")


class StructureFitConfig(StageConfig):
    """How voxels are fitted to the masks."""

    method: Literal["masks"] = Field(
        default="masks", description="voxels moved so that their outline is that of the masks"
    )
    overlap: float = Field(
        default=0.55, ge=0, le=1, description="of outlines and masks: with less, clips are left alone (0 to 1)"
    )
    steps: int = Field(default=30, ge=0, le=1000, description="steps of the optimizer on the occupancy latent")
    rate: float = Field(default=0.1, gt=0, le=1, description="its learning rate, in units of the latent")
    stay: float = Field(default=3.0, ge=0, le=100, description="weight of staying near the model's latent")
    carve: bool = Field(default=True, description="whether cells that lie outside of the masks are removed in the end")
    fill: bool = Field(
        default=True, description="whether rays inside of the masks that meet no cell are given one, and crumbs removed"
    )


class NoCameraFitConfig(StageConfig):
    """The camera stays as it is."""

    method: Literal["none"] = Field(default="none", description="left out: the camera as the voxels tell it")


class CameraFitConfig(StageConfig):
    """How the camera is fitted to the masks."""

    method: Literal["auto"] = Field(
        default="auto", description="moved and opened so that the outlines of the Gaussians are those of the masks"
    )
    fov: bool = Field(default=True, description="whether its field of view is fitted, too, and not its place alone")
    size: int = Field(default=64, ge=16, le=512, description="width and height of the outlines compared, in pixels")
    steps: int = Field(default=30, ge=0, le=1000, description="steps of the optimizer")
    rate: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description="largest change of place and size in its first step, in sides of the crop",
    )


class NoAppearanceFitConfig(StageConfig):
    """The Gaussians stay as they are."""

    method: Literal["none"] = Field(default="none", description="left out: Gaussians as the model decodes them")


class PictureFitConfig(StageConfig):
    """What fits of Gaussians to the frames have in common; not a method itself."""

    overlap: float = Field(
        default=0.3, ge=0, le=1, description="of outline and mask: frames with less are left alone (0 to 1)"
    )
    size: int = Field(
        default=128,
        ge=16,
        le=512,
        description="width and height of the pictures compared, in pixels; half at first in front",
    )
    steps: int = Field(default=50, ge=0, le=1000, description="steps of the optimizer")
    rate: float = Field(default=0.03, gt=0, le=1, description="largest change of a color in its first step, 0 to 1")
    reach: float = Field(
        default=1.0, ge=0, le=10, description="how far a Gaussian may move, in cells that hold four on average"
    )
    temporal: float = Field(default=0.5, ge=0, le=100, description="weight of changing the same from frame to frame")
    spatial: float = Field(default=0.5, ge=0, le=100, description="weight of changing as the neighbors do")
    others: float = Field(default=1.2, ge=0, le=100, description="weight of looking as before from six other sides")
    grain: float = Field(default=6.0, ge=0, le=100, description="weight of colors without specks from these sides")


class AppearanceFitConfig(PictureFitConfig):
    """How Gaussians are fitted to the frames."""

    method: Literal["gaussians"] = Field(
        default="gaussians", description="Gaussians moved and painted so that they look like the frames; no network"
    )


class LatentFitConfig(PictureFitConfig):
    """How structured latents are fitted to the frames through the decoder, and then the Gaussians."""

    method: Literal["latents"] = Field(
        default="latents", description="first the latents, through the model's decoder, then the Gaussians"
    )
    latent_steps: int = Field(default=15, ge=0, le=1000, description="steps of the optimizer on the latents")
    latent_rate: float = Field(
        default=0.12,
        gt=0,
        le=10,
        description="largest change of a latent in its first step, in deviations",
    )
    latent_stay: float = Field(default=0.05, ge=0, le=100, description="weight of staying near the model's latents")
    latent_temporal: float = Field(
        default=0.5, ge=0, le=100, description="weight of latents changing the same from frame to frame"
    )
    latent_spatial: float = Field(
        default=0.15, ge=0, le=100, description="weight of latents changing as the neighbors do"
    )
