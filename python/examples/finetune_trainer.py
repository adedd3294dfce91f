"""Fine-tune a VideoMAE classifier with the Trainer of Hugging Face transformers.

    shardtool build ./videos --labels dirs --split train=0.8,val=0.2 --out ./shards
    python finetune_trainer.py ./shards --weights runs/videomae     # from pretrain_videomae.py
    torchrun --nproc-per-node 2 finetune_trainer.py ./shards        # on several devices

Needs: pip install torch transformers accelerate
"""

import argparse

from torch.utils.data import DataLoader
from transformers import (
    Trainer,
    TrainerCallback,
    TrainingArguments,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

import clipfeed


class ClipTrainer(Trainer):
    """A Trainer whose data sets are those of loaders: their batches are complete.

    The data loaders are not prepared by accelerate, which would split the batches once more.
    """

    def get_train_dataloader(self):
        return DataLoader(self.train_dataset, batch_size=None)

    def get_eval_dataloader(self, eval_dataset=None):
        return DataLoader(self.eval_dataset, batch_size=None)


class StartEpoch(TrainerCallback):
    """Begins every epoch with its first batch; the Trainer skips what a resumed run has seen."""

    def __init__(self, dataset):
        self.dataset = dataset

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.dataset.set_epoch(int(state.epoch or 0))


def accuracy(prediction):
    return {"accuracy": (prediction.predictions.argmax(-1) == prediction.label_ids).mean()}


def main():
    parser = argparse.ArgumentParser(
        description="Fine-tune a VideoMAE classifier.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("data", help="folder or URL of shards with labels and the splits `train` and `val`")
    add("--weights", metavar="DIR", help="folder of a pre-trained model; default: random weights")
    add("--out", default="runs/classifier", help="folder for checkpoints and the model")
    add("--resume", action="store_true", help="continue from the last checkpoint in --out")
    add("--epochs", type=int, default=10, help="passes over the data")
    add("--batch-size", type=int, default=8, help="clips per step, of all processes")
    add("--image-size", type=int, default=224, help="height and width; --weights have their own")
    add("--lr", type=float, default=5e-4, help="highest learning rate")
    add("--flip", type=float, default=0.5, help="share of mirrored clips; 0 if sides matter")
    args = parser.parse_args()

    set_seed(0)
    clips = clipfeed.Clips(args.data)
    names = dict(enumerate(clips.classes or map(str, range(clips.labels.max() + 1))))
    labels = {"id2label": names, "label2id": {name: label for label, name in names.items()}}
    # The Trainer of transformers 5.24 loses the biases of queries and values when it loads its own
    # checkpoint of a VideoMAE; `from_pretrained` does not.
    weights = get_last_checkpoint(args.out) if args.resume else args.weights
    if weights:
        model = VideoMAEForVideoClassification.from_pretrained(weights, **labels)
    else:
        model = VideoMAEForVideoClassification(VideoMAEConfig(
            image_size=args.image_size, hidden_size=192, intermediate_size=768,
            num_hidden_layers=4, num_attention_heads=3, **labels,
        ))  # fmt: skip
    shape = {"frames": model.config.num_frames, "size": model.config.image_size}
    chosen = {"where": "label is not null", "mask_ratio": None, **shape}
    train = clipfeed.Loader(args.data, args.batch_size, split="train", flip=args.flip, **chosen)
    # Every process evaluates all clips: the Trainer gathers batches of equal size and number only.
    val = clipfeed.Loader(
        args.data, args.batch_size, split="val", shuffle=False, rank=0, world_size=1, **chosen
    )
    trainer = ClipTrainer(
        model,
        TrainingArguments(
            args.out, num_train_epochs=args.epochs, learning_rate=args.lr, warmup_steps=0.1,
            lr_scheduler_type="cosine", logging_steps=10, eval_strategy="epoch",
            save_strategy="epoch", save_total_limit=2, report_to="none",
        ),  # fmt: skip
        train_dataset=train.dataset(),
        eval_dataset=val.dataset(),
        compute_metrics=accuracy,
        callbacks=[StartEpoch(train)],
    )
    trainer.train(resume_from_checkpoint=args.resume or None)
    trainer.save_model()


if __name__ == "__main__":
    main()
