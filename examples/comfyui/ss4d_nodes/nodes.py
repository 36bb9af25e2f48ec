"""Nodes: a clip, a run of it, and what comes of that. ss4d and ComfyUI are imported where a node needs them.

Two sockets are of this pack: SS4D_CLIP is the path of an input, SS4D_RUN an opened run (`ss4d.open_run`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .values import as_images, as_mesh, as_splat

if TYPE_CHECKING:
    from torch import Tensor

    from ss4d.pipelines.inspect.opened import OpenedRun
    from ss4d.stages.export.scene import Scene

Inputs = dict[str, dict[str, Any]]
CATEGORY = "ss4d"
ALL = -1  # frames
FRAME = ("INT", {"default": ALL, "min": ALL, "max": 100_000, "tooltip": "counted from 0; -1: all, as a batch"})
RUN: Inputs = {"required": {"run": ("SS4D_RUN", {})}}


class LoadClip:
    """Names the input: a file or folder on this machine, or a VIDEO of another node."""

    CATEGORY, FUNCTION = CATEGORY, "load"
    RETURN_TYPES, RETURN_NAMES = ("SS4D_CLIP",), ("clip",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        told = "a video, an animated image, a folder or an archive of images; left empty where a video is connected"
        return {
            "required": {"path": ("STRING", {"default": "", "tooltip": told})},
            "optional": {"video": ("VIDEO", {})},
        }

    @classmethod
    def IS_CHANGED(cls, path: str, video: object = None) -> str:  # noqa: N802
        """Another text when the file is another one."""
        from ss4d.stages.input_files import input_digest

        return "" if video is not None else input_digest(Path(path))

    def load(self, path: str, video: Any = None) -> tuple[str]:
        if (video is None) == (not path.strip()):
            raise ValueError("name the path of a clip, or connect a video, and not both")
        return (path.strip() if video is None else str(_stored(video)),)


def _stored(video: Any) -> Path:
    """The file of a VIDEO: its own where it is that as it is, else one that is written, named by its content."""
    import folder_paths

    source = video.get_stream_source()
    if isinstance(source, str) and not video.has_pending_frame_edits() and not any(video.get_active_trim_window()):
        return Path(source)
    folder = Path(folder_paths.get_temp_directory()) / "ss4d"
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "video.mp4"
    video.save_to(str(made))
    with made.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return made.replace(folder / f"video_{digest[:12]}.mp4")


class RunClip:
    """Makes the asset, as `ss4d run` does; what is stored already is not computed again."""

    CATEGORY, FUNCTION = CATEGORY, "run"
    RETURN_TYPES, RETURN_NAMES = ("SS4D_RUN",), ("run",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        from ss4d.pipelines.config import bundled_configs

        settings = "a KEY=VALUE of `ss4d run --set` a line, such as input.frames=16"
        return {
            "required": {
                "clip": ("SS4D_CLIP", {}),
                "config": (sorted(bundled_configs(), key=lambda name: name != "tiny"), {}),
                "seed": ("INT", {"default": 42, "min": 0, "max": 2**32 - 1}),
                "device": (["auto", "cpu", "cuda"], {}),
            },
            "optional": {
                "settings": ("STRING", {"multiline": True, "default": "", "tooltip": settings}),
                "folder": ("STRING", {"default": "", "tooltip": "of all runs; empty: ss4d in ComfyUI's output folder"}),
            },
        }

    def run(
        self, clip: str, config: str, seed: int, device: str, settings: str = "", folder: str = ""
    ) -> tuple[OpenedRun]:
        import folder_paths

        import ss4d

        out = Path(folder.strip() or Path(folder_paths.get_output_directory()) / "ss4d")
        sets = [line.strip() for line in settings.splitlines() if line.strip()]
        made = ss4d.run(
            clip, out, config=config, overrides=sets, seed=seed, device=device, engine="direct", reporter=_Reporter()
        )
        return (made,)


class _Reporter:
    """Moves the node's bar, a bar for each stage, and ends the run when somebody cancels it."""

    def __init__(self) -> None:
        import logging

        self._log = logging.getLogger("ss4d")
        self._bar: Any = None

    def message(self, text: str) -> None:
        self._log.info("%s", text)

    def stage_started(self, step: Any) -> None:
        self._bar = None
        self.message(f"{step.stage}: {step.action}, {step.reason}")

    def stage_progress(self, done: int, total: int) -> None:
        from comfy.model_management import throw_exception_if_processing_interrupted
        from comfy.utils import ProgressBar

        throw_exception_if_processing_interrupted()
        self._bar = self._bar or ProgressBar(total)
        self._bar.update_absolute(done, total)

    def stage_finished(self, result: Any) -> None:
        """The next stage is told of by itself."""


class Splat:
    """The Gaussians as ComfyUI's SPLAT, for its nodes that render, transform, preview and save those."""

    CATEGORY, FUNCTION = CATEGORY, "convert"
    RETURN_TYPES, RETURN_NAMES = ("SPLAT", "FLOAT"), ("splat", "fps")

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        return {"required": {**RUN["required"], "frame": FRAME}}

    def convert(self, run: OpenedRun, frame: int) -> tuple[Any, float]:
        scene = _scene(run)
        return as_splat(scene, _frame(frame, scene.num_frames)), scene.fps


