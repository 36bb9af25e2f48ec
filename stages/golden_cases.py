"""Golden numbers of networks: inputs, weights, and what the authors' code gives for them, computed again here.

A case is a folder with `case.safetensors` (`in.*` and `out.*`), `case.json`, and `config.json` with
`weights.safetensors`. Clips are stacked along the first axis there: b = clip x frames of a clip + frame.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ss4d.stages.decoding import decode_gaussians
from ss4d.stages.decoding_config import DecodingConfig
from ss4d.stages.model_folder import NetworkFiles
from ss4d.stages.nn.gaussian_decoder import SLatGaussianDecoder
from ss4d.stages.ops.backend import TORCH_OPS, Ops
from ss4d.stages.ops.coords import Sites, SparseTensor
from ss4d.stages.types import StructuredLatents
from ss4d.stages.weights import HasTorso, describe, load_network

CPU = torch.device("cpu")
RAW = ("xyz", "features_dc", "scaling", "rotation", "opacity")


@dataclass(frozen=True)
class Output:
    """One computed output beside the golden one.

    Attributes:
        name: of the output.
        error: the largest difference of a number.
        tolerance: the largest that is allowed in float32 on a CPU.
        rms_error: the root mean square of all differences, as a part of that of the golden numbers.
    """

    name: str
    error: float
    tolerance: float
    rms_error: float = 0.0

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance  # false for NaN


@dataclass(frozen=True)
class Case:
    """One folder of golden numbers, and what computes them again.

    Attributes:
        path: the folder.
        facts: `case.json`.
        tensors: `case.safetensors`.
        device: to compute on.
        ops: kernels for it.
        dtype: of the network's torso, where it has one.
    """

    path: Path
    facts: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    device: torch.device = CPU
    ops: Ops = TORCH_OPS
    dtype: torch.dtype = torch.float32

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[f"in.{name}"].to(self.device)

    def clips(self, name: str) -> Tensor:
        """Input (clips x frames, ...) as (clips, frames, ...)."""
        stacked = self[name]
        return stacked.reshape(-1, self.facts["num_frames"], *stacked.shape[1:])

    def sparse(self) -> SparseTensor:
        """Inputs `coords` (b, x, y, z) and `feats`."""
        return SparseTensor(Sites(with_frames(self["coords"], self.facts["num_frames"])), self["feats"])

    def network(self) -> Any:
        files = NetworkFiles(weights=self.path / "weights.safetensors", description=self.path / "config.json")
        description = describe(files.description)
        network = load_network(description, files, self.ops, device=self.device).eval()
        if self.dtype != torch.float32 and isinstance(network, HasTorso):
            network.set_torso_dtype(self.dtype)
        return network

    def compare(self, results: Mapping[str, Tensor], tolerance: float) -> Iterator[Output]:
        """Every result against the golden output of the same name, where the case has one."""
        for name, result in results.items():
            wanted = self.tensors.get(f"out.{name}")
            if wanted is None:
                continue
            if result.shape != wanted.shape:
                yield Output(name, float("inf"), tolerance, float("inf"))
                continue
            difference = result.double().cpu() - wanted.double()
            size = wanted.double().square().mean().sqrt()
            rms = difference.square().mean().sqrt() / size.clamp(min=torch.finfo(size.dtype).tiny)
            yield Output(name, difference.abs().max().item(), tolerance, rms.item())


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


NETWORK_CASES: Mapping[str, Callable[[Case], Iterator[Output]]] = {
    "SparseStructureFlow4DModel": structure_flow,
    "SparseStructureDecoder": occupancy_decoder,
    "SparseStructureEncoder": occupancy_encoder,
    "SLatFlow4DModel": latent_flow,
    "SLatGaussianDecoder": gaussian_decoder,
    "SLatEncoder": latent_encoder,
}
Runner = Callable[[Case], Iterator[Output]]


def network_runner(case: Case) -> Runner:
    """What computes the case of a network, told by its class.

    Raises:
        ValueError: it is unknown.
    """
    name = describe(case.path / "config.json").name
    if name not in NETWORK_CASES:
        raise ValueError(f"there is no golden case of a {name}")
    return NETWORK_CASES[name]


def run_case(
    path: Path,
    runner: Callable[[Case], Runner] = network_runner,
    *,
    device: torch.device = CPU,
    ops: Ops = TORCH_OPS,
    dtype: torch.dtype = torch.float32,
) -> list[Output]:
    """Every golden output of the case in `path`, compared; one that was not is infinitely wrong."""
    facts, tensors = json.loads((path / "case.json").read_text()), load_file(path / "case.safetensors")
    case = Case(path, facts, tensors, device, ops, dtype)
    with torch.no_grad():
        outputs = list(runner(case)(case))
    wanted = {name.removeprefix("out.") for name in case.tensors if name.startswith("out.")}
    missed = wanted - {output.name for output in outputs}
    return outputs + [Output(name, float("inf"), 0, float("inf")) for name in sorted(missed)]


def cases(folder: Path) -> list[Path]:
    """The folders in `folder` that hold a case."""
    return sorted(file.parent for file in folder.glob("*/case.safetensors"))
