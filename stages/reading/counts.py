"""Which frames of an input there are, told without decoding any; needs no torch, so that no refusal waits for it."""

from collections.abc import Sequence
from pathlib import Path

from ss4d.stages.errors import InputError
from ss4d.stages.input_files import InputConfig
from ss4d.stages.reading.sources import FrameSource, opened_source


def num_frames(path: Path) -> int:
    """How many frames an input has that `read_video` could choose from; decodes none, so damage may stay unseen.

    Raises:
        InputError: the input is missing, unreadable or of no known kind.
    """
    with opened_source(path, InputConfig()) as source:
        if source.damage:
            raise InputError(source.damage)
        return source.line.count


def num_chosen(path: Path, config: InputConfig) -> int:
    """How many frames of an input `read_video` would give; decodes none.

    Raises:
        InputError: the input is missing, unreadable or of no known kind, or damaged within the chosen frames, or none
            is chosen.
    """
    with opened_source(path, config) as source:
        return len(chosen_frames(path, source, config))


def chosen_frames(path: Path, source: FrameSource, config: InputConfig) -> Sequence[int]:
    """The frames of an open input that `config` chooses, by number.

    Raises:
        InputError: there is none, or the input is damaged within them.
    """
    count, rate = source.line.count, source.line.rate
    chosen = config.indices(count, rate)
    spread = len(chosen) < len(config.candidates(count, rate))
    if source.damage and (spread or not chosen or chosen[-1] == count - 1):
        raise InputError(source.damage)
    if not chosen:
        raise _no_frame(path, count, config)
    return chosen


def _no_frame(path: Path, total: int, config: InputConfig) -> InputError:
    if not total:
        return InputError(f"{path} holds no frame; give a video with at least one.")
    if config.end is None:
        return InputError(
            f"{path} has {total} frames, so input.start cannot be {config.start}; choose at most {total - 1}."
        )
    return InputError(
        f"{path} has {total} frames, of which none lies from input.start {config.start} up to input.end {config.end}; "
        "choose an earlier start or a later end."
    )