class Mesh:
    """The meshes of a run as ComfyUI's MESH, if a stage of the run gives some."""

    CATEGORY, FUNCTION = CATEGORY, "convert"
    RETURN_TYPES, RETURN_NAMES = ("MESH", "FLOAT"), ("mesh", "fps")

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        stage = ("STRING", {"default": "mesh", "tooltip": "the stage that gives the meshes"})
        return {"required": {**RUN["required"], "frame": FRAME, "stage": stage}}

    def convert(self, run: OpenedRun, frame: int, stage: str) -> tuple[Any, float]:
        from ss4d.pipelines.inspect.asset import read_camera, read_clip
        from ss4d.stages.export.scene import GL_FROM_WORLD
        from ss4d.stages.ops.geometry import quaternion_to_matrix
        from ss4d.stages.types import MeshClip

        meshes = run[stage].value() if stage in run.stages else None
        if not isinstance(meshes, MeshClip):
            raise ValueError(
                f"the run has no meshes of a stage {stage!r}: ask for them with goals=[export, {stage}] in the settings"
            )
        camera, turn = read_camera(run), quaternion_to_matrix(GL_FROM_WORLD)
        if camera is not None:
            turn = turn @ camera.upright.double()
        return as_mesh(meshes, turn, _frame(frame, meshes.num_frames)), read_clip(run).fps


class Preview:
    """Pictures of the asset from a camera that goes around it, for nodes that show images or make videos."""

    CATEGORY, FUNCTION = CATEGORY, "draw"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "MASK", "FLOAT"), ("images", "masks", "fps")

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        return {
            "required": {
                **RUN["required"],
                "size": ("INT", {"default": 512, "min": 16, "max": 4096}),
                "pictures": ("INT", {"default": 48, "min": 1, "max": 10_000, "tooltip": "rounded up to whole loops"}),
                "turns": ("INT", {"default": 1, "min": 0, "max": 100}),
                "pitch": ("FLOAT", {"default": 15.0, "min": -90.0, "max": 90.0, "tooltip": "degrees above"}),
            }
        }

    def draw(self, run: OpenedRun, size: int, pictures: int, turns: int, pitch: float) -> tuple[Tensor, Tensor, float]:
        from ss4d.stages.ops.rasterize import rasterize
        from ss4d.stages.rendering.kinds import pictures as drawn
        from ss4d.stages.rendering.paths import orbit_path

        scene = _scene(run)
        path = orbit_path(scene.num_frames, scene.fps, least=pictures, turns=turns, pitch=pitch, size=size)
        return (*as_images(list(drawn(scene.gaussians, path, "color", rasterize))), path.fps)


class Export:
    """Writes the asset in formats of ss4d beside the run's own files, as `ss4d export` does."""

    CATEGORY, FUNCTION = CATEGORY, "write"
    RETURN_TYPES, RETURN_NAMES = ("STRING",), ("folder",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802
        from ss4d.stages.export.config import FORMAT_NAMES

        told = f"with commas between, of {', '.join(FORMAT_NAMES)}"
        folder = ("STRING", {"default": "", "tooltip": "empty: the run's own"})
        return {
            "required": {**RUN["required"], "formats": ("STRING", {"default": "html", "tooltip": told})},
            "optional": {"folder": folder},
        }

    def write(self, run: OpenedRun, formats: str, folder: str = "") -> dict[str, Any]:
        from ss4d.pipelines.chosen_formats import chosen_formats
        from ss4d.pipelines.inspect.add_formats import add_formats
        from ss4d.stages.types import silent

        out = Path(folder.strip()) if folder.strip() else run.path
        added = add_formats(run, chosen_formats([formats]), out, max_gaussians=None, progress=silent)
        if added.refused:
            raise ValueError("; ".join(f"{name} is not made: {reason}" for name, reason in added.refused.items()))
        files = [file for names in added.files.values() for file in names]
        return {"ui": {"text": [str(out / name) for name in files]}, "result": (str(out),)}


def _scene(run: OpenedRun) -> Scene:
    """The asset as a run is exported."""
    from ss4d.pipelines.inspect.add_formats import export_config
    from ss4d.pipelines.inspect.asset import EXPORT, scene_of_run

    return scene_of_run(run, export_config(run.record.config.get(EXPORT), (), None))


def _frame(asked: int, num_frames: int) -> int | None:
    if asked >= num_frames:
        raise ValueError(f"there is no frame {asked}: the clip has {num_frames}, counted from 0")
    return None if asked == ALL else asked


NODE_CLASS_MAPPINGS = {
    "SS4DLoadClip": LoadClip,
    "SS4DRun": RunClip,
    "SS4DSplat": Splat,
    "SS4DMesh": Mesh,
    "SS4DPreview": Preview,
    "SS4DExport": Export,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "SS4DLoadClip": "Load Clip (ss4d)",
    "SS4DRun": "Video to 4D Asset (ss4d)",
    "SS4DSplat": "Get Splat (ss4d)",
    "SS4DMesh": "Get Mesh (ss4d)",
    "SS4DPreview": "Preview Asset (ss4d)",
    "SS4DExport": "Export Asset (ss4d)",
}
