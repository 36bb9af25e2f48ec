"""The asset of a run as its stages stored it: upright Gaussians, the camera of the input, the clip."""

from ss4d.pipelines.inspect.opened import OpenedRun
from ss4d.stages.ops.geometry import matrix_to_quaternion, rotate_gaussians
from ss4d.stages.types import Clip, GaussianClip, InputCamera
from ss4d.storage.errors import StoreError

SOURCES = ("appearance_fit", "decoding")  # of the Gaussians, the last one of a run first


def read_gaussians(run: OpenedRun) -> GaussianClip:
    """The Gaussians in world space, turned upright by the camera of the input if the run knows it.

    Raises:
        StoreError: there are none, or a result is damaged.
    """
    source, camera = gaussian_stage(run), read_camera(run)
    gaussians = run[source].value()
    if not isinstance(gaussians, GaussianClip):
        raise StoreError(f"the stage {source} of {run.path} gives no Gaussians")
    return gaussians if camera is None else rotate_gaussians(gaussians, matrix_to_quaternion(camera.upright.double()))


def read_camera(run: OpenedRun) -> InputCamera | None:
    """The camera of the input, if a stage of the run found it.

    Raises:
        StoreError: the result is gone or damaged.
    """
    camera = run["camera"].value() if "camera" in run.stages else None
    return camera if isinstance(camera, InputCamera) else None


def read_clip(run: OpenedRun) -> Clip:
    """The object as it was cut out of the input.

    Raises:
        StoreError: it is not stored, or damaged.
    """
    clip = run["segmentation"].value()
    if not isinstance(clip, Clip):
        raise StoreError(f"the stage segmentation of {run.path} gives no clip")
    return clip


def gaussian_stage(run: OpenedRun) -> str:
    """The stage whose Gaussians the asset is made of: what the export took, or would take."""
    taken = run["export"].record.recipe.inputs if "export" in run.stages else {}
    given = [stage for stage in taken if stage not in ("segmentation", "camera")]
    return given[0] if len(given) == 1 else next((name for name in SOURCES if name in run.stages), SOURCES[-1])
