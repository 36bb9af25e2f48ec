"""The files that a run's goals gave, under their names in the run's folder."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ss4d.pipelines.errors import PluginError
from ss4d.storage.errors import DamageError, StoreError
from ss4d.storage.files import copy_file, is_copy, leads_out
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import ArtifactStore

AT_THE_TOP = "export"  # its files lie in the run's folder itself, those of another stage in a folder of that name


def result_files(store: ArtifactStore, goals: Sequence[ArtifactRef]) -> dict[str, Path]:
    """Where the files of the goals lie, by the names that they have in a folder of results; none of a stage of arrays.

    Raises:
        StoreError: if a goal is not stored, or damaged.
        PluginError: if two goals give files of one name.
    """
    found: dict[str, Path] = {}
    for goal in goals:
        for name, path in store.open(goal).files().items():
            result = result_name(goal.stage, name)
            if result in found:
                raise PluginError(f"two goals of this run give the file {result}: ask for one of them")
            found[result] = path
    return found


def result_name(stage: str, file: str) -> str:
    """The name in a folder of results that a stage's file has."""
    return file if stage == AT_THE_TOP else f"{stage}/{file}"


def lay_out(
    store: ArtifactStore,
    goals: Sequence[ArtifactRef],
    folder: Path,
    *,
    earlier: Sequence[str],
    kept: Collection[str],
    note: Callable[[list[str]], None],
) -> list[str]:
    """Puts the files of the goals into `folder` and removes what an earlier run left; gives the names of what is there.

    Args:
        store: holds the goals.
        goals: artifacts; those that are not stored are passed over.
        folder: of the run.
        earlier: names of files that the run before left there.
        kept: which of them stay, whatever the goals give.
        note: told the names of all files that may be there, before any is: if this process is killed, the next one
            knows what it may have left.

    Raises:
        StoreError: a goal is damaged.
        PluginError: two goals give files of one name.
        OSError: the folder cannot be written.
    """
    stored = [goal for goal in goals if store.contains(goal)]
    try:
        return _lay_out(store, stored, folder, earlier, kept, note)
    except (DamageError, FileNotFoundError):  # or replaced by another run while it was read
        return _lay_out(store, stored, folder, earlier, kept, note)


def _lay_out(
    store: ArtifactStore,
    goals: Sequence[ArtifactRef],
    folder: Path,
    earlier: Sequence[str],
    kept: Collection[str],
    note: Callable[[list[str]], None],
) -> list[str]:
    files = result_files(store, goals)
    note(sorted({*earlier, *files}))
    for name in set(earlier) - set(files) - set(kept):
        if not leads_out(folder, name):  # a record is a file: it is not trusted
            (folder / name).unlink(missing_ok=True)
            _remove_empty((folder / name).parent, folder)
    for name, path in files.items():
        if leads_out(folder, name):
            raise StoreError(f"{folder / name} would lie somewhere else, through a link on the way: remove that link")
        if not is_copy(path, folder / name):
            copy_file(path, folder / name)
    return sorted({*files, *kept})


def _remove_empty(path: Path, top: Path) -> None:
    """Removes a folder below `top`, and those that it is in, as far as nothing is left in them; links stay."""
    while path != top and path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        path.rmdir()
        path = path.parent
