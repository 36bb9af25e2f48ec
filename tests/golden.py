"""Run every case of a folder of golden numbers and say how far each output is from them.

Usage: python tests/golden.py DIR

A case is a folder with `case.safetensors` (`in.*` and `out.*`), `case.json`, and either `config.json` with
`weights.safetensors` for a network, `pipeline.json` with `ckpts/` for a whole model, sampler parameters in `case.json`,
or frames to crop. Clips are stacked along the first axis there: b = clip x frames of a clip + frame.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that the file runs from anywhere

from ss4d.stages.decoding import decode_gaussians
from ss4d.stages.decoding_config import DecodingConfig
from ss4d.stages.model_folder import ModelFolder, NetworkFiles
from ss4d.stages.nn.checkpoint import NETWORKS
from ss4d.stages.nn.gaussian_decoder import RawGaussians, SLatGaussianDecoder
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.ops.coords import Sites, SparseTensor
from ss4d.stages.sampler_config import SamplerConfig
from ss4d.stages.sampling import clean_estimate, euler_steps, guided, time_grid
from ss4d.stages.segmentation.crop import crop_clip
from ss4d.stages.slat import sample_latents
from ss4d.stages.slat_config import SlatConfig
from ss4d.stages.sparse_structure import sample_structure
from ss4d.stages.sparse_structure_config import SparseStructureConfig
from ss4d.stages.types import StructuredLatents, Tokens, Voxels
from ss4d.stages.weights import Description, load_network, load_role

CPU = torch.device("cpu")
RAW = ("xyz", "features_dc", "scaling", "rotation", "opacity")


@dataclass(frozen=True)
class Output:
    """One computed output beside the golden one, and the largest difference allowed."""

    name: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance  # false for NaN


@dataclass(frozen=True)
class Case:
    """One folder of golden numbers."""

    path: Path
    facts: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[f"in.{name}"]

    def clips(self, name: str) -> Tensor:
        """Input (clips x frames, ...) as (clips, frames, ...)."""
        return self[name].unflatten(0, (-1, self.facts["num_frames"]))

    def sparse(self) -> SparseTensor:
        """Inputs `coords` (b, x, y, z) and `feats`."""
        return SparseTensor(Sites(with_frames(self["coords"], self.facts["num_frames"])), self["feats"])

    def network(self) -> Any:
        config = json.loads((self.path / "config.json").read_text())
        name = config["name"].removeprefix("Elastic")
        args = {key: tuple(value) if isinstance(value, list) else value for key, value in config["args"].items()}
        description = Description(name, NETWORKS[name].args(**args))
        files = NetworkFiles(weights=self.path / "weights.safetensors", description=self.path / "config.json")
        return load_network(description, files, TORCH_OPS, device=CPU).eval()

    def compare(self, results: Mapping[str, Tensor], tolerance: float) -> Iterator[Output]:
        """Every result against the golden output of the same name, where the case has one."""
        for name, result in results.items():
            wanted = self.tensors.get(f"out.{name}")
            if wanted is None:
                continue
            same_shape = result.shape == wanted.shape
            error = (result.double() - wanted.double()).abs().max().item() if same_shape else float("inf")
            yield Output(name, error, tolerance)


def with_frames(coords: Tensor, clip_frames: int) -> Tensor:
    """Coordinates (b, x, y, z), clips stacked along b, as (b, t, x, y, z) int32."""
    b = coords[:, :1]
    return torch.cat([b // clip_frames, b % clip_frames, coords[:, 1:]], dim=1).int()


def structure_flow(case: Case) -> Iterator[Output]:
    v = case.network()(case.clips("x"), case.clips("t"), case.clips("cond"))
    yield from case.compare({"v": v.flatten(0, 1)}, 5e-6)


def latent_flow(case: Case) -> Iterator[Output]:
    v = case.network()(case.sparse(), case.clips("t"), case.clips("cond"))
    yield from case.compare({"v": v.feats}, 1e-5)


def occupancy_decoder(case: Case) -> Iterator[Output]:
    yield from case.compare({"logits": case.network()(case["z"])}, 2e-6)


def occupancy_encoder(case: Case) -> Iterator[Output]:
    mean, logvar = case.network()(case["occupancy"])
    yield from case.compare({"mean": mean, "logvar": logvar}, 2e-6)


def latent_encoder(case: Case) -> Iterator[Output]:
    mean, logvar = case.network()(case.sparse())
    yield from case.compare({"mean": mean, "logvar": logvar}, 5e-6)


def gaussian_decoder(case: Case) -> Iterator[Output]:
    net: SLatGaussianDecoder = case.network()
    x = case.sparse()
    raw = net.split(net(x), x.coords)
    active = net.activate(raw)
    yield from case.compare({name: getattr(raw, name) for name in RAW}, 5e-6)
    activated = {"world_xyz": active.means, "activated_scale": active.scales}
    activated |= {"activated_rotation": active.quats, "activated_opacity": active.opacities}
    yield from case.compare(activated, 5e-6)
    latents = StructuredLatents(
        coords=x.coords, feats=x.feats, num_frames=case.facts["num_frames"], resolution=net.args.resolution
    )
    clip = decode_gaussians(DecodingConfig(), net, latents)
    yield from case.compare({"counts": clip.offsets.diff()}, 0)


def sampler(case: Case) -> Iterator[Output]:
    """The closed-form field v(x, t, cond) = tanh(0.7 x + cond) (1 + t / 1000), t in [0, 1000]."""
    facts, cond = case.facts, case["cond"]
    if "tanh(0.7*x + cond) * (1 + t/1000)" not in facts["field"]:
        raise ValueError(f"the field {facts['field']!r} is unknown")

    def field(condition: Tensor) -> Callable[[Tensor, float], Tensor]:
        return lambda x, t: torch.tanh(0.7 * x + condition) * (1 + t)

    velocity = guided(field(cond), field(torch.zeros_like(cond)), facts["cfg_strength"], tuple(facts["cfg_interval"]))
    steps = list(euler_steps(velocity, case["noise"], time_grid(facts["steps"], facts["rescale_t"])))
    results = {
        "samples": steps[-1].x,
        "x_t": torch.stack([step.x for step in steps]),
        "x_0": torch.stack([clean_estimate(step, facts["sigma_min"]) for step in steps]),
    }
    yield from case.compare(results, 5e-6)


def preprocess(case: Case) -> Iterator[Output]:
    rgb, _, _ = crop_clip(case["frames"], case.tensors["out.frames"].shape[1])
    yield from case.compare({"frames": rgb}, 1)


def pipeline(case: Case) -> Iterator[Output]:
    """The stages, one after the other; each after the first is given the golden result of the one before it."""
    folder, clip_frames = ModelFolder.open(case.path), case.facts["num_frames"]
    flow, decoder, slat_flow, slat_decoder = (
        load_role(folder, role, TORCH_OPS, device=CPU)
        for role in ("sparse_structure_flow_model", "sparse_structure_decoder", "slat_flow_model", "slat_decoder_gs")
    )
    tokens = Tokens(feats=case["cond"])
    structure_config = SparseStructureConfig(sampler=SamplerConfig().resolve(folder.structure_sampler))
    voxels = sample_structure(structure_config, flow, decoder, tokens, _generator(case))
    yield from case.compare({"ss_latent": voxels.latent}, 5e-5)
    latent = case.tensors["out.ss_latent"]
    yield from case.compare({"ss_logits": decoder(latent)}, 1e-5)
    coords = with_frames(case.tensors["out.coords"], clip_frames)
    ours, theirs = set(map(tuple, voxels.coords.tolist())), set(map(tuple, coords.tolist()))
    yield Output("coords", 1 - len(ours & theirs) / len(ours | theirs), 0.002)

    golden = Voxels(coords=coords, latent=latent, resolution=voxels.resolution)
    slat_config = SlatConfig(sampler=SamplerConfig().resolve(folder.slat_sampler))
    slat = sample_latents(slat_config, slat_flow, folder.slat_normalization, tokens, golden, _generator(case))
    yield from case.compare({"slat": slat.feats}, 5e-5)

    wanted = RawGaussians(**{name: case.tensors[f"out.{name}"] for name in RAW})
    raw = slat_decoder.split(slat_decoder(SparseTensor(Sites(coords), slat.feats)), coords)
    yield from case.compare({name: getattr(raw, name) for name in RAW}, 5e-5)
    clip, active = decode_gaussians(DecodingConfig(), slat_decoder, slat), slat_decoder.activate(wanted)
    for name in ("means", "scales", "quats", "colors"):
        yield Output(name, (getattr(clip, name) - getattr(active, name)).abs().max().item(), 5e-5)
    yield Output("opacities", (clip.opacities - active.opacities[:, 0]).abs().max().item(), 5e-5)


def _generator(case: Case) -> torch.Generator:
    return torch.Generator().manual_seed(case.facts["seed"])


RUNNERS: Mapping[str, Callable[[Case], Iterator[Output]]] = {
    "SparseStructureFlow4DModel": structure_flow,
    "SparseStructureDecoder": occupancy_decoder,
    "SparseStructureEncoder": occupancy_encoder,
    "SLatFlow4DModel": latent_flow,
    "SLatGaussianDecoder": gaussian_decoder,
    "SLatEncoder": latent_encoder,
}


def runner(case: Case) -> Callable[[Case], Iterator[Output]]:
    """What computes a case, told by its files."""
    if (case.path / "pipeline.json").exists():
        return pipeline
    if (case.path / "config.json").exists():
        name = json.loads((case.path / "config.json").read_text())["name"].removeprefix("Elastic")
        if name not in RUNNERS:
            raise ValueError(f"class {name!r} is unknown")
        return RUNNERS[name]
    if "steps" in case.facts:
        return sampler
    if "in.frames" in case.tensors:
        return preprocess
    raise ValueError("neither a network, nor a model, nor a sampler, nor frames")


def run(path: Path) -> list[Output]:
    """Every golden output of the case in `path`, compared; one that was not is infinitely wrong."""
    case = Case(path, json.loads((path / "case.json").read_text()), load_file(path / "case.safetensors"))
    with torch.no_grad():
        outputs = list(runner(case)(case))
    wanted = {name.removeprefix("out.") for name in case.tensors if name.startswith("out.")}
    missed = wanted - {output.name for output in outputs}
    return outputs + [Output(name, float("inf"), 0) for name in sorted(missed)]


def cases(folder: Path) -> list[Path]:
    """The folders in `folder` that hold a case."""
    return sorted(file.parent for file in folder.glob("*/case.safetensors"))


def main(folder: Path) -> int:
    """Prints a row for each case; returns how many failed, at least 1 if there is none at all."""
    found, failed = cases(folder), 0
    for path in found:
        try:
            outputs = run(path)
        except Exception as error:  # one broken case must not hide the others
            failed += 1
            print(f"FAIL {path.name:20} {type(error).__name__}: {error}")
            continue
        ok = bool(outputs) and all(output.ok for output in outputs)
        failed += not ok
        errors = "  ".join(f"{o.name} {o.error:.1e}{'' if o.ok else '!'}/{o.tolerance:.0e}" for o in outputs)
        print(f"{'ok  ' if ok else 'FAIL'} {path.name:20} {errors}")
    print(f"{len(found) - failed} of {len(found)} cases within tolerance (largest error / tolerance)")
    return failed if found else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(min(main(Path(sys.argv[1])), 1))
