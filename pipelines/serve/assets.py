"""What was made of submissions: how far their stages are, the page that turns an asset, and files to download."""

import threading
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

from ss4d.pipelines.inspect.add_formats import export_config
from ss4d.pipelines.inspect.asset import EXPORT, has_meshes, scene_of_run
from ss4d.pipelines.inspect.opened import OpenedRun, open_run
from ss4d.pipelines.serve.line import Position
from ss4d.pipelines.serve.submissions import Submission, delete_run
from ss4d.pipelines.view.run_view import Frames
from ss4d.stages.export.config import FORMAT_NAMES, OF_MESHES, ExportConfig, FormatName
from ss4d.stages.export.formats import write_formats
from ss4d.stages.export.packages import PACKAGES, is_there
from ss4d.stages.export.scene import Scene
from ss4d.stages.types import silent
from ss4d.storage.errors import StoreError
from ss4d.storage.files import delete, owned_name

VIDEO = "turntable.mp4"
OPEN = 4  # assets that are kept to be looked at
KEPT = 64 * 2**20  # bytes of frames of each of them


class Assets:
    """The assets of submissions.

    Args:
        out: where their runs are.
        files: the folder of downloads, a folder for each submission.
    """

    def __init__(self, out: Path, files: Path) -> None:
        self._out, self._files = out, files
        self._open: OrderedDict[str, Frames] = OrderedDict()
        self._lock = threading.Lock()

    def stages(self, submission: Submission, position: Position | None) -> list[dict[str, Any]]:
        """Its run's stages in order, with state, seconds, and what is done of how much of the one that goes on."""
        try:
            run = self._run(submission)
        except StoreError:  # it has not begun
            return []
        told = []
        for name, stage in run.stages.items():
            state = stage.record.state
            if state == "not needed":
                continue
            now = position if position is not None and position.stage == name else None
            told.append(
                {
                    "name": name,
                    "state": "running" if now and state == "to do" else state,
                    "seconds": stage.record.seconds,
                    "done": now.done if now else 0,
                    "total": now.total if now else 0,
                }
            )
        return told

    def frames(self, submission: Submission) -> Frames:
        """Its asset's frames, for a page.

        Raises:
            StoreError: the asset is gone, or damaged.
        """
        with self._lock:
            found = self._open.pop(submission.id, None)
            if found is None:
                found = Frames(self._scene(submission, ExportConfig()), KEPT)
            self._open[submission.id] = found
            while len(self._open) > OPEN:
                self._open.popitem(last=False)
            return found

    def downloads(self, submission: Submission) -> list[str]:
        """The names of what `download` gives."""
        there = self._out / "runs" / submission.id / VIDEO
        can = [name for name in FORMAT_NAMES if name not in PACKAGES or is_there(PACKAGES[name])]
        formats = [name for name in can if name not in OF_MESHES or has_meshes(self._run(submission))]
        return [*formats, *(["mp4"] if there.is_file() and not there.is_symlink() else [])]

    def download(self, submission: Submission, name: str) -> Path:
        """A file of the asset in a format, made when it is first asked for; of several files a zip.

        Args:
            submission: whose.
            name: of `downloads`.

        Raises:
            StoreError: the asset is gone, or damaged.
        """
        if name == "mp4":
            return self._out / "runs" / submission.id / VIDEO
        format_ = next(known for known in FORMAT_NAMES if known == name)
        with self._lock:
            folder = self._files / submission.id / "files" / format_
            if not folder.is_dir():
                self._write(submission, format_, folder)
            return next(folder.iterdir())

    def forget(self, submission: Submission) -> None:
        """Forgets what is kept to be looked at, and deletes its run."""
        with self._lock:
            self._open.pop(submission.id, None)
            delete_run(self._out, submission.id)

    def _write(self, submission: Submission, name: FormatName, folder: Path) -> None:
        folder.parent.mkdir(exist_ok=True)
        made = folder.parent / f".{owned_name()}"
        made.mkdir()
        try:
            config = export_config(self._run(submission).record.config.get(EXPORT), [name], None)
            files = write_formats([name], self._scene(submission, config), made, progress=silent)
            if len(files) > 1:
                with zipfile.ZipFile(made / f"{name}.zip", "w", zipfile.ZIP_STORED) as archive:
                    for file in files:
                        archive.write(made / file, file)
                        (made / file).unlink()
                for rest in [path for path in made.iterdir() if path.is_dir()]:
                    rest.rmdir()
            made.rename(folder)
        finally:
            delete(made)

    def _scene(self, submission: Submission, config: ExportConfig) -> Scene:
        """Its asset, called by its title: who is handed a file must not learn the id."""
        return replace(scene_of_run(self._run(submission), config), name=submission.title)

    def _run(self, submission: Submission) -> OpenedRun:
        return open_run(self._out / "runs" / submission.id)


def file_name(title: str, name: str, path: Path) -> str:
    """What a download is called: by the format, where the extension alone does not tell it.

    Args:
        title: of the submission.
        name: of `Assets.downloads`.
        path: of what `Assets.download` gives.
    """
    extension = ".4d.zip" if path.name.endswith(".4d.zip") else path.suffix
    return f"{Path(title).stem}{extension if name in extension else f'.{name}{extension}'}"
