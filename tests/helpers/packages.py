"""Packages of stages that are made where a test or a benchmark wants them, without an installer."""

from collections.abc import Mapping
from pathlib import Path

from ss4d.pipelines.registry import GROUP


def install_stages(site: Path, name: str, stages: Mapping[str, str]) -> None:
    """Makes stages known to every process that has the folder `site` on its path.

    Args:
        site: made if missing.
        name: of the package.
        stages: where each implementation is, as "module:NAME", by STAGE.METHOD.
    """
    info = site / f"{name.replace('-', '_')}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    lines = "".join(f"{stage} = {place}\n" for stage, place in stages.items())
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
