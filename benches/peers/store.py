"""Clips out of an object store with a delay per request: ours, and the loaders that a user would
pick instead, in turns on the same clips, each at the pace of a training.

    cargo build --release -p tests --bin object-server
    pip install torch numpy pyarrow boto3 av mosaicml-streaming litdata webdataset
    benches/peers/store.py SHARDS WORK [--delay-ms 150] [--rate 136] [--rounds 3]

SHARDS is a folder that `shardtool build --payload i420` (or `h264`) has made. Its clips are written
to WORK in the format of each peer, once; peers that are not installed are left out. The server of
the tests gives all of them out, each request after a delay, bytes as fast as it can.

Work: every clip once an epoch in random order, batches of 16, 2 workers or threads. The consumer
takes a batch, waits for as long as a training of `--rate` clips a second would compute, and takes
the next. Peers hand out frames as stored (I420 bytes; from H.264, decoded by PyAV): they neither
crop nor resize nor normalise, while ours also makes the patches of a masked autoencoder. Peers
store each clip of I420 with zstd, as ours does, in files of 64 MB.

Each run starts with an empty cache on disk and reads two epochs, once with a cache for everything
and once with a cache for half of the bytes. Figures are medians over rounds:

    first    seconds to the first batch of the epoch, from the making of the data set (epoch 1)
    stall    share of the time after it that the consumer waited for a batch
    clips/s  clips taken per second after the first batch
    MB       body bytes that the server sent during the epoch
    again    MB of the second epoch relative to the size of the data set
    requests requests during the epoch

Workers run ahead of the consumer, so bytes are of the epoch give or take a few batches.
"""

import argparse
import glob
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys

import store_peers
from store_peers import BATCH, PEERS, clips_in, folder_bytes, payload_of, read_requests, sent, write


