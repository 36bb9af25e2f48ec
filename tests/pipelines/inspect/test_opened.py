"""Opening a run: its record is checked, its arrays are read when indexed, and it shows itself."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from ss4d.pipelines.inspect.opened import OpenedRun, OpenedStage, open_run
from ss4d.pipelines.inspect.rerun import Changes, options_of_run
from ss4d.pipelines.store.housekeeping import pack_run
from ss4d.stages.types import GaussianClip, StructuredLatents, silent
from ss4d.storage.archive import write_archive
from ss4d.storage.codec import ArrayData
from ss4d.storage.errors import StoreError
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore

STAGES = ["segmentation", "conditioning", "sparse_structure", "slat", "decoding", "export"]


@pytest.fixture(scope="module")
def run(finished_run: Path) -> OpenedRun:
    return open_run(finished_run)


@pytest.fixture
def copy(finished_run: Path, tmp_path: Path) -> Path:
    """A run's folder of its own to change, with a store of its own."""
    shutil.copytree(finished_run.parents[1], tmp_path / "out")
    return tmp_path / "out" / "runs" / finished_run.name


def edit(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(content | changes))


def test_kernels_are_those_of_the_run_or_were_not_noted(run: OpenedRun, copy: Path) -> None:
    named = {part: chosen.kernel for part, chosen in run.record.kernels.items()}
    assert named == {"attention": "torch", "convolution": "torch", "rasterizer": "numba"}
    content = json.loads((copy / "run.json").read_text())
    del content["kernels"]
    (copy / "run.json").write_text(json.dumps(content))
    assert open_run(copy).record.kernels == {}


def test_stages_and_arrays_are_those_of_the_run(run: OpenedRun) -> None:
    assert list(run) == STAGES
    assert run.record.state == "complete"
    assert run["slat"].arrays() == ("coords", "feats")
    assert run["slat"]["feats"].shape[0] == run["slat"]["coords"].shape[0]
    assert len(run["export"].files()) == 4 + 2  # a PLY file a frame, cameras, turntable


def test_values_are_what_the_stages_gave(run: OpenedRun) -> None:
    latents, gaussians = run["slat"].value(), run["decoding"].value()
    assert isinstance(latents, StructuredLatents)
    assert isinstance(gaussians, GaussianClip)
    np.testing.assert_array_equal(latents.feats.numpy(), run["slat"]["feats"][:])
    assert torch.isfinite(gaussians.means).all()
    with pytest.raises(StoreError, match="gives files"):
        run["export"].value()


def test_no_chunk_is_read_before_it_is_asked_for(copy: Path) -> None:
    for chunk in (copy.parents[1] / "store" / "conditioning").glob("**/feats/c*"):
        chunk.write_bytes(b"damaged")
    opened = open_run(copy)
    assert repr(opened)
    assert opened["conditioning"]["feats"].shape
    assert opened["conditioning"].xarray()["feats"].sizes["t"] == 4
    with pytest.raises((ValueError, RuntimeError)):
        opened["conditioning"]["feats"][0]


def test_a_dataset_has_the_stored_axes_and_numbers(run: OpenedRun) -> None:
    clip, voxels = run["segmentation"].xarray(), run["sparse_structure"].xarray()
    assert clip["rgb"].dims == ("t", "row", "column", "3")
    assert voxels["latent"].dims == ("t", "c", "x", "y", "z")
    assert clip["rgb"].attrs["meaning"]
    np.testing.assert_array_equal(
        clip["rgb"].isel(t=[2, 0], row=slice(10, 20)).values, run["segmentation"]["rgb"][:][[2, 0], 10:20]
    )
    np.testing.assert_array_equal(voxels["latent"].isel(t=1).values, run["sparse_structure"]["latent"][1])


def test_a_name_that_comes_twice_gets_a_number(tmp_path: Path) -> None:
    from ss4d.pipelines.inspect.xarray_view import dataset

    store, ref = ArtifactStore(tmp_path), ArtifactRef("early", "0" * 64)
    with store.create(ref) as writer:
        writer.write("frames", ArrayData(np.zeros((2, 3, 3)), ("t", "s", "s")))
        writer.commit({})
    assert dataset(store.open(ref))["frames"].dims == ("t", "s", "s2")


def test_it_shows_every_stage_as_text_and_as_html(run: OpenedRun) -> None:
    text, html = repr(run), run._repr_html_()
    for name, stage in run.stages.items():
        assert name in text
        assert name in html
        assert stage.ref.key[:8] in text
    assert "feats float32" in text
    assert html.count("<tr>") == 1 + len(STAGES)
    assert "conditioning, sparse_structure" in repr(run["slat"])


def test_html_escapes_what_a_record_says(copy: Path) -> None:
    edit(copy, name="<script>alert(1)</script>")
    assert "<script>" not in open_run(copy)._repr_html_()


