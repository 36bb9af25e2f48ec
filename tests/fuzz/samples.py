"""Small valid inputs of every kind that the program reads, in one folder."""

import io
import json
from pathlib import Path

import av
import numpy as np
from PIL import Image

from ss4d.pipelines.config import config_text, load_config
from ss4d.pipelines.dataset.index import open_index
from ss4d.pipelines.dataset.keys import Settings, StageKeys
from ss4d.pipelines.dataset.launches import Launch
from ss4d.pipelines.dataset.manifest import Listed, Row, read_clip
from ss4d.pipelines.run import RunOptions, run_clip
from ss4d.pipelines.store.housekeeping import pack_run
from ss4d.pipelines.training.make_records import ClipJob, Sizes, record, update_manifest
from ss4d.stages.data.objects import family_of
from ss4d.stages.training.recipe import MICRO
from ss4d.stages.types import silent
from ss4d.storage.codec import ArrayData
from ss4d.storage.manifest import write_rows
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import open_store
from tests.conftest import Silent, draw_frames, save_frames
from tests.helpers.dataset_history import WEIGHTS, attempt, happen
from tests.helpers.gltf_files import FACES, POINTS, Builder, card, primitive, show, tetrahedron
from tests.helpers.gltf_packed import ktx2, with_draco, with_ktx2, with_meshopt
from tests.helpers.noop_stages import METHODS as NOOP
from tests.helpers.unfitted import OFF
from tests.helpers.untrained import write_model

# A real asset without a model: three stages, and as few Gaussians as there can be.
INFLATION = (
    *("decoding.method=inflation", "decoding.resolution=16", "segmentation.size=32"),
    *("export.size=16", "export.frames=2"),
    *OFF,
)


def write_inputs(folder: Path) -> None:
    """A video of each codec and an image of each format, and folders of images."""
    frames = draw_frames(3, 32)
    images = [Image.fromarray(frame) for frame in frames]
    folder.mkdir()
    for name, codec, pix_fmt in (
        ("h264.mp4", "libx264", "yuv420p"),
        ("vp9.webm", "libvpx-vp9", "yuva420p"),
        ("mpeg4.avi", "mpeg4", "yuv420p"),
        ("prores.mov", "prores_ks", "yuva444p10le"),
        ("ffv1.mkv", "ffv1", "yuv420p"),
    ):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=10)
            stream.width = stream.height = 32
            stream.pix_fmt = pix_fmt
            for pixels in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pix_fmt)))
            container.mux(stream.encode())
    for name in ("rgba.png", "image.webp", "image.tiff", "image.bmp"):
        images[0].save(folder / name)
    images[0].convert("RGB").save(folder / "rgb.jpg", exif=Image.Exif())
    images[0].convert("P").save(folder / "palette.png")
    Image.fromarray(frames[0, ..., 0].astype(np.uint16) * 200).save(folder / "gray16.png")
    for name in ("moving.webp", "moving.gif", "moving.apng"):
        images[0].save(folder / name, save_all=True, append_images=images[1:], duration=100, loop=0)


def write_run(folder: Path) -> None:
    """A clip, its run with an asset, made without a model, and the run in a zip file."""
    options = RunOptions(
        source=save_frames(folder / "clip", draw_frames(2, 32)),
        out=folder / "out",
        overrides=INFLATION,
        device="cpu",
        engine="direct",
        name="disc",
    )
    run_clip(options, Silent())
    pack_run(folder / "out/runs/disc", folder / "disc.zip", silent)


def write_dataset(folder: Path) -> None:
    """Two clips that were done, one that failed and one that cannot be read, with store, events, launch and index."""
    from ss4d.pipelines.dataset.layout import create_dataset

    made = create_dataset(folder / "set")
    inputs = [save_frames(folder / "inputs" / name, draw_frames(1, 16)[:, n:]) for n, name in enumerate("abc")]
    rows = [read_clip(Listed(path.name, str(path), "bird")) for path in inputs]
    write_rows(made.manifest, Row, [*rows, read_clip(Listed("bad", str(folder / "bad.mp4"), ""))])
    config = load_config("tiny", NOOP)
    keys = StageKeys(config, WEIGHTS, 42)
    launch = Launch(made, Settings(overrides=NOOP), keys.recipes(), {"device": "cpu"})
    store = open_store(made.store)
    for row in rows[:2]:
        for stage, (key,) in keys.of([row.sha256 or ""]).items():
            with store.create(ArtifactRef(stage, key)) as writer:
                writer.write("feats", ArrayData(np.ones((2, 3), np.float32), ("n", "c")))
                writer.commit({"stage": stage})
            happen(made, attempt(row.id, stage, key=key))
    happen(made, attempt("c", "segmentation", "failed", key=keys.of([rows[2].sha256 or ""])["segmentation"][0]))
    launch.end(state="finished", reason=None, clips=3, done=2, failed={"input": 1}, seconds=1.0)
    with open_index(made):
        pass


def write_model_folder(folder: Path) -> None:
    """An untrained model and a clip."""
    write_model(folder / "model", seed=0, changes=MICRO)
    save_frames(folder / "clip", draw_frames(1, 32))


def write_configs(folder: Path) -> None:
    """The bundled configuration, and one of few lines."""
    save_frames(folder / "clip", draw_frames(1, 32))
    (folder / "tiny.yaml").write_text(config_text("tiny"))
    (folder / "small.yaml").write_text("decoding:\n  method: inflation\nexport:\n  frames: 2\n  size: 16\n")


def write_records(folder: Path) -> None:
    """A folder of two training clips."""
    sizes = Sizes(frames=2, size=16, views=1, resolution=8)
    clips = folder / "clips"
    clips.mkdir(parents=True)
    rows = [record(clips, ClipJob(f"{family_of(n)}-{n}", sizes.spec(n, family_of(n))))[0] for n in range(2)]
    update_manifest(clips, rows)


