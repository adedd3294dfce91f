"""The peers of python.py: their files, and one run of one of them, which prints a line of JSON.

    python_peers.py PEER SHARDS WORK [--workers 2] [--seconds 5] [--warm-up 2] [--rate 136]
                    [--transform tuned|torchvision]
"""

import argparse
import functools
import glob
import importlib
import json
import os
import queue
import struct
import subprocess
import sys
import threading
import time
import warnings

import store_peers
from store_peers import workers

BATCH, FRAMES, SIZE = 8, 16, 224
AREA, ASPECT, FLIP = (0.5, 1.0), (3 / 4, 4 / 3), 0.5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JPEG_QUALITY, CRF = 90, 18

# Name, module and distribution.
FORMATS = {
    "clipfeed": ("clipfeed", "clipfeed", "clipfeed"),
    "mds": ("MosaicML Streaming", "streaming", "mosaicml-streaming"),
    "litdata": ("LitData", "litdata", "litdata"),
    "webdataset": ("WebDataset", "webdataset", "webdataset"),
    "torchcodec": ("TorchCodec", "torchcodec", "torchcodec"),
}
# A peer is a format, and how its clips are stored; ours, what it makes of them.
PEERS = {
    "clipfeed-clips": ", clips",
    "clipfeed-patches": ", patches, 90 % masked",
    "mds-i420": ", I420",
    "mds-jpeg": ", JPEG",
    "litdata-i420": ", I420",
    "litdata-jpeg": ", JPEG",
    "webdataset-i420": ", I420",
    "webdataset-jpeg": ", JPEG",
    "torchcodec-clips": ", a file per clip",
    "torchcodec-videos": ", source videos",
}


def modules(side):
    """What a peer imports."""
    format, _ = side.split("-")
    return ["torch", FORMATS[format][1]] + ([] if format == "clipfeed" else ["torchvision"])


# The clips of our shards, in the formats of the peers. A clip is its frames, height, width and
# label, then its planes, compressed with zstd as in our shards, or the sizes of its JPEG files and
# the files.

HEADER = struct.Struct("<HHHi")
SIZES = struct.Struct(f"<{FRAMES}I")


def stored(shards):
    """Each clip of shards of i420 or i420-delta: its row, and its planes as bytes."""
    import numpy
    import pyarrow.parquet

    columns = ["payload", "frames", "height", "width", "label", "video", "pts_ns", "data"]
    for path in sorted(glob.glob(os.path.join(shards, "shard-*.parquet"))):
        for group in pyarrow.parquet.ParquetFile(path).iter_batches(16, columns=columns):
            for row in group.to_pylist():
                if row["frames"] != FRAMES or row["payload"] not in ("i420", "i420-delta"):
                    sys.exit(f"{path}: build shards of {FRAMES} frames, of i420 or i420-delta")
                data = row.pop("data")
                if row["payload"] == "i420-delta":
                    flat = numpy.frombuffer(data, numpy.uint8).reshape(FRAMES, -1)
                    planes = []
                    for height, width, start, end in plane_spans(row["height"], row["width"]):
                        plane = flat[:, start:end].reshape(FRAMES, height, width)
                        plane = plane.cumsum(-1, dtype="u1").cumsum(-2, dtype="u1")
                        planes.append(plane.reshape(FRAMES, -1))
                    data = numpy.concatenate(planes, 1).tobytes()
                yield row, data


