"""What is mutated: for each kind of file a sample, changes that know the format, and the commands that read it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ss4d.pipelines.dataset.manifest import Listed, read_clip
from ss4d.pipelines.training.make_records import Sizes
from ss4d.stages.data.clip import film
from ss4d.stages.data.gltf import load_animated
from ss4d.stages.input_files import InputConfig, input_digest
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.reading.counts import num_frames
from ss4d.stages.video_io import read_video
from ss4d.stages.weights import load_role
from tests.fuzz import mutations, samples
from tests.fuzz.mutations import Mutation
from tests.helpers.noop_stages import METHODS as NOOP

# What reads a case: the words of a command, with the changed file for "FILE", or a function of the case and the file.
Reader = tuple[str, ...] | Callable[[Path, Path], object]


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        sample: makes the folder of a case, as it should be.
        files: patterns of the files in it of which one is changed.
        changes: that know the format.
        readers: each of which must end with a result or a sentence.
    """

    sample: Callable[[Path], None]
    files: tuple[str, ...]
    changes: tuple[Mutation, ...]
    readers: tuple[Reader, ...]


def sets(*values: str) -> tuple[str, ...]:
    return tuple(word for value in values for word in ("--set", value))


def frames(case: Path, file: Path) -> None:
    read_video(file, InputConfig())


def folder_of_frames(case: Path, file: Path) -> None:
    alone = case / "alone"
    alone.mkdir()
    file.rename(alone / file.name)
    read_video(alone, InputConfig())
    read_clip(Listed("clip", str(alone), ""))


def clip(case: Path, file: Path) -> None:
    read_clip(Listed("clip", str(file), ""))
    input_digest(file)
    num_frames(file)


def mesh(case: Path, file: Path) -> None:
    film(load_animated(file, 2, 12.0), Sizes(frames=2, size=16, views=1, resolution=8).spec(0), "any", 12.0)


def networks(case: Path, file: Path) -> None:
    """Those that the changed file may belong to; all of them if it is the list."""
    folder = ModelFolder.open(case / "model")
    for role in sorted(folder.references):
        parts = folder.files(role)
        if file.name == "pipeline.json" or file in (parts.description, parts.weights):
            load_role(folder, role, TORCH_OPS, device=torch.device("cpu"))


RUN, STORE, SET = "out/runs/disc", "out/store", "set"
SAME = samples.INFLATION
AGAIN = ("run", "clip", "--out", "out", "--name", "disc", "--engine", "direct", *sets(*SAME))
AS_CLIP = ("run", "FILE", "--engine", "direct", "--out", "out", *sets("input.count=1", *NOOP))
FEW = ("--size", "16", "--frames", "2")
RUN_READERS: tuple[Reader, ...] = (
    ("inspect", RUN),
    ("inspect", RUN, "decoding"),
    ("inspect", RUN, "segmentation", "--json"),
    ("plan", RUN),
    ("diff", RUN, RUN),
    ("report", RUN),
    ("pack", RUN, "new.zip"),
    ("export", RUN, "--formats", "spz,html"),
    ("render", RUN, *FEW),
    ("verify", STORE),
    ("verify", STORE, "--repair"),
    ("gc", STORE, "--dry-run"),
    ("gc", STORE, "--min-age", "0"),
    AGAIN,
)
DATASET_READERS: tuple[Reader, ...] = (
    ("dataset", "plan", SET),
    ("dataset", "catalog", SET),
    ("dataset", "catalog", "rebuild", SET),
    ("dataset", "failures", SET),
    ("dataset", "retry", SET),
    ("dataset", "report", SET),
    ("dataset", "export", SET, "assets"),
    ("gc", f"{SET}/store", "--min-age", "0"),
    ("gc", f"{SET}/store", "--dry-run"),
)

KINDS: dict[str, Kind] = {
    "video": Kind(
        samples.write_inputs,
        ("*.mp4", "*.webm", "*.avi", "*.mov", "*.mkv"),
        (mutations.changed_bytes, mutations.changed_boxes),
        (frames, clip, AS_CLIP),
    ),
    "image": Kind(
        samples.write_inputs,
        ("*.png", "*.jpg", "*.webp", "*.tiff", "*.bmp", "*.gif", "*.apng"),
        (mutations.changed_png,),
        (frames, folder_of_frames, clip, AS_CLIP),
    ),
    "glb": Kind(samples.write_meshes, ("*.glb",), (mutations.changed_glb,), (mesh,)),
    "gltf": Kind(samples.write_meshes, ("*.gltf",), (mutations.changed_json,), (mesh,)),
    "run.json": Kind(samples.write_run, (f"{RUN}/run.json",), (mutations.changed_json,), RUN_READERS),
    "zarr.json": Kind(samples.write_run, (f"{STORE}/**/zarr.json",), (mutations.changed_json,), RUN_READERS),
    "chunk": Kind(samples.write_run, (f"{STORE}/**/c/**/*", f"{STORE}/**/files/**/*"), (), RUN_READERS),
    "cameras": Kind(
        samples.write_run,
        (f"{RUN}/cameras.json",),
        (mutations.changed_json,),
        (("render", RUN, *FEW, "--cameras", "FILE"), ("render", RUN, "--cameras", "FILE", "--what", "depth")),
    ),
    "zip": Kind(
        samples.write_run,
        ("disc.zip",),
        (mutations.changed_zip,),
        (
            *(("inspect", "FILE"), ("inspect", "FILE", "decoding"), ("inspect", "FILE", "segmentation", "--json")),
            *(("report", "FILE"), ("diff", "FILE", RUN), ("verify", "FILE"), ("plan", "clip", "--store", "FILE")),
        ),
    ),
    "events": Kind(
        samples.write_dataset,
        (f"{SET}/events/**/*", f"{SET}/runs.jsonl"),
        (mutations.changed_lines,),
        DATASET_READERS,
    ),
    "manifest": Kind(samples.write_dataset, (f"{SET}/manifest.parquet",), (), DATASET_READERS),
    "index": Kind(samples.write_dataset, (f"{SET}/index.sqlite",), (), DATASET_READERS),
    "dataset.json": Kind(samples.write_dataset, (f"{SET}/dataset.json",), (mutations.changed_json,), DATASET_READERS),
    "pipeline.json": Kind(
        samples.write_model_folder,
        ("model/pipeline.json", "model/ckpts/*.json"),
        (mutations.changed_json,),
        (networks, ("plan", "clip", "--out", "out", "--set", "model=model")),
    ),
    "safetensors": Kind(
        samples.write_model_folder, ("model/ckpts/*.safetensors",), (mutations.changed_safetensors,), (networks,)
    ),
    "yaml": Kind(
        samples.write_configs,
        ("*.yaml",),
        (mutations.changed_yaml,),
        (("plan", "clip", "--out", "out", "--config", "FILE"),),
    ),
    "records": Kind(
        samples.write_records,
        ("clips/manifest.parquet", "clips/store/**/zarr.json", "clips/store/**/c/**/*"),
        (mutations.changed_json,),
        (("data", "list", "clips"), ("data", "check", "clips")),
    ),
}  # fmt: skip
