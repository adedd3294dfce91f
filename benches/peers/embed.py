"""Features and classes of clips by `trainer embed` and `trainer eval`, beside the same encoder in PyTorch on the same clips, in turns on this processor.

    pip install torch torchcodec numpy pyarrow safetensors
    benches/peers/embed.py target/release/trainer target/release/shardtool VIDEOS WORK [--presets base small] [--clips 16] [--dtypes f32 bf16] [--rounds 3]

VIDEOS is a folder of videos with a short side of 256 pixels or less, whose frames both then take as they are. So many clips of them are taken; WORK gets
shards and weights (one step each), once. From files on disk to features on disk, without the start of the process, its libraries and the reading of weights;
PyTorch reads and computes one clip before its clock starts. Work: 16 frames at stride 4 of 30 a second, the largest central square, resized to 224; of an
evaluation three squares of one clip a video. Of fine-tuning the median step of a few, whole clips, every weight trained, without loading.

PyTorch has fused attention and projections, no gradients, and the faster of autocast and bf16 weights at the fastest of the batch sizes, which are tried first.
From videos it has torchcodec in threads; from shards its best case, an array of decoded RGB frames in a file. Figures are medians over rounds: clips (views) a
second, and processor seconds a clip, which others on the machine disturb less; ours are those of the whole process, start included. Features are compared: the
least cosine of a clip's two, and the greatest difference. Those from videos are further apart than those from shards: the RGB that torchcodec makes
is 1 to 1.5 levels of 255 darker than an exact conversion.
"""

import argparse
import glob
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time

SIZE, FRAMES, TUBELET, PATCH = 224, 16, 2, 16
KINDS = ["videos", "shards", "eval", "finetune"]
HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16}


# The peer: one process of it.


