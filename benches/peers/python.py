#!/usr/bin/env python3
"""Loaders in Python at the same work, in turns: clipfeed, and what a user would pick instead.

    pip install clipfeed torch torchvision numpy pyarrow
    pip install mosaicml-streaming litdata webdataset torchcodec
    shardtool build VIDEOS --every 0.04 --payload i420 --out SHARDS
    benches/peers/python.py SHARDS WORK [--consumer rate:136] [--rounds 5] [--json]
                            [--transform torchvision]

The clips of SHARDS (16 frames, payload i420 or i420-delta) are written to WORK in the format of
each peer, once; peers that are not installed are left out. Use one folder WORK per SHARDS.
TorchCodec needs the libraries of FFmpeg, and the program ffmpeg writes its clips.

Work: batches of 8 clips of 16x224x224, one random resized crop (area 0.5 to 1, aspect 3/4 to 4/3)
and flip for all frames of a clip, normalised, f32, in random order. Peers are used with torch's
DataLoader as their documentation shows, with the fastest transform of several in PyTorch (see
python_peers.py), or, with `--transform torchvision`, that of torchvision's documentation. They
read

    i420     planes, compressed with zstd clip by clip, as in our shards
    jpeg     each frame as JPEG of quality 90
    clips    a file of H.264 per clip, crf 18
    videos   the same frames out of the source videos, found by their times

With the fastest transform workers hand over bytes, which a thread normalises. Files are in the page
cache. One process per run; each peer runs with each number of `--workers` (ours: threads) in every
round, and the best one is shown. Figures are medians over rounds:

    clips/s   taken by a consumer that does nothing else, after a warm-up
    stall     share of the time that the consumer waited for a batch; with `--consumer rate:R`, one
              that takes a batch, waits for as long as a training of R clips a second would
              compute, and takes the next
    first     seconds to the first batch, from the making of the data set; without imports
    memory    peak of all processes, without files that they map: anonymous and shared pages
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

import python_peers
from python_peers import FORMATS, PEERS, data_bytes, modules, write
from store_peers import clips_in


def processes(session):
    """Ids of the processes of a session."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                state, _, _, of = file.read().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of) == session and state != "Z":
            found.append(int(name))
    return found


def memory(session):
    """Bytes of the processes of a session: anonymous pages, and files of shared memory."""
    total, shared, device = 0, {}, os.stat("/dev/shm").st_dev
    for process in processes(session):
        try:
            with open(f"/proc/{process}/smaps_rollup") as file:
                lines = [line.split() for line in file]
            total += sum(int(line[1]) * 1024 for line in lines if line[0] == "Pss_Anon:")
            for name in os.listdir(f"/proc/{process}/fd"):
                file = os.stat(f"/proc/{process}/fd/{name}")
                if file.st_dev == device:
                    # Batches on their way are open, but not always mapped.
                    shared[file.st_ino] = file.st_blocks * 512
        except OSError:
            continue
    return total + sum(shared.values())


