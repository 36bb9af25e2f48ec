"""Networks by their published class names, and how one is written to a model folder (docs/model.md, section 1).

Reading a folder that others made takes strict checks: `ss4d.stages.weights` does that; `read_network` reads our own
files.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
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


def build_network(name: str, options: Mapping[str, Any], ops: Ops) -> nn.Module:
    """A network with random weights from torch's global generator; lists in `options` stand for tuples, as in JSON.

    Raises:
        ModelError: naming an unknown class or an option that is missing, unknown or impossible.
    """
    if name not in NETWORKS:
        raise ModelError(f"class {name!r} is unknown; known are {', '.join(NETWORKS)}")
    kind = NETWORKS[name]
    if unknown := sorted(options.keys() - {f.name for f in fields(kind.args)}):
        raise ModelError(f"{name} has no option {unknown[0]}")
    try:
        args = kind.args(**{key: tuple(v) if isinstance(v, list) else v for key, v in options.items()})
    except TypeError as error:  # a required option is missing
        raise ModelError(f"{name}: {error}") from error
    return kind.build(args, ops)


def save_network(path: Path, name: str, args: Any, module: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Writes `path`.json and `path`.safetensors in the published format, floating-point tensors as `dtype`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    description, weights = (path.with_name(path.name + suffix) for suffix in (".json", ".safetensors"))
    description.write_text(json.dumps({"name": name, "args": asdict(args)}, indent=1) + "\n")
    state = {key: tensor.detach().to("cpu", dtype).contiguous() for key, tensor in module.state_dict().items()}
    save_file(state, weights)
    shutil.copymode(description, weights)  # safetensors makes files for their owner alone


def read_network(path: Path, ops: Ops) -> nn.Module:
    """The network at `path`.json and `path`.safetensors, in float32 on the CPU.

    Raises:
        ModelError: naming the file, and the option or tensor at fault.
    """
    description, weights = (path.with_name(path.name + suffix) for suffix in (".json", ".safetensors"))
    try:
        content = json.loads(description.read_text())
        module = build_network(content["name"].removeprefix("Elastic"), content["args"], ops)
        module.load_state_dict({key: tensor.float() for key, tensor in load_file(weights).items()})
    except OSError as error:
        raise ModelError(f"cannot read {error.filename}: {error.strerror}") from error
    except (ModelError, json.JSONDecodeError, KeyError) as error:
        raise ModelError(f"{description}: {error}") from error
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"{weights} does not fit its description: {error}") from error
    return module
