"""The peers of store.py: their files, and one run of one of them, which prints a line of JSON for
each of two epochs.

    store_peers.py PEER URL BUCKET CACHE LIMIT RATE WORKERS PAYLOAD FILES

LIMIT is of the cache, in bytes, 0 for none; FILES is how many WebDataset has.
"""

import argparse
import glob
import importlib
import io
import json
import os
import sys
import tarfile
import time
import urllib.request

BATCH = 16
PEERS = {
    "mds": ("MosaicML Streaming", ["torch", "streaming", "boto3"]),
    "litdata": ("LitData", ["torch", "litdata", "boto3"]),
    "webdataset": ("WebDataset, cache", ["torch", "webdataset"]),
    "webdataset-stream": ("WebDataset, no cache", ["torch", "webdataset"]),
}


# The clips of our shards, in the formats of the peers.


def payload_of(shards):
    import pyarrow.parquet

    path = sorted(glob.glob(os.path.join(shards, "shard-*.parquet")))[0]
    groups = pyarrow.parquet.ParquetFile(path).iter_batches(1, columns=["payload"])
    payload = next(groups)["payload"][0].as_py()
    if payload not in ("i420", "h264"):
        sys.exit(f"{path}: build the shards with --payload i420 or h264")
    return payload


def rows(shards):
    """Each clip as peers store it: its number of bytes, then its planes, compressed one clip at a
    time as in our shards, so that caches hold as many clips as ours; or its stream of H.264."""
    import pyarrow.parquet

    planes = payload_of(shards) == "i420"
    for path in sorted(glob.glob(os.path.join(shards, "shard-*.parquet"))):
        for group in pyarrow.parquet.ParquetFile(path).iter_batches(16, columns=["data"]):
            for data in group["data"]:
                data = bytes(data.as_buffer())
                if planes:
                    packed = pyarrow.Codec("zstd", 3).compress(data, asbytes=True)
                    data = len(data).to_bytes(4, "little") + packed
                yield data


def clips_in(shards):
    import pyarrow.parquet

    paths = glob.glob(os.path.join(shards, "shard-*.parquet"))
    return sum(pyarrow.parquet.ParquetFile(path).metadata.num_rows for path in paths)


