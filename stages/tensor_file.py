"""Safetensors files whose tensors are read one at a time, so that a file and its copies are never all in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ss4d.stages.errors import ModelError
from ss4d.stages.model_folder import DINOV2_FILE, DINOV2_REPOSITORY

FLOATING = ("F", "BF")  # how the names of floating-point formats begin in a file's head


class TensorFile:
    """The head of a safetensors file, and a way to its tensors.

    Attributes:
        shapes: of the tensors, by name.
        formats: of the tensors, by name, as the file says them: "F16" or "I64".

    Raises:
        ModelError: if the file is missing, damaged, or of another format.
    """

    shapes: Mapping[str, tuple[int, ...]]
    formats: Mapping[str, str]

    def __init__(self, path: Path) -> None:
        if path.suffix in {".pth", ".pt", ".bin", ".ckpt", ".pkl"}:
            raise ModelError(
                f"{path} is a pickle, which can run any code when read: give the safetensors file of the hub instead "
                f"(for the image encoder {DINOV2_FILE} of {DINOV2_REPOSITORY})"
            )
        self.path = path
        try:
            with safe_open(path, framework="pt") as stored:
                heads = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118  no mapping
                self.shapes = {name: tuple(head.get_shape()) for name, head in heads.items()}
                self.formats = {name: head.get_dtype() for name, head in heads.items()}
        except FileNotFoundError as error:
            raise ModelError(f"{path} is missing from the model folder") from error
        except (SafetensorError, OSError) as error:
            raise self._unreadable(error) from error

    def is_floating(self, name: str) -> bool:
        """Whether the tensor of that name holds floating-point numbers."""
        return self.formats[name].startswith(FLOATING)

    def read(self, names: Sequence[str], device: torch.device, dtype: torch.dtype) -> Tensor:
        """The tensors of those names, one after the other along their first axis, as `dtype` on `device`.

        Raises:
            ModelError: if the file cannot be read any more.
        """
        # What a file maps into memory is given back when it is closed: all of it if it stayed open for all tensors.
        parts = []
        for name in names:
            try:
                with safe_open(self.path, framework="pt") as stored:
                    parts.append(stored.get_tensor(name).to(device, dtype, copy=True))
            except (SafetensorError, OSError) as error:
                raise self._unreadable(error) from error
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _unreadable(self, error: Exception) -> ModelError:
        return ModelError(f"{self.path} cannot be read as safetensors, fetch it again: {error}")
