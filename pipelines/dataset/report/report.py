"""The report of a dataset as an HTML page: draws missing pictures and writes the page."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ss4d.pipelines.dataset.checks import check_at_least
from ss4d.pipelines.dataset.opened import OpenedDataset
from ss4d.pipelines.dataset.report.pictures import draw_pictures, picture_of
from ss4d.pipelines.dataset.report.sheet import read_sheet
from ss4d.pipelines.dataset.report.sheet_page import Gallery, html_sheet
from ss4d.pipelines.output_file import check_output_file
from ss4d.stages.types import Progress
from ss4d.storage.files import link_or_copy, write_bytes

EMBEDDED = 16 << 20  # bytes of pictures embedded in a page; many more take a browser seconds to open


@dataclass(frozen=True, kw_only=True)
class Report:
    """The files that were written.

    Attributes:
        path: of the page.
        bytes: of the page.
        clips: number of clips on the page.
        pictures: number of pictures on the page.
        folder: of the pictures, if they are not embedded in the page.
        folder_bytes: of the pictures there.
        problems: number of pictures that cannot be drawn; the page says why.
    """

    path: Path
    bytes: int
    clips: int
    pictures: int
    folder: Path | None
    folder_bytes: int
    problems: int


def write_report(
    opened: OpenedDataset,
    path: Path,
    *,
    where: str | None = None,
    workers: int | None = None,
    embedded: int = EMBEDDED,
    progress: Progress,
) -> Report:
    """Writes the page, including clips that are not finished.

    Pictures are embedded in the page up to a total of `embedded` bytes. If there are more, they go into a folder beside
    the page, named like it and to be kept with it: the browser then loads those in sight.

    Args:
        opened: the dataset, for a configuration.
        path: of the page; replaced as a whole.
        where: an SQL expression that selects the clips; None for all.
        workers: processes that draw; None for one per CPU core.
        embedded: bytes of pictures that may be embedded in the page.
        progress: called after the pictures that are drawn.

    Raises:
        ConfigError: if `where` is not valid, there can be no such number of workers, or `path` is no file.
        StoreError, WorkerError, OSError: something cannot be read, drawn or written.
    """
    if workers is not None:
        check_at_least("--workers", workers, 1)
    check_output_file(path)
    sheet = read_sheet(opened, where)
    drawn = opened.dataset.pictures
    pictures = [picture_of(card) for card in sheet.cards]
    some = [picture for picture in pictures if picture is not None]
    problems = draw_pictures(some, opened.dataset.location(), drawn, workers=workers, progress=progress)
    sizes = {picture.name: (drawn / picture.name).stat().st_size for picture in some if picture.name not in problems}
    folder = None if sum(sizes.values()) <= embedded else path.with_name(f"{path.stem}-pictures")
    gallery = Gallery(
        names=[None if picture is None else picture.name for picture in pictures],
        of_asset=[picture is not None and picture.of_asset for picture in pictures],
        problems=problems,
        embedded={name: (drawn / name).read_bytes() for name in sizes} if folder is None else {},
        folder=None if folder is None else folder.name,
    )
    page = html_sheet(sheet, gallery, path.absolute().parent).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    if folder is not None:
        _lay_out(sizes, drawn, folder)
    write_bytes(path, page)
    return Report(
        path=path,
        bytes=len(page),
        clips=len(sheet.cards),
        pictures=len(sizes),
        folder=folder,
        folder_bytes=0 if folder is None else sum(sizes.values()),
        problems=len(problems),
    )


def _lay_out(names: Iterable[str], drawn: Path, folder: Path) -> None:
    """Puts the pictures into the page's folder, as links where possible; it may be the folder they are in."""
    if folder.absolute() == drawn:
        return
    for name in names:
        if not (folder / name).is_file():
            link_or_copy(drawn / name, folder / name)
