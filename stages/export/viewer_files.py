"""The files of the viewer that exported pages hold; other pages draw with the same ones."""

from importlib import resources


def viewer_file(name: str) -> str:
    """The text of a file in `viewer/`."""
    return resources.files("ss4d.stages.export").joinpath("viewer", name).read_text(encoding="utf-8")