def test_a_run_that_was_stopped_opens_and_says_what_is_there(copy: Path) -> None:
    opened = open_run(copy)
    opened["conditioning"].store.remove(opened["conditioning"].ref)
    content = json.loads((copy / "run.json").read_text())
    for name in ("slat", "decoding"):
        content["stages"][name]["state"] = "to do"
    for field in ("finished", "wall_seconds", "results"):
        del content[field]
    (copy / "run.json").write_text(json.dumps(content | {"state": "running"}))
    opened = open_run(copy)
    opened["decoding"].store.remove(opened["decoding"].ref)
    rows = {row.stage: row for row in open_run(copy).summaries()}
    assert [rows[name].state for name in ("segmentation", "conditioning", "slat", "decoding")] == [
        *("computed", "missing", "stored", "to do")
    ]
    assert rows["conditioning"].size is None
    with pytest.raises(StoreError, match="conditioning"):
        opened["conditioning"].arrays()


def test_a_damaged_stage_is_named_and_the_others_are_shown(copy: Path) -> None:
    for path in (copy.parents[1] / "store" / "slat").glob("**/feats/zarr.json"):
        path.write_text("{}")
    rows = {row.stage: row for row in open_run(copy).summaries()}
    assert rows["slat"].state == "damaged"
    assert "feats" in (rows["slat"].problem or "")
    assert rows["decoding"].state == "computed"


def test_a_damaged_description_is_no_missing_one(copy: Path) -> None:
    (path,) = (copy.parents[1] / "store" / "slat").glob("*/*.zarr/zarr.json")
    path.write_bytes(path.read_bytes().replace(b"complete", b"completf", 1))
    rows = {row.stage: row for row in open_run(copy).summaries()}
    assert rows["slat"].state == "damaged"
    assert f"ss4d verify {copy}" in (rows["slat"].problem or "")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"schema": 2}, "schema"),
        ({"stages": 3}, "stages"),
        ({"stages": {"slat": {"key": "../../x", "state": "computed", "recipe": {}}}}, "stages.slat"),
        ({"input": None}, "input"),
    ],
)
def test_a_record_is_not_trusted(copy: Path, changes: dict[str, object], sentence: str) -> None:
    edit(copy, **changes)
    with pytest.raises(StoreError, match=sentence):
        open_run(copy)


def test_a_stage_cannot_be_called_like_a_path(copy: Path) -> None:
    stage = json.loads((copy / "run.json").read_text())["stages"]["slat"]
    edit(copy, stages={"../slat": stage})
    with pytest.raises(StoreError, match=r"\.\./slat"):
        open_run(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_record_that_is_no_json_is_refused(copy: Path, content: bytes) -> None:
    (copy / "run.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"run\.json"):
        open_run(copy)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(StoreError, match="is not a run"):
            open_run(path)


def test_a_packed_run_opens_as_the_run_itself(run: OpenedRun, finished_run: Path, tmp_path: Path) -> None:
    pack_run(finished_run, tmp_path / "run.zip", silent)
    packed = open_run(tmp_path / "run.zip")
    assert packed.summaries() == run.summaries()
    np.testing.assert_array_equal(packed["slat"]["feats"][:], run["slat"]["feats"][:])
    assert packed["export"].files().keys() == run["export"].files().keys()
    assert packed["slat"].xarray()["feats"].dims == ("n", "c")


@pytest.mark.parametrize("names", [(), ("runs/a/run.json", "runs/b/run.json")])
def test_an_archive_that_is_not_one_run_is_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    write_archive(tmp_path / "odd.zip", {name: lambda: b"{}" for name in names})
    with pytest.raises(StoreError, match=f"holds {len(names)} runs"):
        open_run(tmp_path / "odd.zip")


@pytest.mark.parametrize("values", [None, [], {}, {"num_frames": 1}, {"num_frames": "1", "resolution": 8}])
def test_a_value_that_lacks_a_number_is_refused(run: OpenedRun, values: object, tmp_path: Path) -> None:
    store, ref = ArtifactStore(tmp_path), run["slat"].ref
    with store.create(ref) as writer:
        writer.write("coords", ArrayData(run["slat"]["coords"][:], ("n", "5")))
        writer.write("feats", ArrayData(run["slat"]["feats"][:], ("n", "c")))
        writer.commit({"values": values})
    with pytest.raises(StoreError, match=r"num_frames \(int\)"):
        OpenedStage(run["slat"].record, ref, store).value()


def test_an_unknown_stage_is_refused_with_those_there_are(run: OpenedRun) -> None:
    with pytest.raises(StoreError, match="conditioning"):
        run["latents"]


def test_an_address_in_a_record_is_not_connected_to_unasked(copy: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        edit(copy, store=address)
        with pytest.raises(StoreError, match=f"--store {address}"):
            open_run(copy)
        with pytest.raises(StoreError, match="--store"):
            options_of_run(copy, Changes())
        with pytest.raises(TimeoutError):
            server.accept()
    assert open_run(copy, str(copy.parents[1] / "store"))["slat"].stored
