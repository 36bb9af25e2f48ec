"""The ComfyUI nodes, called as ComfyUI's documentation says it calls nodes, with stand-ins for its own modules."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from ss4d.pipelines.inspect.opened import OpenedRun
from ss4d.stages.export.asset import as_scene
from ss4d.stages.export.config import ExportConfig
from ss4d.stages.export.ply import encode_ply
from ss4d.stages.export.scene import PLY_FROM_WORLD
from ss4d.stages.ops.geometry import rotate_gaussians
from ss4d.stages.types import MeshClip
from tests.conftest import FAST
from tests.helpers.places import ROOT
from tests.stages.export.clips import lopsided
from tests.stages.export.test_asset import read_ply

PACK = ROOT / "examples" / "comfyui"


class Splats(SimpleNamespace):
    """As `comfy_api.latest.Types.SPLAT`."""

    def __init__(self, positions: Any, scales: Any, rotations: Any, opacities: Any, sh: Any, counts: Any = None):
        super().__init__(
            positions=positions, scales=scales, rotations=rotations, opacities=opacities, sh=sh, counts=counts
        )


class Meshes(SimpleNamespace):
    """As `comfy_api.latest.Types.MESH`, with the arguments that the nodes give."""

    def __init__(
        self,
        vertices: Any,
        faces: Any,
        uvs: Any = None,
        texture: Any = None,
        vertex_counts: Any = None,
        face_counts: Any = None,
        unlit: bool = False,
    ):
        assert (vertex_counts is None) == (face_counts is None)
        super().__init__(
            vertices=vertices,
            faces=faces,
            uvs=uvs,
            texture=texture,
            vertex_counts=vertex_counts,
            face_counts=face_counts,
            unlit=unlit,
        )


class Canceled(Exception):  # noqa: N818
    """As ComfyUI ends a node that somebody canceled."""


class Comfy:
    """ComfyUI as the nodes meet it: its folders, its bar, and whether somebody has canceled."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.canceled, self.told = folder, False, list[tuple[int, int]]()

    def modules(self) -> dict[str, Any]:
        def check() -> None:
            if self.canceled:
                raise Canceled

        told = self.told
        bar = type("ProgressBar", (), {"__init__": lambda *_: None, "update_absolute": lambda _, *n: told.append(n)})
        paths = {name: lambda name=name: str(self.folder / name) for name in ("output", "temp")}
        return {
            "comfy": SimpleNamespace(),
            "comfy.utils": SimpleNamespace(ProgressBar=bar),
            "comfy.model_management": SimpleNamespace(throw_exception_if_processing_interrupted=check),
            "comfy_api": SimpleNamespace(),
            "comfy_api.latest": SimpleNamespace(Types=SimpleNamespace(SPLAT=Splats, MESH=Meshes)),
            "folder_paths": SimpleNamespace(get_output_directory=paths["output"], get_temp_directory=paths["temp"]),
        }


@pytest.fixture(scope="module")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comfy]:
    made = Comfy(tmp_path_factory.mktemp("comfy"))
    with pytest.MonkeyPatch.context() as patch:
        for name, module in made.modules().items():
            patch.setitem(sys.modules, name, module)
        yield made


@pytest.fixture(scope="module")
def pack() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PACK)
        yield importlib.import_module("ss4d_nodes")
        for name in ("ss4d_nodes", "ss4d_nodes.nodes", "ss4d_nodes.values"):
            del sys.modules[name]


def call(pack: ModuleType, name: str, **given: Any) -> tuple[Any, ...]:
    """What a node gives; widgets that are not given have their defaults, and all must be as the node declares them."""
    node = pack.NODE_CLASS_MAPPINGS[name]
    declared = node.INPUT_TYPES()
    assert {"required"} <= declared.keys() <= {"required", "optional", "hidden"}
    inputs = {**declared["required"], **declared.get("optional", {})}
    assert given.keys() <= inputs.keys()
    values = {}
    for key, (kind, options) in inputs.items():
        if isinstance(kind, list):
            values[key] = given.get(key, kind[0])
            assert values[key] in kind
        elif key in given or "default" in options:
            values[key] = given.get(key, options.get("default"))
            if kind in ("INT", "FLOAT"):
                assert options["min"] <= values[key] <= options["max"]
        else:
            assert key not in declared["required"], f"{key} must be connected"
    found = getattr(node(), node.FUNCTION)(**values)
    result: tuple[Any, ...] = found["result"] if isinstance(found, dict) else found
    assert isinstance(found, tuple) or (node.OUTPUT_NODE and set(found) == {"ui", "result"})
    assert len(result) == len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
    return result


