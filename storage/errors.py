"""The one error the store raises; errors of the operating system pass through as they are."""


class StoreError(RuntimeError):
    """An artifact cannot be used or named; the sentence says which one, why, and what to do."""