def plane_spans(height, width):
    """Height, width, first and last byte of the planes of a frame."""
    luma, half = height * width, ((height + 1) // 2, (width + 1) // 2)
    chroma = half[0] * half[1]
    ends = [luma, luma + chroma, luma + 2 * chroma]
    return [(height, width, 0, ends[0]), (*half, *ends[:2]), (*half, *ends[1:])]


def label_of(row):
    """The class of a clip; -1 for none."""
    return -1 if row["label"] is None else row["label"]


def header(row):
    """The first bytes of a stored clip."""
    return HEADER.pack(FRAMES, row["height"], row["width"], label_of(row))


def i420_clips(shards):
    """Clips whose planes are compressed one clip at a time, with our level of zstd."""
    import pyarrow

    for row, data in stored(shards):
        yield header(row) + pyarrow.Codec("zstd", 3).compress(data, asbytes=True)


def jpeg_clips(shards):
    """Clips whose frames are JPEG files."""
    import torch
    from torchvision.io import encode_jpeg

    for row, data in stored(shards):
        frames = rgb(data, row["height"], row["width"])
        frames = frames.mul(255).round().clamp(0, 255).to(torch.uint8)
        files = [bytes(encode_jpeg(frame, JPEG_QUALITY).numpy()) for frame in frames.unbind(1)]
        yield header(row) + SIZES.pack(*map(len, files)) + b"".join(files)


def rgb(data, height, width):
    """Planes to R, G and B of 0 to 1, (3, T, H, W)."""
    import torch

    luma, chroma = planes(data, height, width)
    chroma = resized(chroma, 2 * chroma.shape[2], 2 * chroma.shape[3])[:, :, :height, :width]
    samples = torch.cat([luma, chroma], 1).transpose(0, 1).flatten(1).float()
    matrix, offset = colour_matrix((0, 0, 0), (1, 1, 1))
    return torch.addmm(offset, matrix, samples).view(3, FRAMES, height, width)


def write(side, shards, out):
    """Writes the files of a peer to a folder."""
    format, kind = side.split("-")
    if format != "torchcodec":
        return store_peers.write(format, shards, out, globals()[f"{kind}_clips"](shards))
    clips = []
    for number, (row, data) in enumerate(stored(shards)):
        if kind == "videos":
            path, seconds = os.path.abspath(row["video"]), [pts / 1e9 for pts in row["pts_ns"]]
            if not os.path.exists(path):
                raise FileNotFoundError(f"{path}: run this where the shards were built")
            clips.append((path, seconds, label_of(row)))
            continue
        name = f"{number:05}.mp4"
        command = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-r", "10"]
        command += ["-s", f"{row['width']}x{row['height']}", "-i", "-"]
        command += ["-c:v", "libx264", "-crf", str(CRF), os.path.join(out, name)]
        subprocess.run(command, input=data, check=True)
        clips.append((name, None, label_of(row)))
    with open(os.path.join(out, "clips.json"), "w") as file:
        json.dump(clips, file)


def data_bytes(side, path):
    """Bytes of the clips of a peer."""
    if side != "torchcodec-videos":
        return store_peers.folder_bytes(path)
    with open(os.path.join(path, "clips.json")) as file:
        return sum(map(os.path.getsize, {clip[0] for clip in json.load(file)}))


# The work: one random resized crop and flip of all frames of a clip, normalised. "torchvision": as
# its documentation shows, in the workers. "tuned": the fastest of several ways in PyTorch: bytes
# are cropped before anything is computed; workers resample, planes one by one, RGB with channels
# last in memory; they hand over bytes, a quarter of f32; and a thread of the process that trains
# normalises them into memory that is used again. Of planes, that is the product with a matrix that
# also turns them to R, G, B.


@functools.cache
def torchvision_transform():
    """The work as torchvision's documentation shows it, of frames (T, 3, H, W)."""
    import torch
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.RandomResizedCrop((SIZE, SIZE), AREA, ASPECT, antialias=False),
            v2.RandomHorizontalFlip(FLIP),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


def planes(data, height, width):
    """Luma (T, 1, H, W) and chroma (T, 2, H / 2, W / 2), without a copy."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        flat = torch.frombuffer(data, dtype=torch.uint8).view(FRAMES, -1)
    luma, chroma = flat.split([height * width, flat.shape[1] - height * width], 1)
    half = ((height + 1) // 2, (width + 1) // 2)
    return luma.unflatten(1, (1, height, width)), chroma.unflatten(1, (2, *half))


def resized(frames, height=SIZE, width=SIZE):
    """Bilinear, without antialias."""
    import torch

    return torch.nn.functional.interpolate(frames, (height, width), mode="bilinear")


@functools.cache
def colour_matrix(mean, std):
    """The map from Y'CbCr of BT.601, limited range, to normalised R, G, B."""
    import torch

    matrix = [[1.164384, 0, 1.596027], [1.164384, -0.391762, -0.812968], [1.164384, 2.017232, 0]]
    matrix, mean, std = torch.tensor(matrix), torch.tensor(mean), torch.tensor(std)
    offset = matrix @ torch.tensor([-16.0, -128.0, -128.0]) / 255
    return matrix / 255 / std[:, None], ((offset - mean) / std)[:, None]


@functools.cache
def normalisation():
    """Gain and offset of bytes."""
    import torch

    mean, std = (torch.tensor(values)[:, None, None, None] for values in (MEAN, STD))
    return 1 / (255 * std), mean / std


def normalise(kind, samples, out):
    """Bytes of one clip, planes or R, G, B, (3, T, S, S), to normalised R, G, B."""
    import torch

    if kind == "i420":
        matrix, offset = colour_matrix(MEAN, STD)
        torch.addmm(offset, matrix, samples.flatten(1).float(), out=out.flatten(1))
    else:
        gain, offset = normalisation()
        out.copy_(samples).mul_(gain).sub_(offset)


def normalised(kind, batches):
    """Batches of bytes to batches of values, made ahead by a thread."""
    import torch

    # One that the consumer holds, one in the queue, and one that is being made.
    memory = [torch.empty(BATCH, 3, FRAMES, SIZE, SIZE) for _ in range(3)]
    done = queue.Queue(1)

    def work():
        torch.set_num_threads(1)
        for number, (samples, labels) in enumerate(batches):
            out = memory[number % len(memory)][: len(samples)]
            for pair in zip(samples, out):
                normalise(kind, *pair)
            done.put((out, labels))

    def guarded():
        try:
            work()
        except BaseException as error:
            done.put(error)

    threading.Thread(target=guarded, daemon=True).start()
    while True:
        batch = done.get()
        if isinstance(batch, BaseException):
            raise batch
        yield batch


def drawn(height, width):
    """A random crop, and whether to flip it."""
    import torch
    from torchvision.transforms import RandomResizedCrop

    picture = torch.empty(0, height, width)
    crop = RandomResizedCrop.get_params(picture, list(AREA), list(ASPECT))
    return crop, float(torch.rand(())) < FLIP


def sample_of_i420(packed, height, width, transform):
    """A crop of planes; it starts and ends between samples of chroma."""
    import pyarrow
    import torch

    length = FRAMES * plane_spans(height, width)[-1][-1]
    data = pyarrow.Codec("zstd").decompress(packed, length)
    if transform == "torchvision":
        return torchvision_transform()(rgb(data, height, width).transpose(0, 1)).transpose(0, 1)
    luma, chroma = planes(data, height, width)
    crop, flip = drawn(height, width)
    top, left, high, wide = (value // 2 for value in crop)
    luma = luma[:, :, 2 * top : 2 * (top + high), 2 * left : 2 * (left + wide)]
    chroma = chroma[:, :, top : top + high, left : left + wide]
    if flip:
        luma, chroma = luma.flip(3), chroma.flip(3)
    # Frames as if they were channels: faster.
    luma = resized(luma[:, 0].unflatten(0, (FRAMES // 4, 4))).flatten(0, 1)
    chroma = resized(chroma)
    return torch.stack([luma, chroma[:, 0], chroma[:, 1]])


def sample_of_frames(frames, transform):
    """A crop of frames of bytes whose channels are last in memory, which stay so."""
    import torch

    if transform == "torchvision":
        frames = frames if isinstance(frames, torch.Tensor) else torch.stack(frames)
        return torchvision_transform()(frames).transpose(0, 1)
    (top, left, high, wide), flip = drawn(*frames[0].shape[1:])
    crops = [frame[:, top : top + high, left : left + wide].movedim(0, 2) for frame in frames]
    crops = torch.stack(crops).movedim(3, 1)
    crops = resized(crops)
    return (crops.flip(3) if flip else crops).transpose(0, 1).contiguous()


def sample_of_jpeg(packed, transform):
    """A crop of JPEG files."""
    import torch
    from torchvision.io import decode_jpeg

    sizes = SIZES.unpack_from(packed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        files = torch.frombuffer(packed[SIZES.size :], dtype=torch.uint8).split(sizes)
    return sample_of_frames(decode_jpeg(list(files)), transform)


def sample(args, data):
    """A stored clip to a crop, of bytes where the transform is the tuned one, and its label."""
    frames, height, width, label = HEADER.unpack_from(data)
    assert frames == FRAMES
    packed = memoryview(data)[HEADER.size :]
    if args.kind == "i420":
        return sample_of_i420(packed, height, width, args.transform), label
    return sample_of_jpeg(packed, args.transform), label


# The loaders. Each gives batches of clips and labels, of an epoch; peers' are of bytes where the
# transform is the tuned one.


def mds_loader(args):
    """MosaicML Streaming."""
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    class Clips(StreamingDataset):
        def __getitem__(self, index):
            return sample(args, super().__getitem__(index)["clip"])

    clips = Clips(local=args.data, shuffle=True, batch_size=BATCH)
    return DataLoader(clips, BATCH, **workers(args))


def litdata_loader(args):
    """LitData."""
    from litdata import StreamingDataLoader, StreamingDataset

    class Clips(StreamingDataset):
        def __getitem__(self, index):
            return sample(args, super().__getitem__(index))

    clips = Clips(args.data, shuffle=True)
    return StreamingDataLoader(clips, batch_size=BATCH, **workers(args))


def webdataset_loader(args):
    """WebDataset."""
    import webdataset
    from torch.utils.data import default_collate

    def clip(stored):
        return sample(args, stored["clip"])

    urls = sorted(glob.glob(os.path.join(args.data, "*.tar")))
    clips = webdataset.WebDataset(urls, shardshuffle=len(urls)).shuffle(100).map(clip)
    clips = clips.batched(BATCH, collation_fn=default_collate, partial=False)
    return webdataset.WebLoader(clips, batch_size=None, **workers(args))


def torchcodec_loader(args):
    """TorchCodec: the frames of a clip's own video, or those of its times in the source."""
    from torch.utils.data import DataLoader, Dataset
    from torchcodec.decoders import VideoDecoder

    class Clips(Dataset):
        def __init__(self):
            with open(os.path.join(args.data, "clips.json")) as file:
                self.clips = json.load(file)

        def __len__(self):
            return len(self.clips)

        def __getitem__(self, index):
            path, seconds, label = self.clips[index]
            path = os.path.join(args.data, path)
            decoder = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="approximate")
            if seconds is None:
                frames = decoder.get_frames_in_range(0, FRAMES).data
            else:
                frames = decoder.get_frames_played_at(seconds).data
            return sample_of_frames(frames, args.transform), label

    return DataLoader(Clips(), BATCH, shuffle=True, drop_last=True, **workers(args))


def clipfeed_loader(args):
    """Batches of our loader as tensors: the pixels, and the rest."""
    import clipfeed

    patches = args.kind == "patches"
    loader = clipfeed.Loader(
        args.data,
        BATCH,
        FRAMES,
        SIZE,
        mask_ratio=0.9 if patches else None,
        form=args.kind,
        dtype="float32",
        threads=args.workers,
        area=AREA,
        aspect=ASPECT,
        flip=FLIP,
    )

    class Tensors:
        def __iter__(self):
            for batch in loader:
                tensors = batch.torch()
                if patches:
                    yield tensors["visible"], tensors
                else:
                    yield tensors["pixel_values"], tensors

    return Tensors()


# One run of one of them.


def endless(loader):
    """Batches of one epoch after the other; those at its end may be smaller."""
    while True:
        count = 0
        for batch in loader:
            count += 1
            yield batch
        if not count:
            sys.exit("no batches")


def check(side, pixels):
    """Stops where a batch is not what it should be."""
    tokens = FRAMES // 2 * (SIZE // 16) ** 2
    shape = (BATCH, 3, FRAMES, SIZE, SIZE)
    if side == "clipfeed-clips":
        shape = (BATCH, FRAMES, 3, SIZE, SIZE)
    elif side == "clipfeed-patches":
        shape = (BATCH, tokens // 10, 3, 2, 16, 16)
    found = (tuple(pixels.shape), str(pixels.dtype))
    if found != (shape, "torch.float32"):
        sys.exit(f"{side}: a batch of {found}, not {shape}")
    mean, deviation = float(pixels.mean()), float(pixels.std())
    if not (abs(mean) < 2 and 0.1 < deviation < 3):
        sys.exit(f"{side}: values of mean {mean}, standard deviation {deviation}")


def run(args):
    """Takes batches, and prints clips per second, share of time waited, seconds to the first."""
    # Imports take seconds, and are no part of the first batch.
    for module in modules(args.side):
        importlib.import_module(module)
    if args.format == "mds":
        from streaming.base.util import clean_stale_shared_memory

        # Of a process that was killed.
        clean_stale_shared_memory()
    begin = time.monotonic()
    batches = endless(globals()[f"{args.format}_loader"](args))
    if args.format != "clipfeed" and args.transform == "tuned":
        batches = normalised(args.kind, batches)
    first, start, clips, waited = None, None, 0, 0.0
    while True:
        asked = time.monotonic()
        batch = next(batches)
        got = time.monotonic()
        if first is None:
            first = got
            check(args.side, batch[0])
        elif start is None:
            # Batches that were made ahead are taken before the clock starts.
            start = got if got - first >= args.warm_up else None
        else:
            clips += len(batch[0])
            waited += got - asked
            if got - start >= args.seconds:
                break
        if args.rate:
            time.sleep(len(batch[0]) / args.rate)
    wall = got - start
    figures = {"clips/s": clips / wall, "stall": waited / wall, "first": first - begin}
    print(json.dumps(figures), flush=True)
    # Threads of some peers would go on.
    os._exit(0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=PEERS)
    parser.add_argument("shards")
    parser.add_argument("work")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--warm-up", type=float, default=2)
    parser.add_argument("--transform", choices=["tuned", "torchvision"], default="tuned")
    parser.add_argument("--rate", type=float, help="clips per second that are taken; default: all")
    args = parser.parse_args()
    args.format, args.kind = args.side.split("-")
    ours = args.format == "clipfeed"
    args.data = args.shards if ours else os.path.join(args.work, args.side)
    run(args)


if __name__ == "__main__":
    main()
