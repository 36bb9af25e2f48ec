"""Run every case of a folder of golden numbers and say how far each output is from them.

Usage: python tests/golden.py DIR

A case is a folder with `case.safetensors` (`in.*` and `out.*`), `case.json`, and either `config.json` with
`weights.safetensors` for a network, `pipeline.json` with `ckpts/` for a whole model, sampler parameters in `case.json`,
or frames to crop. Clips are stacked along the first axis there: b = clip x frames of a clip + frame.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that the file runs from anywhere

from ss4d.stages.decoding import decode_gaussians
from ss4d.stages.decoding_config import DecodingConfig
from ss4d.stages.golden_cases import CPU, RAW, Case, Output, Runner, cases, network_runner, run_case, with_frames
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.nn.gaussian_decoder import RawGaussians
from ss4d.stages.ops.backend import TORCH_OPS
from ss4d.stages.ops.coords import Sites, SparseTensor
from ss4d.stages.sampler_config import SamplerConfig
from ss4d.stages.sampling import clean_estimate, euler_steps, guided, one_by_one, time_grid
from ss4d.stages.segmentation.crop import crop_clip
from ss4d.stages.slat import sample_latents
from ss4d.stages.slat_config import SlatConfig
from ss4d.stages.sparse_structure import sample_structure
from ss4d.stages.sparse_structure_config import SparseStructureConfig
from ss4d.stages.types import Tokens, Voxels
from ss4d.stages.weights import load_role


def sampler(case: Case) -> Iterator[Output]:
    """The closed-form field v(x, t, cond) = tanh(0.7 x + cond) (1 + t / 1000), t in [0, 1000]."""
    facts, cond = case.facts, case["cond"]
    if "tanh(0.7*x + cond) * (1 + t/1000)" not in facts["field"]:
        raise ValueError(f"the field {facts['field']!r} is unknown")

    def field(condition: Tensor) -> Callable[[Tensor, float], Tensor]:
        return lambda x, t: torch.tanh(0.7 * x + condition) * (1 + t)

    both = one_by_one(field(cond), field(torch.zeros_like(cond)))
    velocity = guided(field(cond), both, facts["cfg_strength"], tuple(facts["cfg_interval"]))
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


def runner(case: Case) -> Runner:
    """What computes a case, told by its files."""
    if (case.path / "pipeline.json").exists():
        return pipeline
    if (case.path / "config.json").exists():
        return network_runner(case)
    if "steps" in case.facts:
        return sampler
    if "in.frames" in case.tensors:
        return preprocess
    raise ValueError("neither a network, nor a model, nor a sampler, nor frames")


def run(path: Path) -> list[Output]:
    """Every golden output of the case in `path`, compared."""
    return run_case(path, runner)


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