@pytest.fixture(scope="module")
def run(pack: ModuleType, comfy: Comfy, clip: Path, model_folder: Path) -> OpenedRun:
    """A run that the nodes made."""
    (loaded,) = call(pack, "SS4DLoadClip", path=str(clip))
    settings = "\n".join((f"model={model_folder}", "", *FAST))
    (made,) = call(pack, "SS4DRun", clip=loaded, settings=settings, device="cpu", seed=5)
    assert isinstance(made, OpenedRun)
    return made


def test_nothing_of_comfyui_is_needed_to_load_the_pack() -> None:
    code = "import sys; import ss4d_nodes; print(*(name.partition('.')[0] for name in sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PACK, capture_output=True, text=True, check=True, env={})
    assert {"ss4d_nodes", "torch"} < set(done.stdout.split())
    assert not {"comfy", "comfy_api", "folder_paths", "ss4d"} & set(done.stdout.split())


def test_every_node_is_as_the_contract_says(pack: ModuleType) -> None:
    assert pack.NODE_CLASS_MAPPINGS.keys() == pack.NODE_DISPLAY_NAME_MAPPINGS.keys()
    own = {"SS4D_CLIP", "SS4D_RUN"}
    known = {"STRING", "INT", "FLOAT", "VIDEO", "IMAGE", "MASK", "SPLAT", "MESH", *own}
    for node in pack.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(node, node.FUNCTION))
        assert isinstance(node.CATEGORY, str)
        assert set(node.RETURN_TYPES) <= known
        for section in node.INPUT_TYPES().values():
            assert all(isinstance(kind, list) or kind in known for kind, _ in section.values())


def test_a_clip_becomes_a_run_in_comfyuis_output_and_is_not_computed_twice(
    pack: ModuleType, comfy: Comfy, run: OpenedRun, clip: Path
) -> None:
    assert run.path == comfy.folder / "output" / "ss4d" / "runs" / clip.name
    assert (run.record.state, run.record.seed) == ("complete", 5)
    assert comfy.told[-1][0] == comfy.told[-1][1], "the bar comes to its end"
    comfy.told.clear()
    sets = "\n".join(run.record.overrides)
    call(pack, "SS4DRun", clip=str(clip), settings=sets, device="cpu", seed=5)
    assert comfy.told == []


def test_a_run_that_is_canceled_ends(
    pack: ModuleType, comfy: Comfy, run: OpenedRun, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfy, "canceled", True)
    sets = "\n".join((*run.record.overrides, "export.size=32"))
    with pytest.raises(Canceled):
        call(pack, "SS4DRun", clip=str(clip), settings=sets, device="cpu", seed=5)


def test_a_splat_is_what_the_ply_files_hold(pack: ModuleType, run: OpenedRun) -> None:
    splat, fps = call(pack, "SS4DSplat", run=run)
    assert fps == 24
    files = sorted((run.path / "frames").iterdir())
    assert splat.counts.tolist() == [len(read_ply(path)["means"]) for path in files]
    for t, path in enumerate(files):
        (one, _), read = call(pack, "SS4DSplat", run=run, frame=t), read_ply(path)
        count = len(read["means"])
        for batch, row in ((splat, t), (one, 0)):
            assert_close(batch.positions[row, :count], read["means"].float())
            assert_close(batch.scales[row, :count], read["scales"].float())
            assert_close(batch.opacities[row, :count, 0], read["opacities"].float(), atol=2e-6, rtol=1e-5)
            assert_close(0.5 + 0.28209479177387814 * batch.sh[row, :count, 0], read["colors"].float())
            turned = (batch.rotations[row, :count] * read["quats"].float()).sum(1).abs()
            assert_close(turned, torch.ones(count))
        assert one.positions.shape == (1, count, 3)
    with pytest.raises(ValueError, match="there is no frame 4: the clip has 4, counted from 0"):
        call(pack, "SS4DSplat", run=run, frame=4)


