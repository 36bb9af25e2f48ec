"""The asset of a run as its stages stored it: Gaussians, the camera of the input, the clip."""

from collections.abc import Callable, Collection

from ss4d.pipelines.errors import ConfigError
from ss4d.pipelines.inspect.opened import UNMADE, OpenedRun
from ss4d.pipelines.inspect.rerun import Changes, command, options_of_run
from ss4d.stages.export.asset import as_scene, capped
from ss4d.stages.export.config import OF_MESHES, ExportConfig, FormatName, needs_meshes
from ss4d.stages.export.scene import Scene
from ss4d.stages.ops.geometry import matrix_to_quaternion, rotate_gaussians
from ss4d.stages.types import Clip, GaussianClip, InputCamera, MeshClip, Progress, Value, silent
from ss4d.storage.errors import StoreError

CLIP, MESH, EXPORT = "segmentation", "mesh", "export"
CAMERAS = ("camera_fit", "camera")  # of the input, the last one of a run first
SOURCES = ("appearance_fit", "decoding")  # of the Gaussians, the last one of a run first


def read_gaussians(run: OpenedRun) -> GaussianClip:
    """The Gaussians in world space, turned upright by the camera of the input if the run knows it.

    Raises:
        StoreError: there are none, or a result is damaged.
    """
    gaussians, camera = _gaussians(run[_source(_taken(run))].value()), read_camera(run)
    return gaussians if camera is None else rotate_gaussians(gaussians, matrix_to_quaternion(camera.upright.double()))


def read_camera(run: OpenedRun) -> InputCamera | None:
    """The camera of the input, by the last stage of the run that found it; None if none did or has come to it.

    Raises:
        StoreError: the result is gone or damaged.
    """
    found = (run[stage] for stage in CAMERAS if stage in run.stages)
    camera = next((stage.value() for stage in found if stage.stored or stage.record.state != UNMADE), None)
    return camera if isinstance(camera, InputCamera) else None


def read_clip(run: OpenedRun) -> Clip:
    """The object as it was cut out of the input.

    Raises:
        StoreError: it is not stored, or damaged.
    """
    return _clip(run[CLIP].value())


def gaussian_key(run: OpenedRun) -> str:
    """The key of the Gaussians that the asset is made of."""
    return run[_source(_taken(run))].record.key


def scene_of_run(run: OpenedRun, config: ExportConfig, progress: Progress = silent) -> Scene:
    """The asset as formats are written from it, with its meshes if they are stored; see `read_scene`."""
    check_meshes(run, config.formats)
    read, name, meshed = (lambda stage: run[stage].value()), run.record.name, has_meshes(run)
    return read_scene(read, _taken(run), config, name, progress, meshed=meshed)


def check_meshes(run: OpenedRun, formats: Collection[FormatName]) -> None:
    """Raises StoreError, which says what makes them, if a format is made of meshes and the run has none."""
    if (made := [name for name in formats if name in OF_MESHES]) and not has_meshes(run):
        raise StoreError(f"{run.path} has no meshes, which {', '.join(made)} is made of; {_how_to_mesh(run)}")


def has_meshes(run: OpenedRun) -> bool:
    """Whether the run has made meshes, and they are stored."""
    return MESH in run.stages and run[MESH].stored


def read_scene(
    value: Callable[[str], Value],
    taken: Collection[str],
    config: ExportConfig,
    name: str,
    progress: Progress = silent,
    *,
    meshed: bool = False,
) -> Scene:
    """The asset as formats are written from it.

    Args:
        value: reads what a stage gave.
        taken: the stages whose results the export took, or would take.
        config: of the export.
        name: for titles.
        progress: told after each frame, if the number of Gaussians is capped.
        meshed: whether to read the meshes also where no format needs them; a page shows them.

    Raises:
        StoreError: a result is not stored, or damaged.
    """
    gaussians, clip = _gaussians(value(_source(taken))), _clip(value(CLIP))
    camera = next((value(stage) for stage in CAMERAS if stage in taken), None)
    known = camera if isinstance(camera, InputCamera) else None
    meshes = _meshes(value(MESH)) if meshed or needs_meshes(config) else None
    scene = as_scene(config, gaussians, clip.fps, known, name, clip, meshes)
    return scene if config.max_gaussians is None else capped(scene, config.max_gaussians, progress)


def _taken(run: OpenedRun) -> Collection[str]:
    return run[EXPORT].record.recipe.inputs if EXPORT in run.stages else run.stages


def _source(taken: Collection[str]) -> str:
    """The stage whose Gaussians the asset is made of: what the export took, or would take."""
    given = [stage for stage in taken if stage not in (CLIP, *CAMERAS, MESH)]
    return given[0] if len(given) == 1 else next((name for name in SOURCES if name in taken), SOURCES[-1])


def _gaussians(value: Value) -> GaussianClip:
    if not isinstance(value, GaussianClip):
        raise StoreError(f"a {type(value).__name__} is no asset of Gaussians")
    return value


def _meshes(value: Value) -> MeshClip:
    if not isinstance(value, MeshClip):
        raise StoreError(f"a {type(value).__name__} is no mesh")
    return value


def _how_to_mesh(run: OpenedRun) -> str:
    """A command that makes the meshes of a run."""
    try:
        return f"this makes them: `{command(options_of_run(run.path, Changes()), [*run.record.goals, MESH])}`"
    except ConfigError:  # a packed run, or one of a version that noted less
        return "`ss4d run` makes them, with the options of that run, --goal export and --goal mesh"


def _clip(value: Value) -> Clip:
    if not isinstance(value, Clip):
        raise StoreError(f"a {type(value).__name__} is no clip")
    return value
