#!/usr/bin/env python3
"""The loader in Python against the same loader in Rust, in turns, on the same shards.

    python_ratio.py TRAINER SHARDS [--rounds 7] [--seconds 3] [--threads 2]

TRAINER is the program `trainer`. Batches of 8 clips of 16x224x224, f32, as fast as possible, for
whole clips and for patches at 90 % masking. Prints clips/s of both and the median of the ratios.
"""

import argparse
import json
import statistics
import subprocess
import sys

PYTHON = """
import sys, time, clipfeed
shards, form, threads, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
alike = dict(mean=(0.45,) * 3, std=(0.225,) * 3)
target = dict(target_frames=1) if form == "patches" else {}
loader = clipfeed.Loader(shards, 8, 16, 224, form=form, threads=threads, **target, **alike)
def batches():
    while True:
        yield from loader
end = None
for number, batch in enumerate(batches()):
    pixels = batch.clips if form == "clips" else (batch.visible, batch.target)
    masks = batch.bool_masked_pos
    if number == 4:
        loader.stats(restart=True)
        end = time.monotonic() + seconds
    if end and time.monotonic() > end:
        break
print(loader.stats()["clips_per_second"])
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trainer")
    parser.add_argument("shards")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    def rust(form):
        command = [arguments.trainer, "bench", "loader", arguments.shards, "--preset", "base",
                   "--frames", "16", "--batch-size", "8", "--form", form, "--values", "f32",
                   "--loader-threads", str(arguments.threads), "--seconds",
                   str(arguments.seconds), "--json"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        report = json.loads(done.stdout)
        return report.get("loader", report)["clips_per_second"]

    def python(form):
        command = [sys.executable, "-c", PYTHON, arguments.shards, form, str(arguments.threads),
                   str(arguments.seconds)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    for form in ["clips", "patches"]:
        pairs = []
        for number in range(arguments.rounds):
            turns = [rust, python] if number % 2 else [python, rust]
            speeds = {turn: turn(form) for turn in turns}
            pairs.append((speeds[python], speeds[rust]))
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        shown = ", ".join(f"{ours:.0f}/{theirs:.0f}" for ours, theirs in pairs)
        print(f"{form}: Python over Rust {ratio:.3f} (clips/s {shown})", flush=True)


if __name__ == "__main__":
    main()
