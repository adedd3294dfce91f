#!/usr/bin/env python3
"""Builds the parts of a plan as tasks of a Ray cluster, then merges them.

    shardtool plan VIDEOS... --out s3://bucket/train --parts 8
    python deploy/ray_build.py s3://bucket/train 8               # the number of parts of the plan

Starts Ray on this machine, or uses the cluster that RAY_ADDRESS names. Nodes need shardtool on PATH
(SHARDTOOL=PATH names another), the videos under the paths of the plan, and the store's variables.
Parts that are complete are skipped, so the same command builds what is missing.
"""
import argparse
import os
import subprocess
import sys

import ray

SHARDTOOL = os.environ.get("SHARDTOOL", "shardtool")


def build(plan, part, parts):
    """One part, in a process of its own. Returns the end of its log where it failed."""
    # setpriv: a build whose worker is killed ends with it, before the part is tried again.
    command = ["setpriv", "--pdeathsig", "KILL"]
    command += [SHARDTOOL, "build", "--plan", plan, "--part", f"{part}/{parts}"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-2000:]}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("plan", help="a folder that all nodes share, or s3://...")
    arguments.add_argument("parts", type=int, help="number of parts of the plan")
    arguments.add_argument("--cpus", type=float, default=4, help="CPUs for a part (default 4)")
    given = arguments.parse_args()
    plan = given.plan if "://" in given.plan else os.path.abspath(given.plan)

    # The tasks get the credentials of this process; Ray does not copy the environment.
    stores = ("AWS_", "AZURE_", "GOOGLE_", "STORAGE_", "STORE_")
    env = {name: value for name, value in os.environ.items() if name.startswith(stores)}
    ray.init(runtime_env={"env_vars": env}, log_to_driver=False)
    # Tried again three times, when the node dies (max_retries) and when the program fails.
    task = ray.remote(num_cpus=given.cpus, max_retries=3, retry_exceptions=True)(build)
    parts = {task.remote(plan, part, given.parts): part for part in range(given.parts)}
    failed, waiting = 0, list(parts)
    while waiting:
        (ready,), waiting = ray.wait(waiting, num_returns=1)
        try:
            ray.get(ready)
            print(f"part {parts[ready]} is complete", file=sys.stderr)
        except Exception as error:  # the other parts are built all the same
            failed += 1
            print(f"part {parts[ready]} failed: {error}", file=sys.stderr)
    # Merging names the parts that are missing, and fails.
    merged = subprocess.run([SHARDTOOL, "merge", "--plan", plan])
    return merged.returncode or (1 if failed else 0)


if __name__ == "__main__":
    sys.exit(main())
