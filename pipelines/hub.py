"""Where a model lies: bundled with the program, in a folder, or on the Hugging Face hub. Only here is downloaded."""

from importlib import resources
from pathlib import Path

from ss4d.stages.errors import ModelError

HUB, BUNDLED = "hub:", "bundled:"
FOLDER_FILES = ["pipeline.json", "NOTICE.md", "ckpts/*.json", "ckpts/*.safetensors"]


def model_path(location: str) -> Path:
    """The folder of the model at `location` ("bundled:NAME", "hub:ORG/NAME" or a path), downloaded first if need be.

    Raises:
        ModelError: it is not there, or cannot be downloaded.
    """
    if location.startswith(HUB):
        return _snapshot(location.removeprefix(HUB), FOLDER_FILES)
    if location.startswith(BUNDLED):
        models = Path(str(resources.files("ss4d.configs"))) / "models"
        name = location.removeprefix(BUNDLED)
        known = sorted(path.name for path in models.iterdir() if path.is_dir())
        if name not in known:
            raise ModelError(f"no bundled model is called {name!r}; there is {', '.join(known)}")
        return models / name
    if not Path(location).is_dir():
        raise ModelError(
            f"there is no model folder {Path(location).absolute()}; give a folder, bundled:NAME or hub:ORG/NAME"
        )
    return Path(location)


def weights_path(location: str, file: str) -> Path:
    """The weights at `location`: a file of the hub repository "hub:ORG/NAME", or a path on this machine."""
    return hub_file(location.removeprefix(HUB), file) if location.startswith(HUB) else Path(location)


def hub_file(repository: str, file: str) -> Path:
    """One file of a hub repository, from the local cache or downloaded.

    Raises:
        ModelError: it is neither cached nor to be had.
    """
    path = _snapshot(repository, [file]) / file
    if not path.is_file():
        raise ModelError(f"the hub repository {repository} has no file {file}, or it is not in the local cache")
    return path


def _snapshot(repository: str, patterns: list[str]) -> Path:
    # Imported only here: that takes a tenth of the start of every command and worker, and most need no hub.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except HFValidationError as error:
        raise ModelError(f"{repository!r} is not the name of a hub repository; write hub:ORG/NAME") from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"the weights of {repository} are not on this machine and the hub cannot be reached: connect to a network "
            "once, or copy them from elsewhere and give --set model=PATH (image encoder: --set image_encoder=FILE)"
        ) from error
    except HfHubHTTPError as error:
        raise ModelError(f"the hub refuses {repository}: {str(error).splitlines()[0]}") from error