def run(args, side, workers):
    """Figures of one run of a peer; None where it fails."""
    command = [sys.executable, python_peers.__file__, side, args.shards, args.work]
    command += ["--workers", workers, "--seconds", args.seconds, "--warm-up", args.warm_up]
    command += ["--transform", args.transform]
    command += ["--rate", args.rate] if args.rate else []
    environment = os.environ | {"LITDATA_DISABLE_VERSION_CHECK": "1"}
    # Of its own session, so that nothing of it outlives it.
    child = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    peak, ended = 0, threading.Event()

    def watch():
        nonlocal peak
        while not ended.wait(1):
            peak = max(peak, memory(child.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        out, complaint = child.communicate(timeout=args.seconds + args.warm_up + 120)
    except subprocess.TimeoutExpired:
        out, complaint = "", "no end"
    finally:
        ended.set()
        watcher.join()
        for process in processes(child.pid):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        child.communicate()
        while processes(child.pid):
            time.sleep(0.1)
    lines = [line for line in out.splitlines() if line.startswith('{"clips/s"')]
    if not lines:
        print(f"{side}: {complaint[-2000:]}", file=sys.stderr)
        return None
    return json.loads(lines[-1]) | {"memory": peak}


def prepare(args):
    """Writes what is missing in WORK; bytes of the clips of each peer that can run."""
    sizes = {}
    for side in args.sides:
        missing = [name for name in modules(side) if not importlib.util.find_spec(name)]
        if missing:
            print(f"{side}: left out: it needs {', '.join(missing)}", file=sys.stderr)
            continue
        if side.startswith("clipfeed"):
            sizes[side] = sum(map(os.path.getsize, shard_paths(args.shards)))
            continue
        out = os.path.join(args.work, side)
        if not os.path.exists(out):
            print(f"{side}: writing its clips", file=sys.stderr, flush=True)
            half = os.path.join(args.work, "half-made")
            shutil.rmtree(half, ignore_errors=True)
            os.makedirs(half)
            try:
                write(side, args.shards, half)
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"{side}: left out: {error}", file=sys.stderr)
                continue
            os.rename(half, out)
        sizes[side] = data_bytes(side, out)
    shutil.rmtree(os.path.join(args.work, "half-made"), ignore_errors=True)
    return sizes


def shard_paths(shards):
    """The shards of a folder."""
    names = sorted(os.listdir(shards))
    return [os.path.join(shards, name) for name in names if name.startswith("shard-")]


def figures(runs, name):
    """Median, least and most of a figure."""
    values = [run[name] for run in runs]
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(args, results, sizes):
    """One entry per peer and number of workers; `best` marks the number that suits a peer best."""
    entries = []
    for (side, workers), runs in results.items():
        if not runs:
            continue
        name, _, distribution = FORMATS[side.split("-")[0]]
        version = importlib.metadata.version(distribution)
        entry = {
            "peer": side,
            "title": f"{name} {version}{PEERS[side]}",
            "workers": workers,
            "bytes_per_clip": sizes[side] / args.clips,
            "rounds": len(runs),
            "clips_per_second": figures(runs, "clips/s"),
            "stall": figures(runs, "stall"),
            "first_batch_seconds": figures(runs, "first"),
            "peak_memory_bytes": figures(runs, "memory"),
        }
        entries.append(entry)

    def score(entry):
        rate, stall = entry["clips_per_second"]["median"], entry["stall"]["median"]
        return (-stall, rate) if args.rate else rate

    for side in {entry["peer"] for entry in entries}:
        of_peer = [entry for entry in entries if entry["peer"] == side]
        best = max(of_peer, key=score)
        for entry in of_peer:
            entry["best"] = entry is best
    return entries


def table(args, entries):
    """The best entry of each peer, in Markdown."""
    entries = [entry for entry in entries if entry["best"]]
    rates = {entry["peer"]: entry["clips_per_second"]["median"] for entry in entries}
    peers = [rate for side, rate in rates.items() if not side.startswith("clipfeed")]
    columns = ["loader", "workers", "clips/s", "relative to the best peer"]
    columns[2:] = ["stall", "clips/s"] if args.rate else columns[2:]
    columns += ["first batch", "peak memory", "stored, per clip"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for entry in sorted(entries, key=lambda entry: -rates[entry["peer"]]):
        rate, stall = entry["clips_per_second"], entry["stall"]
        of_rate = f"{rate['median']:.1f} ({rate['min']:.1f} to {rate['max']:.1f})"
        if args.rate:
            middle = [f"{stall['median']:.2%} ({stall['min']:.2%} to {stall['max']:.2%})", of_rate]
        else:
            middle = [of_rate, f"{rate['median'] / max(peers):.2f}" if peers else ""]
        row = [entry["title"], str(entry["workers"]), *middle]
        row.append(f"{entry['first_batch_seconds']['median']:.2f} s")
        row.append(f"{entry['peak_memory_bytes']['median'] / 1e6:.0f} MB")
        row.append(f"{entry['bytes_per_clip'] / 1e6:.2f} MB")
        print("| " + " | ".join(row) + " |")


def main():
    """Runs all peers in turns and prints a table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards")
    parser.add_argument("work")
    parser.add_argument("--consumer", default="none", metavar="none|rate:R")
    transforms = ["tuned", "torchvision"]
    parser.add_argument("--transform", default=transforms[0], choices=transforms, help="of peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--warm-up", type=float, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sides", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    kind, _, rate = args.consumer.partition(":")
    if kind not in ("none", "rate") or (kind == "rate") != bool(rate):
        parser.error("--consumer: give none or rate:R")
    args.rate, args.clips = float(rate or 0), clips_in(args.shards)
    os.makedirs(args.work, exist_ok=True)
    sizes = prepare(args)
    results = {(side, workers): [] for side in sizes for workers in args.workers}
    for number in range(args.rounds):
        for (side, workers), runs in results.items():
            figure = run(args, side, workers)
            runs.extend([figure] if figure else [])
            words = f"round {number + 1}: {side}, {workers} workers: {json.dumps(figure)}"
            print(words, file=sys.stderr, flush=True)
    entries = summary(args, results, sizes)
    if args.json:
        report = {"consumer": args.consumer, "transform": args.transform}
        report |= {"cores": os.cpu_count(), "clips": args.clips}
        print(json.dumps(report | {"results": entries}, indent=2))
    else:
        table(args, entries)


if __name__ == "__main__":
    main()
