"""Pre-train a VideoMAE on several devices with Hugging Face accelerate.

    accelerate launch --num_processes 2 pretrain_accelerate.py ./shards     # two GPUs
    torchrun --nproc-per-node 2 pretrain_accelerate.py ./shards --cpu       # two processes, no GPU

Needs: pip install torch transformers accelerate
"""

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from transformers import VideoMAEConfig, VideoMAEForPreTraining

import clipfeed


def main():
    parser = argparse.ArgumentParser(description="Pre-train a VideoMAE on several devices.")
    parser.add_argument("data", nargs="+", help="folders or URLs of shards")
    parser.add_argument("--out", default="runs/accelerate", help="folder for the model")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the data")
    parser.add_argument("--batch-size", type=int, default=16, help="clips per step, of all ranks")
    parser.add_argument("--frames", type=int, default=16, help="frames per clip")
    parser.add_argument("--image-size", type=int, default=224, help="height and width of a clip")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--cpu", action="store_true", help="train on the CPU")
    args = parser.parse_args()

    torch.manual_seed(0)
    accelerator = Accelerator(cpu=args.cpu)
    config = VideoMAEConfig(
        image_size=args.image_size, num_frames=args.frames, norm_pix_loss=True,
        hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=3,
        decoder_hidden_size=96, decoder_intermediate_size=384, decoder_num_hidden_layers=2,
        decoder_num_attention_heads=3,
    )  # fmt: skip
    model = VideoMAEForPreTraining(config)
    optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=0.05)
    model, optimizer = accelerator.prepare(model, optimizer)

    # Reads RANK and WORLD_SIZE: this process gets its part of every batch. Do not `prepare` it:
    # accelerate would split or repeat the batches once more.
    loader = clipfeed.Loader(
        args.data, args.batch_size, args.frames, args.image_size, mask_kind="tube", mask_ratio=0.9
    )
    for epoch in range(args.epochs):
        for batch in loader:
            tensors = send_to_device(batch.torch(), accelerator.device)
            with accelerator.autocast():
                loss = model(**tensors).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        loss = accelerator.reduce(loss.detach(), "mean").item()
        accelerator.print(f"epoch {epoch + 1}/{args.epochs}: loss of the last batch {loss:.4f}")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(args.out)
    accelerator.end_training()


if __name__ == "__main__":
    main()
