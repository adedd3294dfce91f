#!/usr/bin/env bash
# Builds one plan on a Slurm cluster of two nodes on this machine, one of which dies at work, and in
# one process, and compares every byte. Also: parts that are missing, and how they are made again.
#   scripts/test-slurm.sh            on 16 videos that it makes
#   scripts/test-slurm.sh VIDEOS     on a folder of your own; a part should take some seconds
# SHARDTOOL=PATH    the program (default: target/release/shardtool, built if it is not there)
# SLURM_WORK=DIR    where all is written (default: a temporary folder, removed after a success)
# PLAN_OPTIONS=...  options for `shardtool plan`, for example "--payload h264"
# TWICE=1           tests as well what comes of a node that is cut off and comes back: its tasks are
#                   started again elsewhere, then two processes build one part at the same time
set -euo pipefail
start=$PWD
cd "$(dirname "$0")/.."

log() { printf '%s %s\n' "$(date +%T)" "$*"; }
fail() {
  log "FAILED: $*"
  exit 1
}

videos=${1:+$(cd "$start" && realpath -- "$1")}
if [ -z "${SHARDTOOL:-}" ]; then
  [ -x target/release/shardtool ] || cargo build --release --locked -p shardtool
  SHARDTOOL=$PWD/target/release/shardtool
fi
SHARDTOOL=$(cd "$start" && realpath -- "$SHARDTOOL")
[ -x "$SHARDTOOL" ] || fail "SHARDTOOL=$SHARDTOOL is not a program"
export SHARDTOOL # the tasks inherit it
# Inside a job of another cluster, these would name a part, or options of sbatch.
for name in "${!SLURM_@}" "${!SBATCH_@}" JOB_COMPLETION_INDEX AWS_BATCH_JOB_ARRAY_INDEX; do
  [[ $name =~ ^SLURM_WORK$ ]] || unset "$name"
done

keep=1
if [ -z "${SLURM_WORK:-}" ]; then
  # Below /tmp: the sockets of Slurm need a short path.
  work=$(mktemp -d /tmp/test-slurm.XXXXXX)
  keep=0
else
  mkdir -p "$SLURM_WORK"
  work=$(cd "$SLURM_WORK" && pwd -P)
  rm -rf "$work"/{cluster,out,one,logs,lists}
fi
mkdir -p "$work"/{logs,lists}
finish() {
  local status=$?
  trap - EXIT
  [ ! -d "$work/cluster" ] || scripts/slurm.sh stop "$work/cluster" || status=1
  if [ $status -ne 0 ]; then
    log "failed; the files are in $work"
    find "$work/logs" -type f -printf '%T@ %p\n' | sort -rn | head -n 6 | cut -d' ' -f2- |
      xargs -r tail -n 10
  elif [ $keep -eq 0 ]; then
    rm -rf "$work"
  fi
  exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

parts=8
last=$((parts - 1))
# On a real cluster, the output is in a folder that all nodes share, or in an object store.
out=$work/out
one=$work/one

make_videos() {
  local i
  videos=$work/videos
  [ ! -f "$videos/complete" ] || return 0
  log "making 16 videos of 8 to 12 s"
  rm -rf "$videos" && mkdir -p "$videos"
  # Noise: decoding it takes long enough for a node to die meanwhile.
  for ((i = 0; i < 16; i++)); do
    ffmpeg -v error -nostdin -y \
      -f lavfi -i "testsrc2=size=1920x1080:rate=30:duration=$((8 + i % 5))" \
      -vf "hue=h=$((i * 20)),noise=alls=12:allf=t:all_seed=$i" -pix_fmt yuv420p \
      -c:v libx264 -preset ultrafast -crf 30 "$videos/$(printf %02d "$i").mp4"
  done
  touch "$videos/complete"
}

# ---- jobs ----

# submit ARRAY [PARTS]: prints the number of the job.
submit() {
  sbatch --parsable --array="$1" --cpus-per-task=1 --mem=100M --time=30 \
    --output="$work/logs/%A_%a.log" deploy/slurm.sbatch "$out" "${@:2}"
}

# tasks JOB: one line a task, "0 COMPLETED node2 restarts 1 exit 0:0".
tasks() {
  scontrol -o show job "$1" | awk '{
    delete value
    for (i = 1; i <= NF; i++) { split($i, pair, "="); value[pair[1]] = pair[2] }
    print value["ArrayTaskId"], value["JobState"], value["NodeList"], \
      "restarts", value["Restarts"], "exit", value["ExitCode"]
  }' | sort -n
}

