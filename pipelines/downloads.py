"""Networks that others published and that a user may add to segmentation: what they are, and how they get here.

Nothing of them comes with the program. `ss4d download NAME` fetches one; a run only looks whether it is here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ss4d.pipelines.hub import HubFiles
from ss4d.stages.errors import ModelError
from ss4d.stages.extras import how_to_install
from ss4d.stages.model_folder import ModelFolder
from ss4d.stages.segmentation.config import BirefnetConfig, Sam2Config


@dataclass(frozen=True, kw_only=True)
class Published:
    """A network on the hub.

    Attributes:
        title: what it is, and whose.
        license: under which its makers give it.
        repository: of the hub.
        files: of that repository; the last one holds the weights.
        package: that runs it; the extra of this program that brings it has the network's name.
    """

    title: str
    license: str
    repository: str
    files: tuple[str, ...]
    package: str


PUBLISHED = {
    "birefnet": Published(
        title="BiRefNet by Peng Zheng and others, as ONNX",
        license="MIT",
        repository="onnx-community/BiRefNet-ONNX",
        files=("onnx/model.onnx",),
        package="onnxruntime",
    ),
    "sam2": Published(
        title="SAM 2.1 (Hiera, tiny) by Meta",
        license="Apache-2.0",
        repository="facebook/sam2.1-hiera-tiny",
        files=("config.json", "model.safetensors"),
        package="transformers",
    ),
}


def download(name: str, tell: Callable[[str], None]) -> Path:
    """Fetches a network into the cache of the hub's package, and returns the file of its weights.

    Before anything is fetched, `tell` is given what it is, its license and the weights' SHA-256, with which the file
    is compared.

    Raises:
        ModelError: there is no such network, the hub cannot be reached, or a file is damaged.
    """
    if name not in PUBLISHED:
        raise ModelError(f"there is no {name!r} to download; choose {' or '.join(PUBLISHED)}")
    known = PUBLISHED[name]
    files = HubFiles(known.repository, None)
    weights = known.files[-1]
    digest = files.sha256(weights)
    tell(f"{known.title}\nlicense  {known.license}\nfrom     {files.address(weights)}, commit {files.commit}")
    tell(f"sha256   {'not told by the hub' if digest is None else digest.hex()}")
    found = [files.find(file) for file in known.files]
    if None in found or found[-1] is None:
        raise ModelError(f"{known.repository} on the hub has no {' or no '.join(known.files)} any more")
    return found[-1]


def downloaded(name: str) -> Path | None:
    """The file of a network's weights, if `ss4d download` has fetched it; connects to nothing."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(PUBLISHED[name].repository, file) for file in PUBLISHED[name].files]
    return Path(str(found[-1])) if all(isinstance(file, str) for file in found) else None


def with_weights(name: str) -> Callable[[BirefnetConfig | Sam2Config, ModelFolder], BirefnetConfig | Sam2Config]:
    """What fills in where the weights of a network are, if its configuration leaves that open."""

    def resolved(config: BirefnetConfig | Sam2Config, _folder: ModelFolder) -> BirefnetConfig | Sam2Config:
        known = PUBLISHED[name]
        if find_spec(known.package) is None:
            raise ModelError(f"segmentation.method {name} needs the package {known.package}: {how_to_install(name)}")
        weights = config.weights or downloaded(name)
        if weights is None:
            raise ModelError(
                f"the weights of {name} ({known.license}) are not on this machine: `ss4d download {name}` fetches "
                "them, or segmentation.weights=FILE says where they are"
            )
        return config.model_copy(update={"weights": weights})

    return resolved
