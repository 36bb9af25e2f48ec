"""A video of an object to a 4D asset: one set of 3D Gaussians per frame.

    import ss4d

    run = ss4d.run("clip.mp4")  # computes what is not stored yet
    run["slat"]["feats"][:100]  # an array, read when indexed
    ss4d.open_run("output/runs/clip")["decoding"].value()  # torch tensors
    ss4d.open_dataset("birds").catalog()  # a pyarrow table, a row for each clip and stage

They are in `ss4d.notebook`, which is imported when one of them is asked for: `import ss4d` alone takes no time.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "open_dataset", "open_run", "run"]

if TYPE_CHECKING:
    from ss4d.notebook import open_dataset, open_run, run
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'ss4d' has no attribute {name!r}")
        from ss4d import notebook

        return getattr(notebook, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