def test_frames_of_other_counts_are_padded(pack: ModuleType, comfy: Comfy, tmp_path: Path) -> None:
    clip = lopsided(3, 0, 5)
    splat = sys.modules["ss4d_nodes.values"].as_splat(as_scene(ExportConfig(), clip, 12.0, None), None)
    assert splat.counts.tolist() == [3, 0, 5]
    assert splat.positions.shape == (3, 5, 3)
    assert not splat.positions[0, 3:].any()
    (tmp_path / "one.ply").write_bytes(encode_ply(rotate_gaussians(clip.frame(2), PLY_FROM_WORLD)))
    assert_close(splat.positions[2], read_ply(tmp_path / "one.ply")["means"].float())


def test_meshes_are_turned_y_up_and_keep_their_texture(pack: ModuleType, comfy: Comfy, run: OpenedRun) -> None:
    corners = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.2, 0.3], [0.1, 0.2, 0.6], [0.0, 0.0, 0.0]])
    clip = MeshClip(
        vertices=torch.cat([corners[:3], corners]),
        uv=torch.rand(7, 2),
        faces=torch.tensor([[0, 1, 2], [0, 1, 2], [1, 2, 3]], dtype=torch.int32),
        texture=torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8),
        deviation=torch.zeros(2),
        vertex_offsets=torch.tensor([0, 3, 7]),
        face_offsets=torch.tensor([0, 1, 3]),
    )
    stage = SimpleNamespace(value=lambda: clip)
    stages = {"mesh": stage, "segmentation": run["segmentation"]}

    class Run(dict):
        stages = property(lambda self: self)

    mesh, fps = call(pack, "SS4DMesh", run=Run(stages))
    assert fps == 24
    assert (mesh.vertex_counts.tolist(), mesh.face_counts.tolist(), mesh.unlit) == ([3, 4], [1, 2], True)
    x, y, z = corners.unbind(1)
    assert_close(mesh.vertices[1], torch.stack([x, z, -y], dim=1))
    assert mesh.faces[1].tolist() == [[0, 1, 2], [1, 2, 3]]
    assert_close(mesh.uvs[1], clip.uv[3:])
    assert_close(mesh.texture, clip.texture / 255)
    (one, _) = call(pack, "SS4DMesh", run=Run(stages), frame=0)
    assert one.vertices.shape == (1, 3, 3)
    with pytest.raises(ValueError, match=r"no meshes of a stage 'mesh': ask for them with goals=\[export, mesh\]"):
        call(pack, "SS4DMesh", run=run)


def test_a_preview_is_images_on_white_with_masks(pack: ModuleType, run: OpenedRun) -> None:
    images, masks, fps = call(pack, "SS4DPreview", run=run, size=32, pictures=5)
    assert images.shape == (8, 32, 32, 3), "whole loops of the clip"
    assert masks.shape == (8, 32, 32)
    assert fps == 24
    assert 0 <= images.min() < images.max() <= 1
    assert_close(images[masks == 0], torch.ones_like(images[masks == 0]))


def test_an_export_lies_where_it_says(pack: ModuleType, run: OpenedRun, tmp_path: Path) -> None:
    assert call(pack, "SS4DExport", run=run, formats="spz, html", folder=str(tmp_path)) == (str(tmp_path),)
    assert (tmp_path / "viewer.html").is_file()
    assert len(list((tmp_path / "spz").iterdir())) == 4


def test_a_video_is_taken_as_its_file_unless_it_was_edited(pack: ModuleType, comfy: Comfy, tmp_path: Path) -> None:
    class Video:
        """As `VideoInput`."""

        def __init__(self, edited: bool) -> None:
            self._edited = edited

        def get_stream_source(self) -> str:
            return str(tmp_path / "own.mp4")

        def has_pending_frame_edits(self) -> bool:
            return self._edited

        def get_active_trim_window(self) -> tuple[float, float]:
            return 0.0, 0.0

        def save_to(self, path: str) -> None:
            Path(path).write_bytes(b"a video")

    assert call(pack, "SS4DLoadClip", video=Video(False)) == (str(tmp_path / "own.mp4"),)
    (made,) = call(pack, "SS4DLoadClip", video=Video(True))
    assert (Path(made).parent, Path(made).read_bytes()) == (comfy.folder / "temp" / "ss4d", b"a video")
    assert call(pack, "SS4DLoadClip", video=Video(True)) == (made,), "of the same content, the same file"
    for wrong in ({}, {"path": "a.mp4", "video": Video(False)}):
        with pytest.raises(ValueError, match="and not both"):
            call(pack, "SS4DLoadClip", **wrong)
