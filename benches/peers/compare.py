"""Clips a second of `trainer bench loader` and of the loaders that a user would pick instead, in turn on the same videos, so that all meet the same machine.

usage: compare.py VIDEOS WORK [--rounds 5] [--seconds 5] [--trainer target/release/trainer] [--shardtool target/release/shardtool]

VIDEOS is a folder of mp4 files of at least 3 seconds. Shards of all kinds are made in WORK, once. The peers are Python's: run this with a Python that has torch,
torchvision, numpy, pyarrow, decord, av, torchcodec, spdl, opencv-python-headless, mosaicml-streaming, litdata and webdataset; what is missing is left out.
Work for all: 16 frames at stride 4, a random resized crop (area 0.5 to 1) to 224x224, flip, batches of 8, 2 workers or threads.
"""
import argparse, json, os, re, statistics, subprocess, sys

HERE = os.path.dirname(os.path.abspath(__file__))
SHARD_PEERS = ["memmap", "parquet", "mds", "litdata", "webdataset_jpeg"]
LIVE_PEERS = ["decord", "pyav", "torchcodec", "spdl", "opencv"]

parser = argparse.ArgumentParser()
parser.add_argument("videos")
parser.add_argument("work")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--seconds", type=float, default=5)
parser.add_argument("--trainer", default="target/release/trainer")
parser.add_argument("--shardtool", default="target/release/shardtool")
args = parser.parse_args()


def path(name):
    return os.path.join(args.work, name)


def peer(script, *words):
    """Clips/s that a peer prints; None where it fails."""
    command = [sys.executable, os.path.join(HERE, script), *map(str, words)]
    try:
        out = subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
    except subprocess.TimeoutExpired:
        return None
    found = re.findall(r"clips/s=([0-9.]+)", out)
    return float(found[-1]) if found else None


def ours(data, *flags):
    """Clips/s of our loader, 2 threads, batches of 8."""
    command = [args.trainer, "bench", "loader", data, "--seconds", str(args.seconds), "--batch-size", "8", "--loader-threads", "2", "--json", *flags]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["clips_per_second"]


os.makedirs(args.work, exist_ok=True)
for payload in ["i420-delta", "i420", "h264"]:
    if not os.path.exists(path(payload)):
        subprocess.run([args.shardtool, "build", args.videos, "--every", "0.4", "--payload", payload, "--out", path(payload)], check=True)
if not os.path.exists(path("peers/memmap")):
    subprocess.run([sys.executable, os.path.join(HERE, "shard_peers.py"), "build", args.videos, path("peers")], check=True)
# Windows anywhere in each video, as the peers draw them.
whole = os.path.join(args.work, "whole.toml")
with open(whole, "w") as file:
    file.write('[live]\nspan = "video"\n')

runs = {}
for name in SHARD_PEERS:
    runs["shards", name] = lambda name=name: peer("shard_peers.py", "bench", path("peers"), name, 300, 2)
for name, data, flags in [
    ("ours, i420-delta, f32 clips", "i420-delta", ["--form", "clips", "--values", "f32"]),
    ("ours, i420-delta, f32 patches", "i420-delta", ["--form", "patches", "--values", "f32"]),
    ("ours, i420-delta, u8 clips", "i420-delta", ["--form", "clips", "--values", "u8"]),
    ("ours, i420, f32 clips", "i420", ["--form", "clips", "--values", "f32"]),
    ("ours, h264, f32 clips", "h264", ["--form", "clips", "--values", "f32"]),
]:
    runs["shards", name] = lambda data=data, flags=flags: ours(path(data), *flags)
for repeat in [1, 4]:
    group = f"live, repeat {repeat}"
    for name in LIVE_PEERS if repeat == 1 else [name for name in LIVE_PEERS if name != "spdl"]:
        runs[group, name] = lambda name=name, repeat=repeat: peer("loader_peers.py", args.videos, name, 96, 2, repeat)
    flags = ["--config", whole, "--form", "clips", "--values", "f32", "--repeat", str(repeat)]
    runs[group, "ours, f32 clips"] = lambda flags=flags: ours(args.videos, *flags)

results = {key: [] for key in runs}
for round in range(args.rounds):
    for key, run in runs.items():
        figure = run()
        if figure is not None:
            results[key].append(figure)
        print(f"round {round + 1}: {key[0]}: {key[1]}: {figure}", file=sys.stderr, flush=True)

print(f"{'':36} {'median':>8} {'least':>8} {'most':>8} {'over the best peer':>20}")
for group in dict.fromkeys(group for group, _ in runs):
    of_group = {name: figures for (kind, name), figures in results.items() if kind == group and figures}
    best = max((statistics.median(figures) for name, figures in of_group.items() if not name.startswith("ours")), default=None)
    print(group)
    for name, figures in of_group.items():
        median = statistics.median(figures)
        ratio = f"{median / best:.2f}" if best else ""
        print(f"  {name:34} {median:8.1f} {min(figures):8.1f} {max(figures):8.1f} {ratio:>20}")
