"""What follows from a failure, as pure functions: its cause, whether to try again, and when to give up."""

import errno
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ss4d.pipelines.dataset.checks import check_at_least
from ss4d.pipelines.dataset.events import Attempt, Cause
from ss4d.pipelines.engines import TRANSIENT
from ss4d.pipelines.errors import FULL, READ_ONLY, ConfigError, is_out_of_memory
from ss4d.stages.errors import InputError, NumbersError
from ss4d.storage.errors import DamageError, UnreachableError

LEAST_FINISHED = 20  # clips, before the share of failures counts
LONGEST_WAIT = 60.0  # seconds between two attempts
# Errors of a network or of a full or locked disk, which can be gone at the next attempt.
PASSING = TRANSIENT | FULL | READ_ONLY | {errno.ENETDOWN, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.EPIPE}
LASTING: Sequence[Cause] = ("input", "numbers", "program")  # another try would come to the same
FAULTS: Mapping[Cause, str] = {
    "input": "the clips cannot be used",
    "transient": "disk or network do not answer",
    "killed": "they take too long, too much memory, or end their worker",
    "numbers": "stages gave what is not a number, or Gaussians of no size: weights or precision are at fault",
    "program": "the program or its configuration is at fault",
}


def cause_of(error: BaseException) -> Cause:
    """The cause of an exception: bad input, something transient, too little memory, no numbers, or the program."""
    if isinstance(error, InputError):
        return "input"
    if isinstance(error, (UnreachableError, DamageError, TimeoutError)):
        return "transient"
    if isinstance(error, OSError):
        return "transient" if error.errno in PASSING else "program"
    if is_out_of_memory(error):
        return "killed"
    if isinstance(error, NumbersError):
        return "numbers"
    return "program"


@dataclass(frozen=True, kw_only=True)
class History:
    """What earlier runs recorded of the clips, without failures that were cleared.

    Attributes:
        failures: for each clip, the number of failures at the keys it has now, by cause; without transient ones.
        attempts: the number of failed attempts, by key.
    """

    failures: Mapping[str, Mapping[Cause, int]] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How failures are dealt with.

    Args:
        retries: how often a clip is tried again in one run after transient failures.
        wait: seconds before the first retry; each further one waits twice as long.
        deaths: so many times a clip may end its worker, or have it killed, before it is given up.
        max_failure_ratio: the share of clips that may fail before the run stops.

    Raises:
        ConfigError: naming the option that is out of range.
    """

    retries: int = 3
    wait: float = 1.0
    deaths: int = 2
    max_failure_ratio: float = 0.5

    def __post_init__(self) -> None:
        check_at_least("--retries", self.retries, 0)
        if not 0 <= self.max_failure_ratio <= 1:
            raise ConfigError(f"--max-failure-ratio must lie between 0 and 1; got {self.max_failure_ratio}")

    def pause(self, cause: Cause, times: int) -> float | None:
        """Seconds before a clip that failed `times` times for `cause` is tried again; None if it is not."""
        if cause == "transient" and times <= self.retries:
            return min(self.wait * 2.0 ** (times - 1), LONGEST_WAIT)
        if cause == "killed" and times < self.deaths:
            return 0.0
        return None

    def given_up(self, failures: Mapping[Cause, int]) -> bool:
        """Whether a clip with these failures in earlier runs is not run again until `ss4d dataset retry`.

        Transient failures do not count: their reason may be gone by now.
        """
        return any(map(failures.get, LASTING)) or failures.get("killed", 0) >= self.deaths


def too_many(policy: Policy, finished: int, failed: Counter[Cause], last: Attempt | None) -> str | None:
    """A sentence if too many clips failed; None if not.

    Args:
        policy: says what share may fail.
        finished: number of clips that have ended in this run, done or failed.
        failed: of these, by cause.
        last: the last failed attempt.
    """
    share = failed.total() / finished if finished else 0.0
    if share <= policy.max_failure_ratio or last is None:
        return None
    cause, count = failed.most_common(1)[0]
    return (
        f"{failed.total()} of {finished} clips failed ({share:.0%}, --max-failure-ratio allows "
        f"{policy.max_failure_ratio:.0%}), {count} of them because {FAULTS[cause]}; the last one was {last.clip}: "
        f"{last.error}: {last.message}"
    )


def why_stop(policy: Policy, finished: int, failed: Counter[Cause], last: Attempt | None) -> str | None:
    """A sentence if the run is to be stopped since too many clips fail; None if not. Takes what `too_many` takes.

    A few clips say little about the others, so no run is stopped before `LEAST_FINISHED` clips have ended.
    """
    reason = too_many(policy, finished, failed, last) if finished >= LEAST_FINISHED else None
    return reason and f"stopped, since {reason}"