def squares(height, width, count):
    """Corners of `count` squares along the longer side; one alone lies in the middle."""
    side, room = min(height, width), abs(height - width)
    places = [room // 2] if count == 1 else [round(room * place / (count - 1)) for place in range(count)]
    return [(place, 0, side) if height > width else (0, place, side) for place in places]


def views_of(frames, count):
    """`[16, 3, H, W]` of uint8 to `[count, 3, 16, 224, 224]`, normalised."""
    import torch
    from torch.nn import functional

    views = []
    for top, left, side in squares(frames.shape[2], frames.shape[3], count):
        cut = frames[:, :, top : top + side, left : left + side].float()
        cut = functional.interpolate(cut, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        views.append(cut.mul_(1 / (255 * 0.225)).sub_(0.45 / 0.225).transpose(0, 1))
    return torch.stack(views)


def frames_of(video, seconds):
    """Frames of a video at some times, `[16, 3, H, W]`."""
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder(video, num_ffmpeg_threads=1, seek_mode="approximate").get_frames_played_at(seconds).data


def colours(row):
    """A shard's frames in colour, `[16, 3, H, W]` of uint8, exact but for the rounding: the planes are Y'CbCr of BT.601, chroma level with even columns."""
    import numpy
    import torch
    from torch.nn import functional

    height, width = row["height"], row["width"]
    if (row["color_matrix"], row["color_range"]) != ("bt601", "limited") or row["payload"] not in ("i420", "i420-delta"):
        sys.exit(f"{row['video']}: its planes are {row['color_matrix']}, {row['color_range']} range; the comparison is for bt601 of limited range")
    high, wide = (height + 1) // 2, (width + 1) // 2
    planes = numpy.frombuffer(row["data"], numpy.uint8).reshape(FRAMES, -1)
    luma, chroma = planes[:, : height * width].reshape(FRAMES, height, width), planes[:, height * width :].reshape(FRAMES, 2, high, wide)
    if row["payload"] == "i420-delta":
        luma, chroma = (part.cumsum(-1, dtype=numpy.uint8).cumsum(-2, dtype=numpy.uint8) for part in (luma, chroma))
    luma, chroma = (torch.from_numpy(part.astype(numpy.float32)) for part in (luma, chroma))
    chroma = functional.interpolate(chroma, size=(2 * high, wide), mode="bilinear", align_corners=False)
    beyond = torch.cat([chroma[..., 1:], chroma[..., -1:]], -1)
    chroma = torch.stack([chroma, (chroma + beyond) / 2], -1).flatten(3)[:, :, :height, :width]
    y, (cb, cr) = (luma - 16) * (255 / 219), ((chroma - 128) * (255 / 224)).unbind(1)
    rgb = torch.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 1)
    return rgb.round().clamp(0, 255).to(torch.uint8)


def encoder(path, heads):
    import torch
    from safetensors.torch import load_file
    from torch import nn
    from torch.nn import functional

    weights = load_file(path)
    width, depth = weights["norm.weight" if "norm.weight" in weights else "fc_norm.weight"].shape[0], 0
    while f"blocks.{depth}.norm1.weight" in weights:
        depth += 1

    class Block(nn.Module):
        def __init__(self, number):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            for part in ["weight", "bias"]:
                of = lambda name: weights[f"blocks.{number}.{name}.{part}"]
                qkv = torch.cat([of(f"attn.{name}") for name in "qkv"])
                names = {"norm1": of("norm1"), "norm2": of("norm2"), "qkv": qkv, "proj": of("attn.proj"), "fc1": of("mlp.fc1"), "fc2": of("mlp.fc2")}
                for name, value in names.items():
                    getattr(getattr(self, name), part).data = value

        def forward(self, x):
            batch, tokens, _ = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(q, k, v)
            x = x + self.proj(attended.transpose(1, 2).reshape(batch, tokens, width))
            return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.Sequential(*[Block(number) for number in range(depth)])
            of = lambda name: nn.Parameter(weights[name])
            space, times = weights["pos_embed_spatial"], weights["pos_embed_temporal"]
            self.embed = nn.Linear(3 * TUBELET * PATCH * PATCH, width)
            self.embed.weight.data = weights["patch_embed.proj.weight"].reshape(width, -1)
            self.embed.bias.data = weights["patch_embed.proj.bias"]
            self.places = nn.Parameter((times[:, :, None] + space[:, None]).reshape(1, -1, width))
            self.first = nn.Parameter(weights["cls_token"] + weights["pos_embed_class"])
            norm = "norm" if "norm.weight" in weights else "fc_norm"
            self.norm = nn.LayerNorm(width, eps=1e-6)
            self.norm.weight.data, self.norm.bias.data = weights[f"{norm}.weight"], weights[f"{norm}.bias"]
            self.head = (of("head.weight"), of("head.bias")) if "head.weight" in weights else None

        def forward(self, clips):
            batch, steps, side = clips.shape[0], FRAMES // TUBELET, SIZE // PATCH
            patches = clips.view(batch, 3, steps, TUBELET, side, PATCH, side, PATCH).permute(0, 2, 4, 6, 1, 3, 5, 7)
            x = self.embed(patches.reshape(batch, steps * side * side, -1)) + self.places
            x = self.blocks(torch.cat([self.first.expand(batch, -1, -1).to(x.dtype), x], 1))
            feature = self.norm(x[:, 1:].mean(1))
            if self.head is None:
                return feature.float()
            weight, bias = self.head
            return functional.linear(feature, weight.to(feature.dtype), bias.to(feature.dtype)).float().softmax(1)

    return Encoder().eval()


def torch_run(job):
    """Does what `job` says, and prints seconds and processor seconds of it as JSON."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy
    import pyarrow
    import pyarrow.parquet
    import torch

    torch.set_num_threads(job["threads"])
    model, views = encoder(job["weights"], job["heads"]), job["views"]
    if job.get("steps"):
        return torch_finetune(model, job)
    values = torch.bfloat16 if job["way"] == "weights" else torch.float32
    model = model.to(values)

    def compute(clips):
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=job["way"] == "autocast"):
            return model(clips.to(values))

    def load(clip):
        if job["source"] == "videos":
            frames = frames_of(clip["path"], clip["seconds"])
        else:
            frames = torch.from_numpy(numpy.load(clip["array"], mmap_mode="c"))
        return views_of(frames, views)

    # Libraries are loaded and memory is had before the clock starts.
    compute(load(job["clips"][0]))
    began, cpu, waited = time.perf_counter(), time.process_time(), 0.0
    outputs = []
    with ThreadPoolExecutor(2) as pool:
        batch = max(1, job["batch"] // views)
        loads = [pool.submit(load, clip) for clip in job["clips"]]
        for start in range(0, len(loads), batch):
            asked = time.perf_counter()
            clips = torch.cat([one.result() for one in loads[start : start + batch]])
            waited += time.perf_counter() - asked
            made = compute(clips)
            outputs.extend(made.view(-1, views, made.shape[1]).mean(1))
    table = pyarrow.table({"feature": pyarrow.array([output.tolist() for output in outputs], type=pyarrow.list_(pyarrow.float32()))})
    pyarrow.parquet.write_table(table, job["out"], compression="zstd")
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "waited": waited}))


def torch_finetune(model, job):
    """Trains the classifier for some steps on random clips: prints the median seconds of a step."""
    import torch

    parameters = [*model.parameters(), *model.head]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, weight_decay=0.05)
    clips, labels = torch.randn(job["batch"], 3, FRAMES, SIZE, SIZE), torch.zeros(job["batch"], dtype=torch.long)
    seconds = []
    for _ in range(job["steps"] + 1):
        began = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=job["way"] == "autocast"):
            loss = torch.nn.functional.nll_loss(model(clips).log(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": statistics.median(seconds[1:])}))


# Both, in turns.


def run(command):
    """Standard output, and processor seconds of the process and its children."""
    before = os.times()
    out = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout
    after = os.times()
    return out, after.children_user + after.children_system - before.children_user - before.children_system


def peer(path, name, job):
    file = path(f"{name}.json")
    with open(file, "w") as out:
        json.dump(job, out)
    return json.loads(run([sys.executable, __file__, "--torch", file])[0])


def ours(trainer, command, weights, data, dtype, threads, extra):
    out, cpu = run([trainer, command, "--weights", weights, "--data", data, "--dtype", dtype, "--threads", threads, "--json", *extra])
    return {**json.loads(out), "cpu_seconds": cpu}


def finetune(trainer, weights, data, out, dtype, threads, steps, batch):
    """The median seconds of a step of ours, after the first one."""
    shutil.rmtree(out, ignore_errors=True)
    options = {"--weights": weights, "--data": data, "--holdout": 0, "--steps": steps + 1, "--batch-size": batch, "--dtype": dtype, "--threads": threads, "--out": out}
    run([trainer, "finetune", *[word for option in options.items() for word in option]])
    with open(os.path.join(out, "metrics.jsonl")) as metrics:
        seconds = [step["step_seconds"] for step in map(json.loads, metrics) if "step_seconds" in step]
    return {"seconds": statistics.median(seconds[1:])}


def prepare(args, path):
    """Videos, shards, arrays; returns the clips of a pass, and those of an evaluation."""
    import numpy
    import pyarrow.parquet

    if not os.path.exists(path("shards")):
        found = sorted(file for file in glob.glob(os.path.join(args.videos, "**", "*"), recursive=True) if os.path.isfile(file))
        for number, video in enumerate(found):
            # Two classes, of which one is right by chance every other time.
            folder = path(f"videos/class{number % 2}")
            os.makedirs(folder, exist_ok=True)
            shutil.copyfile(video, os.path.join(folder, f"{number:04}{os.path.splitext(video)[1]}"))
            build = [args.shardtool, "build", path("videos"), "--labels", "dirs", "--force"]
            if json.loads(run([*build, "--out", path("shards"), "--json"])[0])["clips"] >= args.clips:
                break
        run([*build, "--clips-per-video", 1, "--out", path("eval-shards")])
    sets = []
    for folder in ["shards", "eval-shards"]:
        table = pyarrow.parquet.read_table(sorted(glob.glob(path(f"{folder}/*.parquet"))))
        clips = []
        for number, row in enumerate(table.to_pylist()):
            video, array = os.path.join(path("videos"), row["video"]), path(f"{folder}-{number:05}.npy")
            if min(row["source_height"], row["source_width"]) > 256:
                sys.exit(f"{row['video']} is scaled down for shards: take videos with a short side of 256 pixels or less")
            if not os.path.exists(array):
                numpy.save(array, colours(row))
            # A hair after a frame's time lies surely within it.
            seconds = [time / 1e9 + 1e-3 for time in row["pts_ns"]]
            clips.append({"path": video, "seconds": seconds, "array": array, "key": [os.path.basename(video), row["clip"]]})
        sets.append(clips)
    return sets


def weights_of(args, path, preset):
    """Run folders of an encoder and of a classifier, one step each."""
    for command, weights in [("run", ["--preset", preset]), ("finetune", ["--weights", path(f"run-{preset}"), "--holdout", 0])]:
        if not os.path.exists(path(f"{command}-{preset}/checkpoints/step-000001")):
            shutil.rmtree(path(f"{command}-{preset}"), ignore_errors=True)
            run([args.trainer, command, *weights, "--data", path("shards"), "--steps", 1, "--batch-size", 1, "--out", path(f"{command}-{preset}")])
    return path(f"run-{preset}"), path(f"finetune-{preset}")


def agreement(ours_file, theirs_file, clips):
    """Least cosine of a clip's two features, and greatest difference."""
    import numpy
    import pyarrow.parquet

    rows = {(os.path.basename(row["video"]), row["clip"]): row["feature"] for row in pyarrow.parquet.read_table(ours_file).to_pylist()}
    a = numpy.array([rows[tuple(clip["key"])] for clip in clips])
    b = numpy.array(pyarrow.parquet.read_table(theirs_file)["feature"].to_pylist())
    cosine = (a * b).sum(1) / numpy.linalg.norm(a, axis=1) / numpy.linalg.norm(b, axis=1)
    return float(cosine.min()), float(numpy.abs(a - b).max())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainer")
    parser.add_argument("shardtool")
    parser.add_argument("videos")
    parser.add_argument("work")
    parser.add_argument("--presets", nargs="+", default=["base", "small"], choices=HEADS)
    parser.add_argument("--clips", type=int, default=16, help="videos are taken until they have so many clips")
    parser.add_argument("--dtypes", nargs="+", default=["f32", "bf16"], choices=["f32", "bf16"])
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="threads that compute, of both")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8], help="batch sizes that are tried for PyTorch")
    parser.add_argument("--tune-clips", type=int, default=8, help="clips that the tries take")
    parser.add_argument("--ways", nargs="+", default=["autocast", "weights"], help="what is tried of bf16 for PyTorch")
    parser.add_argument("--batch-size", type=int, default=4, help="of ours")
    parser.add_argument("--finetune-clips", type=int, default=2, help="clips per step of fine-tuning, of both")
    parser.add_argument("--finetune-steps", type=int, default=3, help="steps of fine-tuning after the first one")
    parser.add_argument("--json", metavar="FILE", help="write all figures there [default: WORK/embed.json]")
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    path = lambda name: os.path.join(os.path.abspath(args.work), name)
    clips, eval_clips = prepare(args, path)
    record = []
    header = f"{'':26} {'ours':>9} {'PyTorch':>9} {'ratio':>6}   {'ours':>7} {'PyTorch':>7} {'ratio':>6}   {'cosine':>9} {'differ':>8}"
    print(f"{header}\n{'':26} {'a second':>19} {'':6}   {'CPU s each':>15}", flush=True)
    for preset in args.presets:
        encoder_run, classifier_run = weights_of(args, path, preset)
        for dtype in args.dtypes:
            safetensors = lambda folder: os.path.join(folder, "checkpoints/step-000001/model.safetensors")
            job = {"weights": safetensors(encoder_run), "heads": HEADS[preset], "threads": args.threads, "views": 1, "source": "shards"}
            job |= {"clips": clips, "batch": 1, "way": "f32", "out": path("theirs.parquet")}
            tries = [(way, batch) for way in (["f32"] if dtype == "f32" else args.ways) for batch in args.batches]
            if len(tries) > 1:
                few = {"clips": clips[: args.tune_clips]}
                # Processor seconds: what others do on the machine must not choose for PyTorch.
                tried = {one: peer(path, "tune", job | few | dict(zip(["way", "batch"], one)))["cpu_seconds"] for one in tries}
                record.append({"preset": preset, "dtype": dtype, "tried": [[*one, seconds] for one, seconds in tried.items()]})
                tries = [min(tried, key=tried.get)]
            job |= {"way": tries[0][0], "batch": tries[0][1]}
            ran = {kind: ([], []) for kind in args.kinds}
            for _ in range(args.rounds):
                for kind in args.kinds:
                    batch = ["--batch-size", args.batch_size]
                    if kind == "eval":
                        extra = [*batch, "--views", "1x3"]
                        one = ours(args.trainer, "eval", classifier_run, path("eval-shards"), dtype, args.threads, extra)
                        two = job | {"weights": safetensors(classifier_run), "clips": eval_clips, "views": 3}
                    elif kind == "finetune":
                        sizes = {"steps": args.finetune_steps, "batch": args.finetune_clips}
                        one = finetune(args.trainer, encoder_run, path("shards"), path("finetuned"), dtype, args.threads, *sizes.values())
                        two = job | sizes | {"weights": safetensors(classifier_run), "way": "f32" if dtype == "f32" else "autocast"}
                    else:
                        one = ours(args.trainer, "embed", encoder_run, path(kind), dtype, args.threads, [*batch, "--out", path("ours.parquet")])
                        two = job | {"source": kind}
                    ran[kind][0].append(one)
                    ran[kind][1].append(peer(path, "job", two))
                    if kind in ["videos", "shards"]:
                        ran[kind][1][-1]["agreement"] = agreement(path("ours.parquet"), job["out"], clips)
            for kind, sides in ran.items():
                count = {"eval": 3 * len(eval_clips), "finetune": args.finetune_clips}.get(kind, len(clips))
                rates = [statistics.median(count / one["seconds"] for one in side) for side in sides]
                cpu = [statistics.median(one.get("cpu_seconds", math.nan) / count for one in side) for side in sides]
                agrees = sides[1][-1].get("agreement")
                record.append({"preset": preset, "dtype": dtype, "kind": kind, "count": count, "ours": sides[0], "torch": sides[1]})
                record[-1] |= {"way": job["way"], "batch": job["batch"], "per_second": rates, "cpu_seconds_each": cpu, "agreement": agrees}
                tail = f"   {agrees[0]:9.6f} {agrees[1]:8.4f}" if agrees else ""
                used = f"   PyTorch: batch {job['batch']}, {job['way']}" if kind != "finetune" else f"   both: batch {args.finetune_clips}"
                name = {"eval": "eval 1x3, views", "finetune": "finetune, clips"}.get(kind, f"embed, {kind}")
                print(
                    f"{preset:5} {dtype:4} {name:15} {rates[0]:9.3f} {rates[1]:9.3f} {rates[0] / rates[1]:6.2f}"
                    f"   {cpu[0]:7.3f} {cpu[1]:7.3f} {cpu[1] / cpu[0]:6.2f}{tail}{used}",
                    flush=True,
                )
                with open(args.json or path("embed.json"), "w") as out:
                    json.dump(record, out, indent=1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--torch"]:
        with open(sys.argv[2]) as file:
            torch_run(json.load(file))
    else:
        main()
