#!/usr/bin/env python3
"""Cuts of `shardtool build --scenes` against PySceneDetect's, with its default settings.

    benches/peers/scenes.py SHARDTOOL VIDEO... [--work DIR]

Needs: pip install "scenedetect[opencv-headless]". Prints precision, recall and F1 at a tolerance of
two frames for each video and for all of them, for both detectors.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from scenedetect import AdaptiveDetector, ContentDetector, SceneManager, open_video

TOLERANCE = 2
DETECTORS = {"content": ContentDetector, "adaptive": AdaptiveDetector}


def reference(video, detector):
    """The frames at which PySceneDetect's scenes begin, but the first, and the frame rate."""
    manager = SceneManager()
    manager.add_detector(DETECTORS[detector]())
    stream = open_video(str(video))
    manager.detect_scenes(stream)
    scenes = manager.get_scene_list()
    return [start.frame_num for start, _ in scenes][1:], float(stream.frame_rate)


def ours(shardtool, video, detector, work):
    """The times at which the scenes of a build begin, but the first, in seconds."""
    out = Path(work) / "shards"
    shutil.rmtree(out, ignore_errors=True)
    command = [shardtool, "build", video, "--out", out, f"--scenes={detector}", "--level", "0"]
    small = ["--short-side", "16", "--frames", "2"]
    subprocess.run([*command, *small], check=True, capture_output=True)
    lines = (out / "videos.jsonl").read_text().splitlines()
    return [cut for line in lines for cut in json.loads(line)["cuts"]]


def match(cuts, others):
    """How many of `cuts` have one of `others` to themselves within the tolerance."""
    rest, matched = list(others), 0
    for cut in cuts:
        near = [other for other in rest if abs(other - cut) <= TOLERANCE]
        if near:
            matched += 1
            rest.remove(min(near, key=lambda other: abs(other - cut)))
    return matched


def render(found, expected, matched):
    precision = matched / found if found else 1.0
    recall = matched / expected if expected else 1.0
    f1 = 2 * matched / (found + expected) if found + expected else 1.0
    return f"{found:5} of {expected:5}  P {precision:.3f}  R {recall:.3f}  F1 {f1:.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shardtool")
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--work", default=None)
    arguments = parser.parse_args()
    total = {detector: [0, 0, 0] for detector in DETECTORS}
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        for video in arguments.videos:
            for detector, sums in total.items():
                expected, rate = reference(video, detector)
                found = ours(arguments.shardtool, video, detector, work)
                frames = [round(second * rate) for second in found]
                counts = len(frames), len(expected), match(frames, expected)
                for index, count in enumerate(counts):
                    sums[index] += count
                print(f"{Path(video).name:28} {detector:9} {render(*counts)}", flush=True)
    for detector, sums in total.items():
        print(f"{'all':28} {detector:9} {render(*sums)}")


if __name__ == "__main__":
    main()
