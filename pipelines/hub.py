"""Where a model's files are: bundled with the program, in a folder, or on the Hugging Face hub.

Only here is downloaded: the files that are asked for, one by one. The cache, tokens, mirrors and HF_HUB_OFFLINE are
those of the `huggingface_hub` package.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath

from ss4d.pipelines.file_digests import kept_sha256
from ss4d.stages.errors import ModelError
from ss4d.stages.model_folder import Files, LocalFiles

# `huggingface_hub` is imported where it is used: that takes a tenth of the start of every command and worker, and most
# need no hub.

HUB, BUNDLED = "hub:", "bundled:"
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")  # the hub's name for a large file; small ones have git's, which are shorter


class Hub:
    """The repositories of the hub, each at one commit for as long as this object lives.

    Args:
        revisions: the commit, branch or tag to take, by repository; of others the newest commit.
    """

    def __init__(self, revisions: Mapping[str, str] | None = None) -> None:
        self._revisions = dict(revisions or {})
        self._opened: dict[str, HubFiles] = {}

    def repository(self, name: str) -> "HubFiles":
        """The files of the repository "org/name"."""
        if name not in self._opened:
            self._opened[name] = HubFiles(name, self._revisions.get(name))
        return self._opened[name]

    def model(self, location: str) -> Files:
        """The files of the model at `location`: "bundled:NAME", "hub:ORG/NAME" or a folder.

        Raises:
            ModelError: there is none.
        """
        if location.startswith(HUB):
            return self.repository(location.removeprefix(HUB))
        return LocalFiles(model_path(location), kept_sha256)

    def weights(self, location: str) -> Files:
        """The files at `location`: of the hub repository "hub:ORG/NAME", or whatever the name, of a file here."""
        return self.repository(location.removeprefix(HUB)) if location.startswith(HUB) else _OneFile(Path(location))

    @property
    def commits(self) -> dict[str, str]:
        """The commits of the repositories that were asked so far, by name."""
        return {name: files.commit for name, files in self._opened.items() if files.commit is not None}


def model_path(location: str) -> Path:
    """The folder of the model at `location` on this machine: "bundled:NAME" or a path.

    Raises:
        ModelError: there is none.
    """
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


@dataclass(frozen=True)
class _OneFile:
    """A file that stands for whatever is asked for."""

    file: Path

    def find(self, _name: str, /) -> Path | None:
        return self.file

    def sha256(self, _name: str, /) -> bytes | None:
        return kept_sha256(self.file)

    def address(self, _name: str, /) -> str:
        return str(self.file)


class HubFiles:
    """The files of a hub repository at one commit, from the cache or downloaded when they are asked for.

    Args:
        repository: its name, "org/name".
        revision: a commit, branch or tag; None for the newest commit of the main branch.

    Attributes:
        commit: that the files are of; None until the first is asked for.
    """

    def __init__(self, repository: str, revision: str | None) -> None:
        self._repository, self._revision = repository, revision
        self.commit = revision if revision and COMMIT.fullmatch(revision) else None
        self._verified: set[Path] = set()

    def find(self, name: str) -> Path | None:
        """See `Files`. A large file is compared with the digest that the hub gave for it."""
        known, path = self._cached(name)
        if not known:
            # By the name of the branch, so that the cache learns which commit it is at, for times without network.
            path = self._download(name, self._revision)
            commit = None if path is None else path.parents[len(PurePosixPath(name).parts) - 1].name
            self.commit = self.commit or commit
            if commit != self.commit:  # the branch has moved since the file before
                path = self._download(name, self.commit)
        if path is not None and path not in self._verified:
            _verify(path)
            self._verified.add(path)
        return path

    def sha256(self, name: str) -> bytes | None:
        """See `Files`. The hub tells that of a large file which is not here."""
        known, _ = self._cached(name)
        if not known and (told := self._told(name)) is not None:
            return told
        path = self.find(name)
        return None if path is None else kept_sha256(path)

    def address(self, name: str) -> str:
        """See `Files`."""
        return f"{HUB}{self._repository}/{name}"

    def _cached(self, name: str) -> tuple[bool, Path | None]:
        """Whether it is known here if there is such a file, and where it is."""
        from huggingface_hub import try_to_load_from_cache

        if self.commit is None:
            return False, None
        with self._explained(name):
            found = try_to_load_from_cache(self._repository, name, revision=self.commit)
        return found is not None, Path(found) if isinstance(found, str) else None

    def _download(self, name: str, revision: str | None) -> Path | None:
        """A file; None if there is none of that name."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import RemoteEntryNotFoundError

        with self._explained(name):
            try:
                return Path(hf_hub_download(self._repository, name, revision=revision))
            except RemoteEntryNotFoundError:
                return None

    def _told(self, name: str) -> bytes | None:
        """The digest that the hub gives for a file that is not here; None if it gives none or has no such file."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import RemoteEntryNotFoundError

        with self._explained(name):
            try:
                # Asked first, since it tells in its own words what is wrong with network, name or permission.
                found = hf_hub_download(self._repository, name, revision=self.commit or self._revision, dry_run=True)
            except RemoteEntryNotFoundError:
                return None
            self.commit = found.commit_hash
            if found.is_cached:
                return None
            told = get_hf_file_metadata(hf_hub_url(self._repository, name, revision=self.commit)).etag
        return bytes.fromhex(told) if told is not None and SHA256.fullmatch(told) else None

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Turns what the hub's package raises into a sentence."""
        from huggingface_hub import constants, errors

        try:
            yield
        except errors.HFValidationError as error:
            raise ModelError(
                f"{self._repository!r} is not the name of a hub repository; write {HUB}ORG/NAME"
            ) from error
        except errors.GatedRepoError as error:
            raise ModelError(
                f"the hub gives {self._repository} only to those who accepted its terms: do so on its page, then log "
                "in with `hf auth login` or set HF_TOKEN"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise ModelError(
                f"the hub has no repository {self._repository}, or it is private: check the name, and log in with "
                "`hf auth login` or set HF_TOKEN if it is yours"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise ModelError(
                f"the hub repository {self._repository} has no revision {self._revision}: choose another one with "
                f"--set 'revisions={{{self._repository}: main}}'"
            ) from error
        except errors.LocalEntryNotFoundError as error:
            reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
            raise ModelError(
                f"{self.address(name)} is not on this machine and {reason}: connect to a network "
                "once, or copy the files from elsewhere and give --set model=PATH (image encoder: --set "
                "image_encoder=FILE)"
            ) from error
        except errors.HfHubHTTPError as error:
            raise ModelError(f"the hub refuses {self._repository}: {str(error).splitlines()[0]}") from error
        # Of the HTTP client, whichever it is, and of the package that downloads large files in pieces.
        except (errors.HTTPError, OSError, RuntimeError) as error:  # type: ignore[attr-defined]
            if isinstance(error, OSError) and error.errno is not None:  # the system's, such as a full disk
                raise
            raise ModelError(
                f"{self.address(name)} could not be downloaded whole: {str(error).splitlines()[0]}"
            ) from error


def _verify(file: Path) -> None:
    """Refuses a file of the cache that is not what the hub gave a digest for."""
    told = file.readlink().name if file.is_symlink() else ""
    if SHA256.fullmatch(told) and kept_sha256(file) != bytes.fromhex(told):
        raise ModelError(f"{file} is damaged: delete {file.resolve()}, and it is fetched again")
