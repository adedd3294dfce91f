"""Pre-train a VideoMAE of Hugging Face transformers on shards.

    python pretrain_videomae.py ./shards --steps 2000
    python pretrain_videomae.py ./shards --steps 2000 --resume runs/videomae/checkpoint.pt

Writes a checkpoint and, at the end, a folder for `from_pretrained`. A resumed run sees the batches
that it would have seen without the interruption.

Needs: pip install torch transformers
"""

import argparse
import math
import time
from itertools import chain, repeat
from pathlib import Path

import torch
from transformers import VideoMAEConfig, VideoMAEForPreTraining

import clipfeed


def parse_args():
    parser = argparse.ArgumentParser(
        description="Pre-train a VideoMAE of Hugging Face transformers on shards.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("data", nargs="+", help="folders or URLs of shards")
    add("--out", type=Path, default="runs/videomae", help="folder for the checkpoint and the model")
    add("--resume", type=Path, metavar="FILE", help="continue from this checkpoint")
    add("--steps", type=int, default=1000, help="length of the run")
    add("--batch-size", type=int, default=8, help="clips per step")
    add("--frames", type=int, default=16, help="frames per clip")
    add("--image-size", type=int, default=224, help="height and width of a clip, in pixels")
    add("--mask-ratio", type=float, default=0.9, help="share of the tokens that are masked")
    add("--norm-pix-loss", action=argparse.BooleanOptionalAction, default=True,
        help="predict patches less their mean, divided by their deviation")  # fmt: skip
    add("--lr", type=float, default=1e-3, help="highest learning rate")
    add("--seed", type=int, default=0, help="seed of weights, order, crops and masks")
    add("--log-every", type=int, default=10, metavar="N", help="steps between progress lines")
    add("--save-every", type=int, default=500, metavar="N", help="steps between checkpoints")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to train")
    return parser.parse_args()


def learning_rate(step, args):
    """A tenth of warm-up, then half a cosine."""
    warmup = max(1, args.steps // 10)
    rise, fall = step / warmup, (step - warmup) / max(1, args.steps - warmup)
    return args.lr * (rise if step < warmup else (1 + math.cos(math.pi * fall)) / 2)


def main():
    args = parse_args()
    torch.manual_seed(args.seed)
    config = VideoMAEConfig(
        image_size=args.image_size, num_frames=args.frames, norm_pix_loss=args.norm_pix_loss,
        hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=3,
        decoder_hidden_size=96, decoder_intermediate_size=384, decoder_num_hidden_layers=2,
        decoder_num_attention_heads=3,
    )  # fmt: skip
    model = VideoMAEForPreTraining(config).to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.05)
    loader = clipfeed.Loader(
        args.data, args.batch_size, args.frames, args.image_size, seed=args.seed,
        mask_kind="tube", mask_ratio=args.mask_ratio,
    )  # fmt: skip
    done = 0
    if args.resume:
        state = torch.load(args.resume, map_location=args.device)
        done = state["step"]
        for part, value in zip((model, optimizer, loader), state["parts"]):
            part.load_state_dict(value)
    args.out.mkdir(parents=True, exist_ok=True)

    losses, since = [], time.monotonic()
    # Epoch after epoch. The range comes first in zip, so no batch is taken that is not used.
    for step, batch in zip(range(done + 1, args.steps + 1), chain.from_iterable(repeat(loader))):
        tensors = {name: tensor.to(args.device) for name, tensor in batch.torch().items()}
        with torch.autocast("cuda", torch.bfloat16, enabled=args.device.startswith("cuda")):
            loss = model(**tensors).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = learning_rate(step, args)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())  # its value is read later: that waits for the device
        if step % args.log_every == 0:
            mean, seconds = torch.stack(losses).mean(), time.monotonic() - since
            stall = loader.stats(restart=True)["stall_fraction"]
            print(f"step {step}/{args.steps}, epoch {step / len(loader):.2f}: loss {mean:.4f}, "
                  f"{len(losses) * args.batch_size / seconds:.1f} clips/s, "
                  f"{stall:.1%} of the time waiting for data", flush=True)  # fmt: skip
            losses, since = [], time.monotonic()
        if step % args.save_every == 0 or step == args.steps:
            parts = [part.state_dict() for part in (model, optimizer, loader)]
            torch.save({"step": step, "parts": parts}, args.out / "checkpoint.pt")
    model.save_pretrained(args.out)


if __name__ == "__main__":
    main()
