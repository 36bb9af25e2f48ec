"""What the HTML pages share: templates, styles and scripts from `viewer/`, and safe ways to put data into them."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources

from ss4d.stages.export.viewer_files import viewer_file
from ss4d.stages.html_page import filled_page

EXPORTED = ("splats.js", "orbit.js")  # the scripts that an exported page has, too: one renderer, one way to turn it


def fill(
    template: str,
    parts: Mapping[str, object],
    *,
    styles: Sequence[str],
    scripts: Sequence[str],
    extra_style: str = "",
) -> str:
    """A template of `viewer/` with everything in its place.

    Args:
        template: its file's name.
        parts: HTML by the names in the template; texts in it must be escaped.
        styles: names of style files, in order.
        scripts: names of script files, in order; they become one script.
        extra_style: rules that follow those of the files.
    """
    return filled_page(
        page_file(template),
        parts,
        style="".join(map(page_file, styles)) + extra_style,
        script="".join(map(page_file, scripts)),
    )


def empty(text: str) -> str:
    """A paragraph that says why there is nothing here."""
    return f'<p class="empty">{escape(text)}</p>'


def deflated(data: bytes) -> str:
    """Base64 of deflated bytes; `inflated` in `viewer/common.js` gives them back."""
    return base64.b64encode(zlib.compress(data, 6)).decode()


def data_url(data: bytes, media_type: str) -> str:
    """A picture or video that stands in the page itself; `media_type` such as "image/webp"."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def page_file(name: str) -> str:
    """The text of a file in `viewer/`, or of one that exported pages have, too."""
    if name in EXPORTED:
        return viewer_file(name)
    return resources.files("ss4d.pipelines.inspect").joinpath("viewer", name).read_text(encoding="utf-8")
