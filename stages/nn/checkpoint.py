"""Networks by their published class names, and how one is written to a model folder (docs/model.md, section 1).

`ss4d.stages.weights` reads them.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from ss4d.stages.errors import ModelError
from ss4d.stages.nn.column_encoder import ColumnEncoder, ColumnEncoderArgs
from ss4d.stages.nn.gaussian_decoder import SLatGaussianDecoder, SLatGaussianDecoderArgs
from ss4d.stages.nn.image_encoders import VisionTransformer, VisionTransformerArgs
from ss4d.stages.nn.latent_encoder import SLatEncoder, SLatEncoderArgs
from ss4d.stages.nn.latent_flow import SLatFlow4DModel, SLatFlow4DModelArgs
from ss4d.stages.nn.occupancy import (
    SparseStructureDecoder,
    SparseStructureDecoderArgs,
    SparseStructureEncoder,
    SparseStructureEncoderArgs,
)
from ss4d.stages.nn.structure_flow import SparseStructureFlow4DModel, SparseStructureFlow4DModelArgs
from ss4d.stages.ops.backend import Ops
from ss4d.stages.typed_json import parse


@dataclass(frozen=True)
class NetworkType:
    """How a published class name becomes a network here."""

    args: type[Any]  # a frozen dataclass: the options it takes
    build: Callable[[Any, Ops], nn.Module]


def _without_ops(module: Callable[[Any], nn.Module]) -> Callable[[Any, Ops], nn.Module]:
    """A dense network needs no kernels but torch's own."""
    return lambda args, _: module(args)


NETWORKS: Mapping[str, NetworkType] = {
    "SparseStructureFlow4DModel": NetworkType(SparseStructureFlow4DModelArgs, SparseStructureFlow4DModel),
    "SparseStructureDecoder": NetworkType(SparseStructureDecoderArgs, _without_ops(SparseStructureDecoder)),
    "SparseStructureEncoder": NetworkType(SparseStructureEncoderArgs, _without_ops(SparseStructureEncoder)),
    "SLatFlow4DModel": NetworkType(SLatFlow4DModelArgs, SLatFlow4DModel),
    "SLatGaussianDecoder": NetworkType(SLatGaussianDecoderArgs, SLatGaussianDecoder),
    "SLatEncoder": NetworkType(SLatEncoderArgs, SLatEncoder),
    "ColumnEncoder": NetworkType(ColumnEncoderArgs, _without_ops(ColumnEncoder)),
    "VisionTransformer": NetworkType(VisionTransformerArgs, _without_ops(VisionTransformer)),
}


def network_args(name: str, options: Mapping[str, Any], *option: str) -> Any:
    """The options of a network of class `name`, which stand under the keys `option` of a description.

    Raises:
        ModelError: naming an unknown class, or an option that is missing, unknown or of another type.
    """
    if name not in NETWORKS:
        raise ModelError(f"class {name!r} is unknown; known are {', '.join(NETWORKS)}")
    return parse(options, NETWORKS[name].args, *option)


def build_network(name: str, options: Mapping[str, Any], ops: Ops) -> nn.Module:
    """A network with random weights from torch's global generator.

    Raises:
        ModelError: naming an unknown class or an option that is missing, unknown or impossible.
    """
    return NETWORKS[name].build(network_args(name, options), ops)


def save_network(path: Path, name: str, args: Any, module: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Writes `path`.json and `path`.safetensors in the published format, floating-point tensors as `dtype`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    description, weights = (path.with_name(path.name + suffix) for suffix in (".json", ".safetensors"))
    description.write_text(json.dumps({"name": name, "args": asdict(args)}, indent=1) + "\n")
    state = {key: tensor.detach().to("cpu", dtype).contiguous() for key, tensor in module.state_dict().items()}
    save_file(state, weights)
    shutil.copymode(description, weights)  # safetensors makes files for their owner alone
