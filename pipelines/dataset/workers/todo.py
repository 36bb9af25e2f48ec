"""A clip that is not finished, as a plan lists it and as a worker is given it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """A clip as a worker is given it; small, since there may be very many."""

    id: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Todo:
    """A clip that is not finished.

    Attributes:
        source: what a worker is handed.
        goal: the key of its last artifact.
        stages: that have to run, as far as is known beforehand.
    """

    source: Source
    goal: str
    stages: tuple[str, ...]
