"""What follows from a failure of a clip: whose fault it is, whether to try again, when the whole run stops."""

import errno
from collections import Counter

import pytest
import torch
from obstore.exceptions import GenericError, PermissionDeniedError

from ss4d.pipelines.dataset.events import Attempt, Cause
from ss4d.pipelines.dataset.workers.policy import LEAST_FINISHED, LONGEST_WAIT, Policy, cause_of, why_stop
from ss4d.pipelines.errors import ConfigError, PluginError
from ss4d.stages.errors import InputError, ModelError, NumbersError
from ss4d.storage.errors import DamageError, StoreError, UnreachableError, reached


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (InputError("it is no video"), "input"),
        (OSError(errno.EIO, "Input/output error"), "transient"),
        (OSError(errno.ENOSPC, "No space left on device"), "transient"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "transient"),
        (DamageError("it is missing"), "transient"),
        (UnreachableError("it does not answer"), "transient"),
        (MemoryError(), "killed"),
        (torch.OutOfMemoryError("CUDA out of memory"), "killed"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), "killed"),
        (RuntimeError("shapes do not match"), "program"),
        (OSError(errno.ENOENT, "No such file"), "program"),
        (PluginError("it failed"), "program"),
        (ModelError("a file is missing"), "program"),
        (NumbersError("feats must be finite"), "numbers"),
        (StoreError("it can only be read"), "program"),
        (ZeroDivisionError(), "program"),
    ],
)
def test_cause_of_an_error(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause


def test_what_an_object_store_refuses_does_not_pass() -> None:
    for raised, cause in ((GenericError("timed out"), "transient"), (PermissionDeniedError("no"), "program")):
        with pytest.raises(StoreError) as caught, reached("s3://bucket"):
            raise raised
        assert cause_of(caught.value) == cause


def test_what_can_pass_is_tried_again_ever_later() -> None:
    policy = Policy(retries=3, wait=2)
    assert [policy.pause("transient", times) for times in (1, 2, 3, 4)] == [2, 4, 8, None]
    assert Policy(retries=100).pause("transient", 100) == LONGEST_WAIT
    assert Policy(retries=0).pause("transient", 1) is None


def test_a_clip_that_kills_its_worker_has_a_second_chance() -> None:
    assert [Policy().pause("killed", times) for times in (1, 2)] == [0, None]


@pytest.mark.parametrize("cause", ["input", "program"])
def test_what_would_fail_again_is_not_tried_again(cause: Cause) -> None:
    assert Policy().pause(cause, 1) is None


def test_what_a_later_run_leaves_alone() -> None:
    policy = Policy()
    assert policy.given_up({"input": 1})
    assert policy.given_up({"program": 1})
    assert policy.given_up({"killed": 2})
    assert not policy.given_up({"killed": 1, "transient": 9})
    assert not policy.given_up({})


def test_a_run_that_fails_wholesale_says_why() -> None:
    last = Attempt(clip="b7", stage="slat", key="0", state="failed", time="", error="ModelError", message="no weights")
    half = Counter[Cause]({"program": 9, "input": 2})
    assert why_stop(Policy(max_failure_ratio=0.5), LEAST_FINISHED - 1, half, last) is None
    assert why_stop(Policy(max_failure_ratio=0.55), LEAST_FINISHED, half, last) is None
    sentence = why_stop(Policy(max_failure_ratio=0.5), LEAST_FINISHED, half, last)
    assert sentence is not None
    for words in ("11 of 20 clips failed (55%", "allows 50%", "9 of them because the program", "b7: ModelError: no w"):
        assert words in sentence
    assert why_stop(Policy(max_failure_ratio=0), LEAST_FINISHED, Counter(), None) is None


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--max-failure-ratio must lie between 0 and 1; got 2"):
        Policy(max_failure_ratio=2)
    with pytest.raises(ConfigError, match="--retries must be at least 0; got -1"):
        Policy(retries=-1)
