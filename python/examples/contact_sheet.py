"""Draw a batch: a row of frames for each clip, and below it what an encoder sees of it.

    python contact_sheet.py ./shards --out sheet.png --mask-kind tube

Needs: pip install pillow
"""

import argparse

import numpy as np
from PIL import Image

import clipfeed


def main():
    parser = argparse.ArgumentParser(
        description="Draw a batch and its masks.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("data", nargs="+", help="folders or URLs of shards")
    add("--out", default="sheet.png", help="picture to write")
    add("--clips", type=int, default=4, help="rows")
    add("--frames", type=int, default=16, help="columns")
    add("--size", type=int, default=112, help="height and width of a frame, in pixels")
    add("--mask-kind", default="random", choices=["random", "tube", "frame", "block"])
    add("--mask-ratio", type=float, default=0.9, help="share of the tokens that are masked")
    add("--seed", type=int, default=0, help="seed of clips, crops and masks")
    args = parser.parse_args()

    tubelet, patch, grey = 2, 16, 128
    with clipfeed.Loader(
        args.data, args.clips, args.frames, args.size, dtype="uint8", seed=args.seed,
        mask_kind=args.mask_kind, mask_ratio=args.mask_ratio, tubelet=tubelet, patch=patch,
    ) as loader:  # fmt: skip
        batch = next(iter(loader))
    clips = batch.clips.transpose(0, 2, 3, 4, 1)  # (clips, frames, height, width, 3)
    side = args.size // patch
    masked = batch.bool_masked_pos.reshape(len(batch), -1, side, side)
    for axis, times in enumerate((tubelet, patch, patch), start=1):
        masked = masked.repeat(times, axis)  # at last one value for each pixel
    rows = []
    for clip, hidden in zip(clips, masked):
        rows += [np.hstack(clip), np.hstack(np.where(hidden[..., None], grey, clip))]
    Image.fromarray(np.vstack(rows).astype(np.uint8)).save(args.out)
    print(f"{args.out}: clips {', '.join(map(str, batch.clip_ids))}")


if __name__ == "__main__":
    main()
