"""A run as one HTML page that needs nothing else: gathers what its stages made and its asset, and writes the page."""

from collections.abc import Callable
from pathlib import Path

from ss4d.pipelines.inspect.asset import read_clip, read_gaussians
from ss4d.pipelines.inspect.media import Media
from ss4d.pipelines.inspect.opened import OpenedRun
from ss4d.pipelines.inspect.pictures import Pictures
from ss4d.pipelines.inspect.run_page import Content, StageContent, html_page
from ss4d.pipelines.inspect.splat_data import SplatData, pack_splats
from ss4d.pipelines.inspect.statistics import array_statistics
from ss4d.pipelines.output_file import check_output_file
from ss4d.storage.errors import StoreError
from ss4d.storage.files import write_bytes

FILM_FRAMES, FILM_SIZE = 32, 176
DEFAULT_FPS = 12.0  # where no clip says it


def write_report(run: OpenedRun, path: Path, progress: Callable[[str], None]) -> None:
    """Writes the page; it says what is missing, and shows the rest.

    Args:
        run: the run.
        path: the file to write; replaced as a whole.
        progress: told what is being drawn.

    Raises:
        ConfigError, OSError: if it cannot be written.
    """
    check_output_file(path)
    pictures, media = Pictures(run, at_most=FILM_FRAMES, size=FILM_SIZE), Media()
    stages: dict[str, StageContent | str] = {}
    for stage in run:
        progress(stage)
        try:
            stages[stage] = _content(run, stage, pictures, media)
        except StoreError as error:
            stages[stage] = str(error)
    progress("the asset")
    page = html_page(run, Content(stages, _asset(run), _fps(run)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, page.encode())


def _content(run: OpenedRun, stage: str, pictures: Pictures, media: Media) -> StageContent:
    """What a stage made; statistics stand for arrays that cannot be drawn."""
    opened = run[stage]
    strips = pictures.strips(stage)
    return StageContent(
        strips=strips,
        statistics=[] if strips else array_statistics(opened),
        files=media.files(opened),
        numbers={**opened.scalars, **opened.measures},
    )


def _asset(run: OpenedRun) -> SplatData | str:
    """The packed asset, or why there is none."""
    try:
        return pack_splats(read_gaussians(run))
    except StoreError as error:
        return str(error)


def _fps(run: OpenedRun) -> float:
    try:
        return read_clip(run).fps
    except StoreError:  # the page says so where the pictures of the stage would be
        return DEFAULT_FPS