# wait_for_tasks JOB SECONDS: until none is pending or runs; tells every change.
wait_for_tasks() {
  local until=$((SECONDS + $2)) now before=
  while true; do
    # Tasks that wait are one line, "4-7 PENDING".
    now="$(tasks "$1" | awk '{
      state = $2 ($2 == "RUNNING" ? " on " $3 : "")
      for (i = split($1, ranges, ","); i > 0; i--)
        n[state] += split(ranges[i], ends, "-") == 2 ? ends[2] - ends[1] + 1 : 1
    } END { for (s in n) print n[s], s }' | sort -k2 | paste -sd, | sed 's/,/, /g')"
    now="tasks: $now; nodes: $(sinfo -hN -o '%N %T' | paste -sd, | sed 's/,/, /g')"
    [ "$now" = "$before" ] || log "$now"
    before=$now
    tasks "$1" | awk '$2 ~ /PENDING|RUNNING|COMPLETING|CONFIGURING|REQUEUE/ { exit 1 }' && return
    [ $SECONDS -lt $until ] || fail "job $1 has not ended within $2 s"
    sleep 0.5
  done
}

all_completed() {
  tasks "$1" | sed 's/^/           task /'
  tasks "$1" | awk '$2 != "COMPLETED" { exit 1 }' || fail "not every task of job $1 is COMPLETED"
}

running_on() { tasks "$1" | awk -v node="$2" '$2 == "RUNNING" && $3 == node { print $1 }'; }

