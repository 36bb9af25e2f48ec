"""HTML pages that load nothing from elsewhere: one script, whose hash is all that the page's policy lets run."""

import base64
import hashlib
import json
from collections.abc import Mapping
from string import Template


def content_policy(script: str, *, images: str, connections: str, frames: str = "'none'") -> str:
    """A content security policy: what a page may load and run, its one script and nothing from elsewhere.

    Args:
        script: its script.
        images: where its pictures may come from, such as "data:".
        connections: what its script may ask for: "'none'", or "'self'" for what comes from where the page came from.
        frames: which pages it may show within it.
    """
    rules = {
        "default-src": "'none'",
        "img-src": images,
        "connect-src": connections,
        "frame-src": frames,
        "style-src": "'unsafe-inline'",
        "script-src": f"'{_hash_of(script)}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def filled_page(template: str, parts: Mapping[str, object], *, style: str, script: str) -> str:
    """A template with everything in its place.

    No text of the data could run even if it were not escaped: the template's content security policy names the script
    by its hash, `$script_hash`.

    Args:
        template: HTML with names to fill in, among them `$style`, `$script` and `$script_hash`.
        parts: HTML by the other names; texts in it must be escaped.
        style: the rules of the page.
        script: its one script.
    """
    return Template(template).substitute(parts, style=style, script=script, script_hash=_hash_of(script))


def _hash_of(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def json_element(data: object) -> str:
    """JSON that cannot end the element it stands in."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")
