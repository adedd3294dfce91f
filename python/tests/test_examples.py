"""The programs in python/examples, with small models."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
from conftest import PROGRAMS

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Labelled clips of 16 frames, with splits."""
    folder = tmp_path_factory.mktemp("examples")
    shardtool = PROGRAMS / "shardtool"
    for command in [
        ["synth", folder / "videos", "--videos", "24"],
        ["build", folder / "videos", "--labels", "dirs", "--frames", "16", "--stride", "2",
         "--split", "train=0.6,val=0.4", "--out", folder / "shards"],
    ]:
        subprocess.run([shardtool, *command], check=True, capture_output=True)
    return folder / "shards"


def run(program, *arguments, launcher=()):
    """Runs an example; returns what it printed."""
    command = [sys.executable, *launcher, EXAMPLES / program, *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


SMALL = ["--image-size", 32, "--batch-size", 4]


def test_pre_training_is_resumed_to_the_same_weights(shards, tmp_path):
    def train(out, *arguments):
        return run("pretrain_videomae.py", shards, *SMALL, "--steps", 6, "--log-every", 1,
                   "--save-every", 3, "--out", tmp_path / out, *arguments)

    said = train("whole")
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", said)]
    assert len(losses) == 6 and all(0 < loss < 3 for loss in losses)
    # The same run, stopped half-way: its first checkpoint is that of step 3.
    whole = torch.load(tmp_path / "whole" / "checkpoint.pt")
    assert whole["step"] == 6
    stopped = subprocess.run(
        [sys.executable, "-c", STOPPED, str(EXAMPLES / "pretrain_videomae.py"), str(shards),
         *map(str, SMALL), "--steps", "6", "--save-every", "3", "--out", str(tmp_path / "part")],
        capture_output=True, text=True)
    assert "stopped" in stopped.stderr, stopped.stderr
    train("part", "--resume", tmp_path / "part" / "checkpoint.pt")
    part = torch.load(tmp_path / "part" / "checkpoint.pt")
    for name, value in whole["parts"][0].items():
        assert torch.equal(value, part["parts"][0][name]), name
    assert whole["parts"][2] == part["parts"][2]


#: Runs a program, and ends it after its first checkpoint.
STOPPED = """
import runpy, sys, torch
save = torch.save
def saved(*arguments):
    save(*arguments)
    sys.exit("stopped")
torch.save = saved
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_two_ranks_train_as_one(shards, tmp_path):
    pytest.importorskip("accelerate")

    def losses(launcher):
        said = run("pretrain_accelerate.py", shards, *SMALL, "--cpu", "--epochs", 2, "--out",
                   tmp_path / "model", launcher=launcher)
        return [float(loss) for loss in re.findall(r"last batch ([\d.]+)", said)]

    one = losses([])
    two = losses(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"])
    assert len(one) == 2 and one == pytest.approx(two, abs=2e-3)


def test_a_classifier_is_trained(shards, tmp_path):
    pytest.importorskip("accelerate")
    said = run("finetune_trainer.py", shards, *SMALL, "--epochs", 1, "--out", tmp_path / "model")
    assert "eval_accuracy" in said or "accuracy" in said


def test_a_contact_sheet_is_drawn(shards, tmp_path):
    image = pytest.importorskip("PIL.Image")
    run("contact_sheet.py", shards, "--out", tmp_path / "sheet.png")
    assert min(image.open(tmp_path / "sheet.png").size) > 100