def peer(args, side, bucket, limit):
    """Figures of two epochs; None where the peer fails."""
    cache = os.path.join(args.work, "cache")
    shutil.rmtree(cache, ignore_errors=True)
    os.makedirs(cache)
    files = len(glob.glob(os.path.join(args.work, "buckets", bucket, "*.tar")))
    command = [sys.executable, store_peers.__file__, side, args.url, bucket, cache]
    command += [limit, args.rate, args.workers, args.payload, files]
    environment = os.environ | {"LITDATA_DISABLE_VERSION_CHECK": "1"}
    environment |= {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    environment |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1"}
    captured = {"capture_output": True, "text": True, "timeout": 300, "env": environment}
    try:
        run = subprocess.run(list(map(str, command)), **captured)
        out, complaint = run.stdout, run.stderr
    except subprocess.TimeoutExpired:
        out, complaint = "", "no end after 300 s"
    epochs = [json.loads(line) for line in out.splitlines() if line.startswith('{"first"')]
    shutil.rmtree(cache, ignore_errors=True)
    if len(epochs) == 2:
        return epochs
    print(f"{side}: {complaint[-2000:]}", file=sys.stderr)
    return None


def ours(args, limit):
    """The same of our loader: an epoch is as many seconds as its clips take at the pace."""
    cache = os.path.join(args.work, "cache")
    shutil.rmtree(cache, ignore_errors=True)
    epochs = []
    for _ in range(2):
        before = sent(args.url)
        command = [args.trainer, "bench", "loader", args.ours or f"{args.url}/shards", "--json"]
        command += ["--consumer", f"rate:{args.rate}", "--batch-size", str(BATCH)]
        # A tenth of the seconds is added as a warm-up.
        command += ["--seconds", str(args.clips / args.rate / 1.1)]
        command += ["--loader-threads", str(args.workers)]
        command += ["--cache", cache, "--cache-size", str(limit or 10**15)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            print(f"ours: {run.stderr[-2000:]}", file=sys.stderr)
            return None
        report, after = json.loads(run.stdout), sent(args.url)
        epochs.append(
            {
                "first": report["open_seconds"] + report["loader"]["first_batch_seconds"],
                "stall": report["stall_fraction"],
                "clips/s": report["clips_per_second"],
                "MB": (after["bytes_sent"] - before["bytes_sent"]) / 1e6,
                "requests": read_requests(after) - read_requests(before),
                "clips": report["loader"]["clips"],
            }
        )
    return epochs


def prepare(args):
    """Makes the buckets: name of each peer's, and bytes of each."""
    buckets = os.path.join(args.work, "buckets")
    os.makedirs(buckets, exist_ok=True)
    link = os.path.join(buckets, "shards")
    if os.path.islink(link):
        os.remove(link)
    os.symlink(os.path.abspath(args.shards), link)
    names = {"ours": "shards"}
    for side, (_, modules) in PEERS.items():
        if side not in args.sides:
            continue
        if not all(importlib.util.find_spec(module) for module in modules):
            print(f"{side}: left out: it needs {', '.join(modules)}", file=sys.stderr)
            continue
        names[side] = bucket = f"{args.payload}-{side.split('-')[0]}"
        out = os.path.join(buckets, bucket)
        if os.path.exists(out):
            continue
        half = os.path.join(args.work, "half-made")
        shutil.rmtree(half, ignore_errors=True)
        os.makedirs(half)
        write(side, args.shards, half)
        os.rename(half, out)
    return names, {side: folder_bytes(os.path.join(buckets, name)) for side, name in names.items()}


def report(results, sizes):
    columns = ["first", "stall", "clips/s", "MB", "requests", "again"]
    print(f"{'':24} {'cache':>6} {'epoch':>5} " + " ".join(f"{name:>9}" for name in columns))
    for (side, cache), runs in results.items():
        for epoch in range(2):
            figures = [run[epoch] for run in runs]
            if not figures:
                continue
            median = lambda name: statistics.median(of[name] for of in figures)
            again = f"{median('MB') * 1e6 / sizes[side]:9.2f}" if epoch else f"{'':>9}"
            name = PEERS[side][0] if side in PEERS else side
            print(
                f"{name:24} {cache:>6} {epoch + 1:5} {median('first'):9.2f} "
                f"{median('stall'):9.1%} {median('clips/s'):9.1f} {median('MB'):9.0f} "
                f"{median('requests'):9.0f} {again}"
            )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("shards")
    parser.add_argument("work")
    parser.add_argument("--delay-ms", type=int, default=150)
    parser.add_argument("--rate", type=float, default=136)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", nargs="*", default=["ours", *PEERS])
    parser.add_argument("--server", default="target/release/object-server")
    parser.add_argument("--trainer", default="target/release/trainer")
    parser.add_argument("--ours", help="read this in place of the shards in the store")
    args = parser.parse_args()
    args.payload, args.clips = payload_of(args.shards), clips_in(args.shards)
    names, sizes = prepare(args)
    for side, size in sizes.items():
        print(f"{side}: {args.clips} clips, {size / 1e6:.0f} MB", file=sys.stderr)
    command = [args.server, os.path.join(args.work, "buckets"), "--delay-ms", str(args.delay_ms)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    args.url = server.stdout.readline().strip()
    sides = [side for side in args.sides if side in names]
    pairs = [(side, cache) for side in sides for cache in ["all", "half"]]
    results = {pair: [] for pair in pairs if pair != ("webdataset-stream", "half")}
    try:
        for number in range(args.rounds):
            for (side, cache), runs in results.items():
                limit = sizes[side] // 2 if cache == "half" else 0
                run = ours(args, limit) if side == "ours" else peer(args, side, names[side], limit)
                runs.extend([run] if run else [])
                shown = json.dumps(run)
                print(f"round {number + 1}: {side}, {cache}: {shown}", file=sys.stderr, flush=True)
    finally:
        server.terminate()
    report(results, sizes)


main()
