"""Errors a user can repair: each carries one sentence with the value, the limit and the remedy."""


class InputError(ValueError):
    """The input cannot be used: unreadable, empty, of mixed sizes, without an object."""


class ModelError(ValueError):
    """A model folder cannot be used: a file is missing, damaged, or asks for something unsupported."""


class ValueSpecError(ValueError):
    """A stage's value does not have the declared arrays; the sentence names the array and what was expected."""


class NumbersError(ValueSpecError):
    """A stage's value has numbers that are none, or sizes of nothing; the sentence names the array and how many."""


class TrainingError(RuntimeError):
    """Training cannot go on: its loss stopped being a number."""
