"""What the HTML pages share: templates, styles and scripts from `viewer/`, and safe ways to put data into them.

A page loads nothing from elsewhere: its content security policy allows what is in the page itself, and only the
script whose hash it gives, so that no text of the data could run even if it were not escaped.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from string import Template


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
    script = "".join(map(_file, scripts))
    return Template(_file(template)).substitute(
        parts,
        style="".join(map(_file, styles)) + extra_style,
        script=script,
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    )


def empty(text: str) -> str:
    """A paragraph that says why there is nothing here."""
    return f'<p class="empty">{escape(text)}</p>'


def json_element(data: object) -> str:
    """JSON that cannot end the element it stands in."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def deflated(data: bytes) -> str:
    """Base64 of deflated bytes; `inflated` in `viewer/common.js` gives them back."""
    return base64.b64encode(zlib.compress(data, 6)).decode()


def data_url(data: bytes, media_type: str) -> str:
    """A picture or video that stands in the page itself; `media_type` such as "image/webp"."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _file(name: str) -> str:
    return resources.files("ss4d.pipelines.inspect").joinpath("viewer", name).read_text(encoding="utf-8")
