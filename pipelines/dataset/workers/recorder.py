"""Records the attempts of a run: writes each as an event, counts it, and asks the policy what follows."""

from collections import Counter

from ss4d.pipelines.dataset.events import Attempt, Cause, EventWriter, now
from ss4d.pipelines.dataset.workers.messages import ClipFailed, StageDone
from ss4d.pipelines.dataset.workers.policy import History, Policy, too_many, why_stop
from ss4d.pipelines.dataset.workers.progress import Tally
from ss4d.pipelines.dataset.workers.todo import Todo


class Recorder:
    """Records the attempts of one run.

    Args:
        events: that the attempts are written to.
        tally: that they are counted in.
        policy: what follows from failures.
        history: what earlier runs recorded of the clips.
        seed: of the run.
    """

    def __init__(self, *, events: EventWriter, tally: Tally, policy: Policy, history: History, seed: int) -> None:
        self._events, self._tally, self._policy, self._seed = events, tally, policy, seed
        self._failures: dict[str, Counter[Cause]] = {clip: Counter(known) for clip, known in history.failures.items()}
        self._attempts: Counter[str] = Counter(history.attempts)  # that failed, by key
        self._last_failure: Attempt | None = None

    def stage_done(self, todo: Todo, worker: str, done: StageDone) -> None:
        """The artifact of a stage is in the store.

        A reused one is recorded only if the plan was to make it: another process did, or the index was out of date.

        Raises:
            OSError: if it cannot be written.
        """
        result = done.result
        if result.reused and done.stage not in todo.stages:
            return
        if not result.reused:
            self._tally.artifact(done.stage, result.seconds)
        self._events.write(
            Attempt(
                clip=done.clip,
                stage=done.stage,
                key=done.key,
                state="reused" if result.reused else "done",
                time=now(),
                seconds=round(result.seconds, 3),
                peak_memory=result.peak_memory,
                number=self._attempts[done.key] + 1,
                worker=worker,
                seed=self._seed,
                versions=self._events.versions,
                measures=result.measures,
                deletions=result.deletions,
            )
        )

    def clip_done(self) -> None:
        """A clip has ended with all its artifacts."""
        self._tally.clip(None)

    def clip_failed(self, todo: Todo, worker: str, memory: int, failed: ClipFailed) -> float | None:
        """A clip failed.

        Args:
            todo: the clip.
            worker: that it failed in, as host:pid.
            memory: bytes that this worker had.
            failed: how.

        Returns:
            Seconds to wait before it is tried again; None if it is not, and counts as failed.

        Raises:
            OSError: if it cannot be written.
        """
        key = failed.key or todo.goal
        self._attempts[key] += 1
        known = self._failures.setdefault(failed.clip, Counter())
        known[failed.cause] += 1
        attempt = Attempt(
            clip=failed.clip,
            stage=failed.stage,
            key=key,
            state="failed",
            time=now(),
            seconds=round(failed.seconds, 3),
            peak_memory=memory,
            number=self._attempts[key],
            error=failed.error,
            message=failed.message,
            cause=failed.cause,
            worker=worker,
            seed=self._seed,
            versions=self._events.versions,
        )
        self._events.write(attempt)
        self._last_failure = attempt
        pause = self._policy.pause(failed.cause, known[failed.cause])
        if pause is None:
            self._tally.clip(failed.cause)
        return pause

    def why_stop(self) -> str | None:
        """A sentence if the run is to be stopped since too many clips fail; None if it continues."""
        return why_stop(self._policy, self._tally.finished, self._tally.failed, self._last_failure)

    def too_many(self) -> str | None:
        """A sentence if too many clips failed, for a run at its end; None if not."""
        return too_many(self._policy, self._tally.finished, self._tally.failed, self._last_failure)
