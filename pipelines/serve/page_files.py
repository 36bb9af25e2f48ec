"""The page of the web application; `page/` holds its template, style and script."""

from importlib import resources

from ss4d.pipelines.inspect.html import page_file
from ss4d.stages.html_page import content_policy, filled_page, json_element


def app_page(most_bytes: int, most_seconds: float) -> str:
    """The page, which says how large and how long a video may be."""
    script = page_file("common.js") + _file("app.js")
    parts = {
        "policy": content_policy(script, images="'self' data:", connections="'self'", frames="'self'"),
        "limits": f"at most {most_bytes / 2**20:g} MB and {most_seconds:g} seconds",
        "data": json_element({"most_bytes": most_bytes}),
    }
    return filled_page(_file("app.html"), parts, style=page_file("base.css") + _file("app.css"), script=script)


def _file(name: str) -> str:
    return resources.files("ss4d.pipelines.serve").joinpath("page", name).read_text(encoding="utf-8")