# wait_until_busy JOB NODE: two tasks run on the node, and each has begun to write its part.
wait_until_busy() {
  local until=$((SECONDS + 60)) busy task
  while [ $SECONDS -lt $until ]; do
    mapfile -t busy < <(running_on "$1" "$2")
    for task in "${busy[@]}"; do
      [ -d "$out/parts/part-$(printf %05d "$task")" ] || continue 2
    done
    [ ${#busy[@]} -lt 2 ] || break
    sleep 0.1
  done
  [ ${#busy[@]} -ge 2 ] || fail "no tasks run on $2: parts are too short for this test"
  sleep 1
}

# ---- outputs ----

list() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum); }

compare() {
  list "$out" >"$work/lists/cluster"
  list "$one" >"$work/lists/one"
  diff -u "$work/lists/one" "$work/lists/cluster" || fail "the outputs differ (- one, + cluster)"
  log "equal: $(wc -l <"$work/lists/one") files, $(du -sh "$one" | cut -f1)," \
    "$(find "$one" -name 'shard-*' | wc -l) shards"
}

merge() { "$SHARDTOOL" merge --plan "$1" >>"$work/logs/merge.log" 2>&1; }

# A merge that has to fail: with exit code 1, the names of the parts, and the command.
merge_names() {
  local status=0 part
  "$SHARDTOOL" merge --plan "$out" >"$work/logs/missing.log" 2>&1 || status=$?
  sed 's/^/           | /' "$work/logs/missing.log"
  [ $status -eq 1 ] || fail "merge with missing parts: exit code $status instead of 1"
  for part in "$@"; do
    grep -q "part-$part" "$work/logs/missing.log" || fail "merge does not name part-$part"
  done
  grep -q 'shardtool build --plan ' "$work/logs/missing.log" || fail "merge prints no command"
}

# ---- the test ----

scripts/slurm.sh install
[ -n "$videos" ] || make_videos
log "starting the cluster"
scripts/slurm.sh start "$work/cluster"
export SLURM_CONF=$work/cluster/etc/slurm.conf

# shellcheck disable=SC2086 # options are words
"$SHARDTOOL" plan "$videos" --out "$out" --parts $parts ${PLAN_OPTIONS:-} \
  >"$work/logs/plan.log" 2>&1 ||
  fail "plan: $(cat "$work/logs/plan.log")"

log "1. an array of $parts tasks; node1 dies at work"
job=$(submit 0-$last)
wait_until_busy "$job" node1
mapfile -t lost < <(running_on "$job" node1)
scripts/slurm.sh kill-node "$work/cluster" node1 2>/dev/null
log "killed node1 and its tasks ${lost[*]}"
wait_for_tasks "$job" 600
all_completed "$job"
for task in "${lost[@]}"; do
  tasks "$job" | grep -q "^$task COMPLETED .* restarts [1-9]" ||
    fail "task $task was lost with node1, but not started again"
done
merge "$out" || fail "merge: $(cat "$work/logs/merge.log")"
scripts/slurm.sh restart-node "$work/cluster" node1

log "2. the same plan, one part after the other in one process"
mkdir -p "$one"
cp "$out/plan.json" "$one/"
"$SHARDTOOL" build --plan "$one" >"$work/logs/one.log" 2>&1 ||
  fail "build: $(tail "$work/logs/one.log")"
merge "$one" || fail "merge: $(cat "$work/logs/merge.log")"
compare

log "3. part 3 is missing: merge says how to make it"
rm -rf "$out/parts/part-00003"
merge_names 00003
command=$(grep -o 'shardtool build --plan .*' "$work/logs/missing.log" | head -n 1)
log "running $command"
# As a user would, with the program under test first on PATH.
mkdir -p "$work/bin"
ln -sf "$SHARDTOOL" "$work/bin/shardtool"
PATH=$work/bin:$PATH bash -c "$command" >"$work/logs/again.log" 2>&1 ||
  fail "the command of merge: $(tail "$work/logs/again.log")"
merge "$out" || fail "merge: $(cat "$work/logs/merge.log")"
compare

log "4. parts 2 and 5 are missing: an array with gaps makes these and no others"
rm -rf "$out/parts/part-00002" "$out/parts/part-00005"
merge_names 00002 00005
find "$out/parts" -type f -printf '%p %T@ %i\n' | sort >"$work/lists/before"
job=$(submit 2,5)
wait_for_tasks "$job" 120
tasks "$job" | awk '$2 != "FAILED" { exit 1 }' ||
  fail "an array with gaps was accepted without the number of parts"
log "without the number of parts: $(head -n 1 "$work/logs/${job}_2.log")"
job=$(submit 2,5 $parts)
wait_for_tasks "$job" 300
all_completed "$job"
find "$out/parts" -type f -printf '%p %T@ %i\n' | sort >"$work/lists/after"
[ -z "$(comm -23 "$work/lists/before" "$work/lists/after")" ] ||
  fail "other parts were touched: $(comm -23 "$work/lists/before" "$work/lists/after")"
merge "$out" || fail "merge: $(cat "$work/logs/merge.log")"
compare

if [ "${TWICE:-0}" = 1 ]; then
  log "5. node1 is cut off at work, its tasks start again on node2, then the old ones go on"
  rm -rf "$out/parts" "$out/manifest.json" "$out/index.parquet"
  job=$(submit 0-$last)
  wait_until_busy "$job" node1
  mapfile -t lost < <(running_on "$job" node1)
  scripts/slurm.sh freeze-node "$work/cluster" node1
  log "stopped tasks ${lost[*]}"
  until=$((SECONDS + 300))
  until tasks "$job" | grep -qE "^(${lost[0]}|${lost[1]}) (RUNNING|FAILED|COMPLETED) node2"; do
    [ $SECONDS -lt $until ] || fail "the tasks of node1 were not started again"
    sleep 0.2
  done
  scripts/slurm.sh thaw-node "$work/cluster" node1
  wait_for_tasks "$job" 600
  # A part waits while another process builds it.
  tasks "$job" | sed 's/^/           task /'
  # Slurm does not show the old tasks any more, and would kill them if slurmd came back.
  while [ -n "$(scripts/slurm.sh processes "$work/cluster" node1)" ]; do
    [ $SECONDS -lt $((until + 600)) ] || fail "processes of node1 do not end"
    sleep 0.5
  done
  log "the old tasks have ended"
  scripts/slurm.sh restart-node "$work/cluster" node1
  if ! merge "$out"; then
    log "parts are missing: the array again"
    job=$(submit 0-$last)
    wait_for_tasks "$job" 600
    all_completed "$job"
    merge "$out" || fail "merge: $(cat "$work/logs/merge.log")"
  fi
  compare
fi
log "passed in $SECONDS s"
