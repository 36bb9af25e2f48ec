"""What the store asks of the place where artifacts lie: a folder, an object store or an archive."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from zarr.abc.store import Store

from ss4d.storage.refs import ArtifactRef

ROOT = "zarr.json"  # what Zarr calls the description of a group or an array
FILES = "files"  # the folder of plain files in an artifact


class Parts(Protocol):
    """The files of one artifact, by names such as "feats/zarr.json", whatever its state."""

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes of each file, by name and in order of names; of those below `folder` only, if given."""

    def read(self, name: str) -> bytes:
        """A whole file.

        Raises:
            DamageError: if it is missing, or is a link, or would lie outside the artifact.
        """

    def array(self, name: str) -> tuple[Store, str]:
        """A store of Zarr's, and the path in it, that hold an array. Raises DamageError as `read` does."""

    def fetch(self, digests: Mapping[str, str]) -> dict[str, Path]:
        """Local copies, or the files themselves, of files given with their SHA-256. Raises DamageError as `read` does.

        Copies are checked; they stay as long as the process.
        """


class Place(Protocol):
    """Holds artifacts by reference; decides how one becomes visible at once."""

    @property
    def location(self) -> str:
        """Where it is: a path or a URL."""

    def parts(self, ref: ArtifactRef) -> Parts | None:
        """The files of an artifact; None if nothing lies in its place.

        Raises:
            DamageError: if what lies there does not lead to files.
        """

    def refs(self) -> Iterator[ArtifactRef]:
        """Every artifact that has a place, in order of stage and key, whatever its state."""

    def unexpected(self) -> list[str]:
        """Names of files and folders that lie where only artifacts belong."""

    def modified(self, ref: ArtifactRef, /) -> float:
        """When the artifact was put in its place, in seconds since 1970; raises FileNotFoundError if it is gone."""

    def now(self) -> float:
        """The time by the clock that `modified` goes by, which may be another host's."""

    def staging(self) -> Path:
        """A new name for a local folder to make an artifact in.

        Raises:
            StoreError: if artifacts here can only be read.
        """

    def publish(self, ref: ArtifactRef, folder: Path, keep: Callable[[], bool], /) -> None:
        """Puts a finished folder in its place; if one lies there and `keep` says so, drops the new one."""

    def remove(self, ref: ArtifactRef, /) -> None:
        """Deletes an artifact at once, whatever its state; does nothing if it is not there."""

    def note(self, name: str, text: str | None, /) -> None:
        """Keeps a short text beside the artifacts under a name such as "missed/slat/ab12"; None deletes it."""

    def text_of(self, name: str, /) -> str | None:
        """The note of that name; None if there is none."""

    def noted(self, name: str, /) -> bool:
        """Whether there is a note of that name."""

    def notes(self, folder: str, /) -> dict[str, str]:
        """The notes below a folder such as "missed", by the rest of their names."""

    def sweep(self) -> None:
        """Tidies up after dead processes of this host."""

    def abandoned(self, age: float, /) -> dict[str, int]:
        """Bytes of each unfinished artifact, by name, that no process of any host has changed for `age` seconds."""

    def discard(self, name: str, /) -> None:
        """Deletes what `abandoned` named."""
