"""CPU seconds and peak memory of reading 32 frames of a long film of 4K: decoding what leads to them, and all of it.

`python -m tests.benchmarks.inputs [--film FILE]` makes a film of 3 minutes in the temporary folder, or takes another.
"""

import argparse
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from unittest.mock import patch

import av
import cv2
import numpy as np

from ss4d.pipelines.meter import Meter
from ss4d.pipelines.stages import FINEST, ROOM
from ss4d.stages.input_files import InputConfig
from ss4d.stages.reading import films
from ss4d.stages.video_io import read_video

WIDTH, HEIGHT, RATE, GROUP = 3840, 2160, 30, 30
SECONDS, MADE = 180, 2  # of the film, and of what is coded: it is repeated, since coding takes long
SIDE = FINEST * 518
CODER = {"preset": "ultrafast", "crf": "32", "bf": "2", "g": str(GROUP), "x264-params": "scenecut=0"}


def write_film(path: Path) -> None:
    """A disc that crosses a soft texture, again and again."""
    short = path.with_name("short.mp4")
    chance = np.random.default_rng(0).integers(60, 200, (54, 96, 3), np.uint8)
    behind = cv2.resize(chance, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    with av.open(str(short), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options=CODER)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for t in range(MADE * RATE):
            image = cv2.circle(behind.copy(), (1200 + 20 * t, 1080), 420, (220, 60, 40), -1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(short)) as given, av.open(str(path), "w") as container:
        (source,) = given.streams.video
        stream = container.add_stream_from_template(source)
        packets = [packet for packet in given.demux(source) if packet.size]
        for shift in (round(k * MADE / Fraction(source.time_base)) for k in range(SECONDS // MADE)):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.pts, copy.dts = packet.pts + shift, packet.dts + shift
                copy.time_base, copy.is_keyframe, copy.stream = source.time_base, packet.is_keyframe, stream
                container.mux(copy)


def measure(film: Path, what: str) -> None:
    begun = time.process_time()
    with Meter() as meter:
        video = read_video(film, InputConfig(frames=32), side=SIDE, room=ROOM)
    seconds = time.process_time() - begun
    print(f"| {what} | {tuple(video.frames.shape)} | {seconds:.1f} | {meter.peak_memory / 2**20:,.0f} |", flush=True)


def main(film: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if film is None:
            film = Path(folder) / "film.mp4"
            write_film(film)
        print("| decoded | frames | CPU seconds | peak of memory, MiB |\n|---|---|---:|---:|")
        measure(film, "what leads to the frames")
        with patch.object(films, "entries", lambda *_: []):
            measure(film, "all")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--film", type=Path)
    main(parser.parse_args().film)
