#!/usr/bin/env bash
# Trains on a Slurm cluster of two nodes on this machine, one rank each, and compares weights and moments with one rank: undisturbed, after a
# node has died, and after the end of the job's time; then evaluates on both nodes.
#   scripts/test-slurm-mpi.sh
# TRAINER=PATH    a trainer with the feature mpi (default: built in debug mode)
# SHARDTOOL=PATH  the program (default: built in debug mode)
set -euo pipefail
start=$PWD
cd "$(dirname "$0")/.."
root=$PWD

log() { printf '%s %s\n' "$(date +%T)" "$*"; }
fail() {
  log "FAILED: $*"
  exit 1
}

scripts/mpi-packages.sh
scripts/slurm.sh install
target=$PWD/${CARGO_TARGET_DIR:-target}
if [ -z "${SHARDTOOL:-}" ]; then
  cargo build -p shardtool --locked
  SHARDTOOL=$target/debug/shardtool
fi
if [ -z "${TRAINER:-}" ]; then
  cargo build -p trainer --bin trainer --features mpi --locked
  TRAINER=$target/debug/trainer
fi
TRAINER=$(cd "$start" && realpath -- "$TRAINER")
export TRAINER OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
for name in "${!SLURM_@}" "${!SBATCH_@}"; do unset "$name"; done

work=$(mktemp -d /tmp/test-slurm-mpi.XXXXXX)
finish() {
  local status=$?
  trap - EXIT
  "$root/scripts/slurm.sh" stop "$work/cluster" || status=1
  if [ $status -ne 0 ]; then
    log "failed; the files are in $work"
    tail -n 20 "$work"/train-*.log || true
  else
    rm -rf "$work"
  fi
  exit $status
}
mkdir -p "$work/cluster"
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Two nodes of one CPU each: their ranks share this machine.
NODE_CPUS=1 scripts/slurm.sh start "$work/cluster"
export SLURM_CONF=$work/cluster/etc/slurm.conf

log "the data: 12 videos of moving shapes, two classes"
mkdir -p "$work/videos/slow" "$work/videos/fast"
for i in 1 2 3 4 5 6; do
  ffmpeg -v error -nostdin -f lavfi -i "testsrc2=size=64x64:rate=16:duration=4" -vf "hue=h=$((i * 50))" \
    "$work/videos/slow/$i.mp4"
  ffmpeg -v error -nostdin -f lavfi -i "mandelbrot=size=64x64:rate=16:start_scale=$i" -t 4 \
    "$work/videos/fast/$i.mp4"
done
"$SHARDTOOL" build "$work/videos" --out "$work/shards" --frames 8 --stride 2 --labels dirs >/dev/null 2>&1
cat >"$work/config.toml" <<'TOML'
[clip]
frames = 8
size = 64
patch = 16
[encoder]
width = 96
depth = 4
[decoder]
width = 96
depth = 2
[data]
batch_size = 8
micro_batches = 4
[schedule]
length = { steps = 300 }
[checkpoints]
every = 10
TOML
cd "$work"
flags=(--config config.toml --data shards --threads 1 --loader-threads 1)

# submit NAME ARGUMENTS...: prints the number of the job.
submit() {
  sbatch --parsable --nodes=2 --cpus-per-task=1 --mem=100M --time=30 --output="$work/train-$1.log" \
    "$root/deploy/slurm-train.sbatch" run "$1" "${flags[@]}"
}

# state JOB: "COMPLETED", "RUNNING", ...
state() { scontrol -o show job "$1" | grep -o 'JobState=[A-Z]*' | cut -d= -f2; }

restarts() { scontrol -o show job "$1" | grep -o 'Restarts=[0-9]*' | cut -d= -f2; }

# wait_until SECONDS WHAT COMMAND...
wait_until() {
  local until=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ $SECONDS -lt $until ] || fail "not within the time: $what"
    sleep 0.5
  done
}

is_in_state() { [ "$(state "$1")" = "$2" ]; }
has_steps() { [ -f "$1/metrics.jsonl" ] && [ "$(wc -l <"$1/metrics.jsonl")" -ge "$2" ]; }

compare() {
  local last=checkpoints/step-000300 file
  for file in model optimizer; do
    cmp "one/$last/$file.safetensors" "$1/$last/$file.safetensors" || fail "$1 differs from one rank"
  done
  log "$1: weights and moments of one rank, to the bit"
}

log "1. one rank, without Slurm"
"$TRAINER" run --out one "${flags[@]}" >one.log 2>&1 || fail "$(tail one.log)"

log "2. two nodes"
job=$(submit whole)
wait_until 60 "the end of the job" is_in_state "$job" COMPLETED
compare whole

log "3. two nodes, of which one dies"
job=$(submit killed)
wait_until 120 "50 steps" has_steps killed 50
"$root/scripts/slurm.sh" kill-node "$work/cluster" node2
log "killed node2 after $(wc -l <killed/metrics.jsonl) steps"
sleep 8
"$root/scripts/slurm.sh" restart-node "$work/cluster" node2
wait_until 60 "the end of the job" is_in_state "$job" COMPLETED
[ "$(restarts "$job")" -ge 1 ] || fail "the job was not started again"
compare killed

log "4. two nodes, and the signal before the end of the time"
job=$(submit stopped)
wait_until 120 "50 steps" has_steps stopped 50
scancel --batch --signal=TERM "$job" # as --signal does before the end of the time
wait_until 60 "a second start" grep -q "start 2" train-stopped.log
log "stopped after $(wc -l <stopped/metrics.jsonl) steps, and started again"
wait_until 60 "the end of the job" is_in_state "$job" COMPLETED
grep -q "to resume: trainer run" train-stopped.log || fail "it was killed, not stopped"
compare stopped

log "5. a job that the user cancels is not started again"
job=$(submit cancelled)
wait_until 120 "20 steps" has_steps cancelled 20
scancel "$job"
wait_until 60 "the end of the job" is_in_state "$job" CANCELLED
sleep 10
is_in_state "$job" CANCELLED || fail "it is $(state "$job")"

log "6. features on two nodes"
"$TRAINER" embed --weights one --data shards --out one.parquet >/dev/null 2>&1
salloc -Q --nodes=2 --ntasks-per-node=1 --mem=100M --time=5 mpirun --bind-to none "$TRAINER" embed \
  --weights one --data shards --out two.parquet >embed.log 2>&1 || fail "$(tail embed.log)"
cmp one.parquet two.parquet || fail "features of two nodes differ from those of one rank"
log "the features of one rank, to the bit"
log "passed"
