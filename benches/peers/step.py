"""A training step of this project beside the same step in PyTorch, on this machine's processor, in turns.

    pip install torch
    benches/peers/step.py target/release/trainer [--presets small:2 base:2 large:1] [--dtypes f32 bf16] [--rounds 3] [--steps 5]
                         [--instruction-set avx2|avx512|avx512bf16] [--threads 2]

Both train the paper's model on one batch of random numbers: the encoder on the visible tenth of 1568 tokens, the decoder (4 blocks, width 512, 16 heads) on all,
mean squared error, backward, AdamW. PyTorch has fused attention, and autocast for bf16. Each round starts a process of each; the figures are medians over rounds
of each process's median, in seconds, and the most memory of any. --instruction-set forces this project, PyTorch, oneDNN and MKL, so that a CPU with AVX-512 can
measure AVX2. "share" is the step's FLOP/s over those of one large product of ours.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16), "huge": (1280, 32, 16)}
TOKENS, PIXELS, PREDICTED = 1568, 1536, 768
DECODER = (512, 4, 16)


def torch_step(preset, clips, dtype, steps, threads):
    """One process's steps in PyTorch: prints seconds and bytes as JSON."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(threads)

    class Block(nn.Module):
        def __init__(self, width, heads):
            super().__init__()
            self.heads = heads
            self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            batch, tokens, width = x.shape
            heads = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
            x = x + self.proj(attended.transpose(1, 2).reshape(batch, tokens, width))
            return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))

    class Autoencoder(nn.Module):
        def __init__(self, width, depth, heads):
            super().__init__()
            inner, blocks, inner_heads = DECODER
            self.embed, self.norm = nn.Linear(PIXELS, width), nn.LayerNorm(width, eps=1e-6)
            self.encoder = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
            self.to_decoder, self.mask = nn.Linear(width, inner), nn.Parameter(torch.zeros(1, 1, inner))
            self.decoder = nn.Sequential(*[Block(inner, inner_heads) for _ in range(blocks)])
            self.decoder_norm, self.predict = nn.LayerNorm(inner, eps=1e-6), nn.Linear(inner, PREDICTED)

        def forward(self, patches, places):
            seen = self.to_decoder(self.norm(self.encoder(self.embed(patches))))
            hidden = self.mask.expand(seen.shape[0], TOKENS - seen.shape[1], -1)
            tokens = torch.cat([seen, hidden.to(seen.dtype)], 1)
            tokens = torch.gather(tokens, 1, places[:, :, None].expand(-1, -1, tokens.shape[2]))
            return self.predict(self.decoder_norm(self.decoder(tokens)))

    model = Autoencoder(*SIZES[preset])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, betas=(0.9, 0.95), weight_decay=0.05)
    patches = torch.randn(clips, int(TOKENS * (1 - 0.9)), PIXELS)
    target, places = torch.randn(clips, TOKENS, PREDICTED), torch.rand(clips, TOKENS).argsort(1)
    seconds = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16"):
            loss = functional.mse_loss(model(patches, places).float(), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds_per_step": statistics.median(seconds[1:]), "peak_memory_bytes": memory}))


# What ATen, oneDNN and MKL call the instruction sets.
INSTRUCTION_SETS = {
    "avx2": ("avx2", "AVX2", "AVX2"),
    "avx512": ("avx512", "AVX512_CORE", "AVX512"),
    "avx512bf16": ("avx512", "AVX512_CORE_BF16", "AVX512"),
}


def measured(command, instruction_set):
    environment = dict(os.environ)
    if instruction_set:
        aten, onednn, mkl = INSTRUCTION_SETS[instruction_set]
        environment |= {
            "INSTRUCTION_SET": instruction_set,
            "ATEN_CPU_CAPABILITY": aten,
            "ONEDNN_MAX_CPU_ISA": onednn,
            "MKL_ENABLE_INSTRUCTIONS": mkl,
        }
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainer")
    parser.add_argument("--presets", nargs="+", default=["small:2", "base:2", "large:1"], metavar="PRESET:CLIPS")
    parser.add_argument("--dtypes", nargs="+", default=["f32", "bf16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--instruction-set", choices=INSTRUCTION_SETS)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    print(f"{'':18} {'ours':>8} {'PyTorch':>8} {'ratio':>6} {'share':>6}   {'ours':>8} {'PyTorch':>8}")
    for preset, clips in (item.split(":") for item in args.presets):
        for dtype in args.dtypes:
            ours, peers = [], []
            for _ in range(args.rounds):
                step = [args.trainer, "bench", "step", "--preset", preset, "--batch-size", clips, "--dtype", dtype, "--threads", str(args.threads)]
                ours.append(measured([*step, "--steps", str(args.steps), "--json"], args.instruction_set))
                peer = [sys.executable, __file__, "--torch", preset, clips, dtype, str(args.steps), str(args.threads)]
                peers.append(measured(peer, args.instruction_set))
            seconds = [statistics.median(run["seconds_per_step"] for run in runs) for runs in (ours, peers)]
            share = statistics.median(run["product_share"] for run in ours)
            memory = [max(run["peak_memory_bytes"] for run in runs) / 1e9 for runs in (ours, peers)]
            print(
                f"{preset:6} {clips:>3} {dtype:6} {seconds[0]:7.3f}s {seconds[1]:7.3f}s {seconds[0] / seconds[1]:6.2f} {share:6.2f}"
                f"   {memory[0]:6.2f}GB {memory[1]:6.2f}GB",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--torch"]:
        torch_step(sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))
    else:
        main()