def file_bytes(shards):
    """64 MB, the peers' default, but enough files for workers and caches to have a choice."""
    return min(1 << 26, max(1 << 22, folder_bytes(shards) // 32))


def folder_bytes(path):
    return sum(os.path.getsize(file) for file in glob.glob(os.path.join(path, "*")))


def write(side, shards, out, clips=None):
    """Writes the clips of shards, or what `clips` yields in place of them, for a peer."""
    kind = side.split("-")[0]
    globals()[f"write_{kind}"](clips or rows(shards), file_bytes(shards), out)


def write_mds(clips, limit, out):
    from streaming import MDSWriter

    with MDSWriter(out=out, columns={"clip": "bytes"}, size_limit=limit) as writer:
        for data in clips:
            writer.write({"clip": data})


def write_litdata(clips, limit, out):
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(out, chunk_bytes=limit)
    for index, data in enumerate(clips):
        # Of a dictionary it makes Arrow tables, which two workers fail to read (0.2.76).
        writer.add_item(index, data)
    writer.done()
    writer.merge()


def write_webdataset(clips, limit, out):
    tar, number, room = None, 0, 0
    for index, data in enumerate(clips):
        if room < len(data):
            if tar:
                tar.close()
            tar, room = tarfile.open(os.path.join(out, f"{number:05}.tar"), "w"), limit
            number += 1
        entry = tarfile.TarInfo(f"{index:08}.clip")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
        room -= len(data)
    tar.close()


# One run of one of them.


def decoded(data, payload):
    """Frames of a clip, as a flat tensor of bytes."""
    import numpy
    import pyarrow
    import torch

    torch.set_num_threads(1)
    if payload == "h264":
        import av

        with av.open(io.BytesIO(data), format="h264") as file:
            file.streams.video[0].thread_type = "NONE"
            frames = [frame.to_ndarray(format="yuv420p") for frame in file.decode(video=0)]
        return torch.from_numpy(numpy.stack(frames)).flatten()
    length, packed = int.from_bytes(data[:4], "little"), pyarrow.py_buffer(data)[4:]
    return torch.frombuffer(pyarrow.Codec("zstd").decompress(packed, length), dtype=torch.uint8)


def workers(args):
    return {"num_workers": args.workers, "persistent_workers": True}


def mds_loader(args):
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory
    from torch.utils.data import DataLoader

    # Of a process that was killed.
    clean_stale_shared_memory()

    class Clips(StreamingDataset):
        def __getitem__(self, index):
            return decoded(super().__getitem__(index)["clip"], args.payload)

    os.environ["S3_ENDPOINT_URL"] = args.url
    clips = Clips(
        remote=f"s3://{args.bucket}",
        local=args.cache,
        shuffle=True,
        # By default 262,144 samples or more, a small part of a real data set, but all of this
        # one, so that it would need each file all the time.
        shuffle_block_size=16 * BATCH,
        batch_size=BATCH,
        cache_limit=args.limit or None,
    )
    # It has read its index with a connection that the workers would inherit and all use at once,
    # so that each gets parts of the others' files.
    for stream in clips.streams:
        stream._downloader.clean_up()
    return DataLoader(clips, BATCH, collate_fn=list, **workers(args))


def litdata_loader(args):
    from litdata import StreamingDataLoader, StreamingDataset, streaming

    # Its client for everything but the index refuses http, and nothing public allows it.
    streaming.downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True

    class Clips(StreamingDataset):
        def __getitem__(self, index):
            return decoded(super().__getitem__(index), args.payload)

    clips = Clips(
        f"s3://{args.bucket}",
        cache_dir=args.cache,
        shuffle=True,
        storage_options={"endpoint_url": args.url},
        # By default it leaves 50 GB of the disk free, which may leave it nothing.
        max_cache_size=args.limit or "1000GB",
    )
    return StreamingDataLoader(clips, batch_size=BATCH, collate_fn=list, **workers(args))


def webdataset_loader(args):
    import webdataset
    from torch.utils.data import DataLoader

    def clip(sample):
        return decoded(sample["clip"], args.payload)

    urls = [f"{args.url}/{args.bucket}/{number:05}.tar" for number in range(args.files)]
    cache = {"cache_dir": args.cache, "cache_size": args.limit or -1}
    if args.side == "webdataset-stream":
        cache, urls = {}, [f"pipe:curl -f -s {url}" for url in urls]
    clips = webdataset.WebDataset(urls, shardshuffle=len(urls), **cache)
    for stage in clips.pipeline:
        # It looks at the size of its cache every 30 s, which would be no limit here.
        if getattr(stage, "cleaner", None):
            stage.cleaner.interval = 0
    clips = clips.shuffle(100, initial=BATCH).map(clip).batched(BATCH, collation_fn=list)
    return DataLoader(clips, batch_size=None, **workers(args))


def sent(url):
    """Counters of the server."""
    return json.load(urllib.request.urlopen(f"{url}/-/requests"))


def read_requests(counters):
    return counters["gets"] + counters["heads"]


def run(args):
    """Prints a line of JSON for each of two epochs."""
    kind = args.side.split("-")[0]
    # Imports take seconds, and are no part of the first batch.
    for module in PEERS[args.side][1]:
        importlib.import_module(module)
    begin, before = time.monotonic(), sent(args.url)
    loader = globals()[f"{kind}_loader"](args)
    for _ in range(2):
        clips, waited, first = 0, 0.0, None
        batches = iter(loader)
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            got = time.monotonic()
            if batch is None:
                break
            if first is None:
                first = got
            else:
                waited += got - asked
            clips += len(batch)
            time.sleep(len(batch) / args.rate)
        wall, after = time.monotonic() - first, sent(args.url)
        figures = {
            "first": first - begin,
            "stall": waited / wall,
            "clips/s": clips / wall,
            "MB": (after["bytes_sent"] - before["bytes_sent"]) / 1e6,
            "requests": read_requests(after) - read_requests(before),
            "clips": clips,
        }
        print(json.dumps(figures), flush=True)
        begin, before = time.monotonic(), after
    # Threads of some peers would go on.
    os._exit(0)


def main():
    words = ["side", "url", "bucket", "cache", "limit", "rate", "workers", "payload", "files"]
    args = argparse.Namespace(**dict(zip(words, sys.argv[1:])))
    args.limit, args.rate = int(args.limit), float(args.rate)
    args.workers, args.files = int(args.workers), int(args.files)
    run(args)


if __name__ == "__main__":
    main()