def write_meshes(folder: Path) -> None:
    """A skinned bar, a textured and colored tetrahedron that moves and changes its shape, and packed files."""
    folder.mkdir()
    with_draco(tetrahedron()).save(folder / "draco.glb")
    with_meshopt(tetrahedron()).save(folder / "meshopt.glb")
    with_ktx2(ktx2([[(255, 0, 0, 255)]])).save(folder / "ktx2.glb")
    _cards().save(folder / "cards.glb")
    _tetrahedron().save(folder / "tetrahedron.glb")
    bar = _bar()
    bar.save(folder / "bar.glb")
    (folder / "bar.bin").write_bytes(bar.data)
    bar.json["buffers"][0]["uri"] = "bar.bin"
    (folder / "bar.gltf").write_text(json.dumps(bar.json))


def _cards() -> Builder:
    """Instances of a strip with a mask, under what is seen through and glows."""
    builder = card(alphaMode="BLEND")
    picture = np.zeros((8, 8, 4), np.uint8)
    picture[2:6, 2:6] = 255
    mask = show(builder, picture, "WEBP", alphaMode="MASK", doubleSided=True, emissiveFactor=[1, 0, 0])
    mask["emissiveTexture"] = {"index": 0, "texCoord": 0}
    builder.json["samplers"] = [{"wrapS": 33071, "wrapT": 33648, "magFilter": 9728}]
    builder.json["textures"] = [{"sampler": 0, "extensions": {"EXT_texture_webp": {"source": 0}}}]
    glass = {"alphaMode": "BLEND", "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0.5]}}
    builder.json["materials"].append(glass)
    held = builder.json["meshes"][0]["primitives"]
    held.append({"mode": 5, "attributes": held[0]["attributes"], "material": 1})
    places = {"TRANSLATION": builder.add([[0, 0, 0], [1, 0, 0]])}
    builder.json["nodes"][0]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": places}}
    builder.animate_also("one", (0, "scale", [0, 0.1], [[1, 1, 1], [1, 2, -1]], "LINEAR"))
    builder.animate_also("other", (0, "scale", [0, 0.1], [[1, 1, 1], [1, 1, 1.1]], "LINEAR"))
    return builder


def _tetrahedron() -> Builder:
    builder = tetrahedron()
    stream = io.BytesIO()
    Image.fromarray(draw_frames(1, 8)[0, ..., :3]).save(stream, "PNG")
    builder.json["images"] = [{"bufferView": builder.view(stream.getvalue()), "mimeType": "image/png"}]
    builder.json["textures"] = [{"source": 0}]
    transform = {"KHR_texture_transform": {"offset": [0, 0.1], "scale": [1, 2], "rotation": 0.5}}
    texture = {"index": 0, "texCoord": 0, "extensions": transform}
    metal = {"baseColorTexture": texture, "baseColorFactor": [1, 0.5, 1, 1]}
    builder.json["materials"] = [{"pbrMetallicRoughness": metal}]
    held = primitive(builder)
    held["material"] = 0
    held["attributes"]["TEXCOORD_0"] = builder.add(POINTS[:, :2] * 0.1 + 0.5)
    held["attributes"]["COLOR_0"] = builder.add(np.full((4, 4), 200), "<u1", normalized=True)
    held["targets"] = [{"POSITION": builder.add(POINTS * 0.1)}]
    builder.json["nodes"] = [{"mesh": 0, "translation": [0, 1, 0], "scale": [2, 2, 2]}, {"children": [0]}]
    builder.json["scenes"] = [{"nodes": [1]}]
    builder.animate(
        (1, "rotation", [0, 0.1], [[0, 0, 0, 1], [0, 0, 1, 0]], "LINEAR"),
        (0, "weights", [0, 0.2], [0, 1], "LINEAR"),
        (0, "translation", [0, 0.1], np.zeros((6, 3)), "CUBICSPLINE"),
    )
    return builder


def _bar() -> Builder:
    builder = Builder()
    attributes = {
        "POSITION": builder.add(POINTS),
        "JOINTS_0": builder.add(np.tile([0, 1, 0, 0], (4, 1)), "<u1"),
        "WEIGHTS_0": builder.add(np.tile([0.5, 0.5, 0, 0], (4, 1))),
    }
    held = {"attributes": attributes, "indices": builder.add(np.ravel(FACES), "<u2")}
    inverse = builder.add(np.tile(np.eye(4).reshape(16), (2, 1)))
    builder.json |= {
        "meshes": [{"primitives": [held], "weights": [0.5]}],
        "nodes": [{"mesh": 0, "skin": 0}, {"children": [2]}, {"matrix": list(np.eye(4).reshape(16))}],
        "skins": [{"joints": [1, 2], "inverseBindMatrices": inverse}],
        "scenes": [{"nodes": [0, 1]}],
        "scene": 0,
    }
    count = builder.add([[0.1, 0, 0]])
    offsets = builder.add([1], "<u2")
    views = [builder.json["accessors"].pop() for _ in (count, offsets)]
    sparse = {
        "count": 1,
        "indices": {"bufferView": views[0]["bufferView"], "componentType": 5123},
        "values": {"bufferView": views[1]["bufferView"]},
    }
    builder.json["accessors"].append({"componentType": 5126, "count": 4, "type": "VEC3", "sparse": sparse})
    held["targets"] = [{"POSITION": len(builder.json["accessors"]) - 1}]
    builder.animate((2, "rotation", [0, 0.1], [[0, 0, 0, 1], [0, 0, 1, 0]], "STEP"))
    return builder
