"""The result of a shard for an engine's page: a summary in Markdown, and a picture of a few assets."""

import base64
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from ss4d.pipelines.dataset.cluster.shard import ShardEnd
from ss4d.pipelines.dataset.events import Attempt, read_events
from ss4d.pipelines.dataset.failures import Group, groups
from ss4d.pipelines.dataset.layout import Dataset
from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig
from ss4d.stages.video_io import read_video
from ss4d.storage.errors import StoreError
from ss4d.storage.refs import ArtifactRef
from ss4d.storage.store import folder_of, open_store

SLOWEST = 5  # clips listed
SHOWN, SIDE, QUALITY = 8, 128, 80  # assets in the picture, pixels of a side, JPEG's quality
TURNTABLE = "turntable.mp4"


def attempts_of(dataset: Dataset, ended: ShardEnd) -> list[Attempt]:
    """The attempts at the shard's current artifacts, including those of an earlier run that was lost."""
    if ended.result is None:
        return []
    plan = ended.result.plan
    keys = {key for column in plan.keys.values() for key in column}
    batches = read_events(dataset.events, {}, set(plan.known))
    return [attempt for batch in batches for attempt in batch.attempts if attempt.clip and attempt.key in keys]


def summary(dataset: Dataset, shard: str, ended: ShardEnd, attempts: Sequence[Attempt]) -> str:
    """Counts, seconds of each stage, slowest clips, failures by cause, and links to more, in Markdown."""
    parts = [f"# {_text(dataset.folder.name)}, shard {shard}", f"{_text(ended.message)}.", _counts(ended)]
    parts += [_stages(dataset, attempts), _slowest(dataset, attempts), _failures(dataset, attempts)]
    places = {
        "Catalog": dataset.catalog,
        "Logs of the clips": dataset.logs,
        "Metrics": dataset.metrics_of(shard),
    }
    parts.append("\n".join(f"- {name}: {_link(path)}" for name, path in places.items()))
    return "\n\n".join(part for part in parts if part) + "\n"


def preview(dataset: Dataset, attempts: Sequence[Attempt]) -> str | None:
    """The first frames of a few turntables side by side, as a `data:` URL; None if there is no turntable."""
    made = [attempt for attempt in _made(attempts) if attempt.stage == "export"]
    frames = [frame for attempt in made[:SHOWN] if (frame := _first_frame(dataset, attempt)) is not None]
    if not frames:
        return None
    sheet = Image.new("RGB", (SIDE * len(frames), SIDE))
    for number, frame in enumerate(frames):
        sheet.paste(frame, (SIDE * number, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _first_frame(dataset: Dataset, made: Attempt) -> Image.Image | None:
    """None if the artifact has no turntable, or has been deleted."""
    try:
        path = open_store(dataset.location()).open(ArtifactRef(made.stage, made.key)).file(TURNTABLE)
        video = read_video(path, InputConfig(count=1))
    except (StoreError, InputError):
        return None
    return Image.fromarray(video.frames[0, :, :, :3].numpy()).resize((SIDE, SIDE))


def _counts(ended: ShardEnd) -> str:
    if ended.result is None:
        return ""
    plan, ending = ended.result.plan, ended.result.ending
    done, failed = (ending.snapshot.done, ending.snapshot.num_failed) if ending else (0, 0)
    finished, given_up = plan.finished + done, plan.given_up.total()
    rows = [("clips", plan.clips), ("finished", finished), ("by this run", done), ("failed", failed)]
    rows += [("not run again after earlier failures", given_up), ("unreadable", plan.unreadable)]
    return _table(("", "clips"), [(name, str(count)) for name, count in rows])


def _made(attempts: Sequence[Attempt]) -> Iterable[Attempt]:
    """The successful attempt at each clip and stage; a reused artifact counts, too."""
    return {
        (attempt.clip, attempt.stage): attempt for attempt in attempts if attempt.state in ("done", "reused")
    }.values()


def _stages(dataset: Dataset, attempts: Sequence[Attempt]) -> str:
    seconds: dict[str, list[float]] = defaultdict(list)
    for attempt in _made(attempts):
        seconds[attempt.stage].append(attempt.seconds)
    rows = [
        (_link(f"{dataset.store}/{name}", name), str(len(took)), f"{sum(took) / len(took):.2f}", f"{max(took):.2f}")
        for name, took in seconds.items()
    ]
    return "## Stages\n\n" + _table(("stage", "made", "seconds each", "longest"), rows) if rows else ""


def _slowest(dataset: Dataset, attempts: Sequence[Attempt]) -> str:
    seconds: Counter[str] = Counter()
    for attempt in _made(attempts):
        seconds[attempt.clip] += attempt.seconds  # type: ignore[assignment]  # of floats, too
    rows = [(_link(dataset.log(clip), clip), f"{spent:.2f}") for clip, spent in seconds.most_common(SLOWEST)]
    return "## Slowest clips\n\n" + _table(("clip", "seconds"), rows) if rows else ""


def _failures(dataset: Dataset, attempts: Sequence[Attempt]) -> str:
    """All failures, including those whose retry succeeded, since they took time as well."""
    found = groups([], [attempt for attempt in attempts if attempt.state == "failed"])
    rows = [
        (group.cause, _text(group.error), group.stage or "-", str(len(set(group.clips))), _example(dataset, group))
        for group in found
    ]
    return "## Failures\n\n" + _table(("cause", "error", "stage", "clips", "such as"), rows) if rows else ""


def _example(dataset: Dataset, group: Group) -> str:
    return f"{_link(dataset.log(group.clips[0]), group.clips[0])}: {_text(group.message)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _link(place: Path | str, text: str | None = None) -> str:
    """A link to a file, a folder or a URL; browsers follow the first two only from pages that are files."""
    path = folder_of(str(place))
    url = str(place) if path is None else path.as_uri()
    return f"[{_text(text or str(place))}]({url})"


def _text(text: str) -> str:
    """The text on one line, with Markdown's special characters escaped."""
    escaped = "".join(f"\\{c}" if c in r"\`*_[]<>|#" else c for c in text)
    return " ".join(escaped.split())
