"""Overrides with which a run of the bundled model fits nothing: what tests of other things are about, and quicker."""

OFF = ("camera.method=none", "structure_fit.method=none", "appearance_fit.method=none")  # no camera, no camera_fit
