#!/usr/bin/env python3
"""Whether the loader of the Python package leaves anything behind, and what it takes to start.

    python_endurance.py SHARDS [--epochs 100] [--loaders 1000] [--json]

Runs epochs of one loader, then opens and closes loaders. Prints seconds to import the package and
to the first batch, and resident memory, threads and open files along the way.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time


def figures():
    """Megabytes, threads and open files of this process."""
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in status if ":" in line)
    return {
        "mb": round(int(values["VmRSS"].split()[0]) / 1024, 1),
        "threads": int(values["Threads"]),
        "files": len(os.listdir("/proc/self/fd")),
    }


def import_seconds():
    """The median time that `import clipfeed` takes in a new interpreter."""
    code = ("import time; t = time.perf_counter(); import clipfeed; "
            "print(time.perf_counter() - t)")
    runs = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
            for _ in range(7)]
    return statistics.median(float(run.stdout) for run in runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--loaders", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report = {"import_seconds": round(import_seconds(), 4), "epochs": [], "loaders": []}

    import clipfeed

    options = dict(batch_size=8, frames=16, size=224)
    began = time.perf_counter()
    loader = clipfeed.Loader(arguments.shards, **options)
    next(iter(loader))
    report["first_batch_seconds"] = round(time.perf_counter() - began, 3)
    report["batches_per_epoch"] = len(loader)
    for epoch in range(arguments.epochs + 1):
        for batch in loader:
            batch.clips, batch.bool_masked_pos
        if epoch % max(1, arguments.epochs // 5) == 0:
            report["epochs"].append({"epoch": epoch, **figures()})
    loader.close()
    for number in range(arguments.loaders + 1):
        with clipfeed.Loader(arguments.shards, **options) as loader:
            next(iter(loader))
        if number % max(1, arguments.loaders // 5) == 0:
            report["loaders"].append({"opened": number, **figures()})
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"import {report['import_seconds'] * 1000:.1f} ms, first batch "
          f"{report['first_batch_seconds']:.2f} s, {report['batches_per_epoch']} batches an epoch")
    for line in report["epochs"] + report["loaders"]:
        print("  ".join(f"{name} {value}" for name, value in line.items()))


if __name__ == "__main__":
    main()
