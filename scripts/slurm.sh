#!/usr/bin/env bash
# A Slurm cluster of two nodes on this machine, for tests: no systemd, nothing in /etc, any user.
#   scripts/slurm.sh install             install Slurm and munge (Debian, Ubuntu); start does it too
#   scripts/slurm.sh start DIR           start munged, slurmctld, and slurmd of node1 and node2
#   scripts/slurm.sh status DIR          nodes and jobs
#   scripts/slurm.sh processes DIR NODE  the numbers of what runs on the node
#   scripts/slurm.sh kill-node DIR NODE  SIGKILL slurmd and everything that runs on the node
#   scripts/slurm.sh kill-slurmd DIR NODE     SIGKILL slurmd alone: its tasks run on
#   scripts/slurm.sh freeze-node DIR NODE     the same, and SIGSTOP what runs on the node
#   scripts/slurm.sh thaw-node DIR NODE       let it run on: the tasks of a node that was cut off
#   scripts/slurm.sh restart-node DIR NODE    start slurmd of the node again
#   scripts/slurm.sh stop DIR            end everything that was started
# Everything is below DIR. The commands of Slurm find the cluster by one variable:
#   export SLURM_CONF=DIR/etc/slurm.conf
# NODE_CPUS (default 2) is the number of CPUs that each node claims; NODE_TIMEOUT (default 6) the
# seconds after which a silent node is down.
set -euo pipefail

export PATH=$PATH:/usr/sbin:/sbin # the daemons are there
packages=(slurmctld slurmd slurm-client munge procps)
programs=(slurmctld slurmd sbatch munged pgrep)
nodes=(node1 node2)

fail() {
  echo "slurm.sh: $*" >&2
  exit 1
}

usage() {
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 1
}

install_packages() {
  local program missing=0
  for program in "${programs[@]}"; do command -v "$program" >/dev/null || missing=1; done
  [ $missing -eq 1 ] || return 0
  command -v apt-get >/dev/null ||
    fail "install Slurm (slurmctld, slurmd, its commands) and munge yourself: apt is not here"
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "run as root, or install sudo: ${packages[*]} are missing"
    as_root=(sudo)
  fi
  echo "Installing ${packages[*]} (apt)" >&2
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
}

# A number is reused once its process has ended: the time of its start tells the two apart.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # The name, in brackets, may contain spaces; the state is the first field behind it.
  read -ra stat <<<"${stat##*) }"
  [ "${stat[0]}" != Z ] || return 1
  echo "${stat[19]}"
}

# spawn NAME COMMAND...: in the background, in a session of its own, with its number recorded.
spawn() {
  local name=$1 pid
  shift
  setsid "$@" </dev/null >"$dir/log/$name.out" 2>&1 &
  pid=$!
  echo "$pid $(start_time "$pid" || true)" >"$dir/pids/$name"
}

# pid_of NAME: prints the number of a process that we started and that still runs.
pid_of() {
  local pid time
  read -r pid time 2>/dev/null <"$dir/pids/$1" || return 1
  [ -n "$time" ] && [ "$(start_time "$pid")" = "$time" ] && echo "$pid"
}

all_run() {
  local name
  for name in munged slurmctld "${nodes[@]}"; do pid_of "$name" >/dev/null || return 1; done
}

# end NAME: SIGTERM, and SIGKILL where that has not helped after 5 s.
end() {
  local pid tries
  if pid=$(pid_of "$1"); then
    kill "$pid" 2>/dev/null || true
    for ((tries = 0; tries < 50; tries++)); do
      pid_of "$1" >/dev/null || break
      sleep 0.1
    done
    pid=$(pid_of "$1") && kill -KILL "$pid" 2>/dev/null
  fi
  rm -f "$dir/pids/$1"
}

# wait_for SECONDS WHAT COMMAND...
wait_for() {
  local seconds=$1 what=$2 until
  shift 2
  until=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $until ]; then
      tail -n 5 "$dir"/log/* >&2
      fail "$what: not within $seconds s; the logs are in $dir/log"
    fi
    sleep 0.2
  done
}

state_of() { sinfo -h -n "$1" -o %T; }
is_up() { [[ $(state_of "$1") =~ ^(idle|mixed|allocated|completing)$ ]]; }
is_idle() { [ "$(state_of "$1")" = idle ]; }

# Processes of a node, in the order in which they have to be killed: a slurmstepd that sees its task
# end reports a failed job, and the job is then not requeued as that of a dead node is.
processes_of() {
  local node=$1 pid step task found before=-1 inodes
  pid_of "$node" || true
  # A slurmstepd: it listens at a socket in the folder of its node.
  inodes=$(awk -v folder="$dir/spool/$node/" 'index($8, folder) == 1 { print "socket:[" $7 "]" }' \
    /proc/net/unix)
  found=()
  for pid in $(pgrep -x slurmstepd || true); do
    for step in "/proc/$pid/fd"/*; do
      step=$(readlink "$step" 2>/dev/null) || continue
      [ -n "$inodes" ] && grep -qxF -- "$step" <<<"$inodes" && found+=("$pid") && break
    done
  done
  [ ${#found[@]} -eq 0 ] || printf '%s\n' "${found[@]}"
  # A task: Slurm gives it these variables. Its children may have cleared theirs.
  for task in /proc/[0-9]*; do
    tr '\0' '\n' 2>/dev/null <"$task/environ" | awk -v conf="SLURM_CONF=$conf" \
      -v name="SLURMD_NODENAME=$node" '$0 == conf { c = 1 } $0 == name { n = 1 }
      END { exit !(c && n) }' && found+=("${task#/proc/}")
  done
  while [ ${#found[@]} -gt "$before" ] && [ ${#found[@]} -gt 0 ]; do
    before=${#found[@]}
    mapfile -t found < <(
      {
        printf '%s\n' "${found[@]}"
        pgrep -P "$(IFS=, && echo "${found[*]}")" || true
      } | awk '!seen[$0]++'
    )
  done
  [ ${#found[@]} -eq 0 ] || printf '%s\n' "${found[@]}"
}

# Ends what runs on a node, until nothing does: a process may have started another meanwhile.
kill_processes_of() {
  local tries pids
  for ((tries = 0; tries < 50; tries++)); do
    mapfile -t pids < <(processes_of "$1" | awk '!seen[$0]++')
    [ ${#pids[@]} -gt 0 ] || return 0
    kill -KILL "${pids[@]}" 2>/dev/null || true
    sleep 0.1
  done
  fail "processes of $1 do not end: ${pids[*]}"
}

start_node() {
  # -D: in the foreground, so that the number that we record is that of the daemon.
  spawn "$1" slurmd -D -N "$1" -f "$conf"
}

free_ports() {
  # From a random one on: two clusters that start at the same time should not meet.
  local port=$((20000 + RANDOM % 12000)) found=() tries
  for ((tries = 0; tries < 200 && ${#found[@]} < $1; tries++, port++)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || found+=("$port")
  done
  [ ${#found[@]} -eq "$1" ] || fail "no free ports before $port"
  echo "${found[@]}"
}

write_conf() {
  local user host ports
  user=$(id -un)
  host=$(uname -n)
  read -ra ports <<<"$(free_ports 3)"
  # config_overrides: nodes have the CPUs and the memory of this file, whatever the machine has.
  # MinJobAge: scontrol shows jobs for so long after their end; there is no data base for sacct.
  # cred_expire is also how long a requeued job waits before it starts again (default 120 s).
  cat >"$conf" <<CONF
ClusterName=test
SlurmctldHost=${host%%.*}(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/pids/slurmctld.pid
SlurmdPidFile=$dir/pids/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2
JobRequeue=1
MinJobAge=3600
ReturnToService=2
SlurmdTimeout=${NODE_TIMEOUT:-6}
SlurmctldTimeout=10
MessageTimeout=5
KillWait=2
NodeName=DEFAULT CPUs=${NODE_CPUS:-2} RealMemory=16000
NodeName=node1 NodeHostname=${host%%.*} NodeAddr=127.0.0.1 Port=${ports[1]}
NodeName=node2 NodeHostname=${host%%.*} NodeAddr=127.0.0.1 Port=${ports[2]}
PartitionName=test Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
CONF
  # Newer slurmd wants control groups, which a container may not have; Slurm 22 knows no such word.
  rm -f "$dir/etc/cgroup.conf"
  if [[ $(slurmd -V) =~ \ ([0-9]+)\. ]] && [ "${BASH_REMATCH[1]}" -ge 23 ]; then
    echo CgroupPlugin=disabled >"$dir/etc/cgroup.conf"
  fi
}

start() {
  local node
  install_packages
  if all_run; then
    for node in "${nodes[@]}"; do wait_for 60 "$node is up" is_up "$node"; done
    echo "Slurm runs already in $dir" >&2
    return
  fi
  [[ $dir != *[[:space:]]* ]] || fail "Slurm's configuration allows no spaces in paths: $dir"
  # The path of a socket has 108 bytes at most.
  [ $((${#dir} + 40)) -le 108 ] || fail "the path is too long for sockets, choose another: $dir"
  stop_all # what is left of a start that did not end well
  trap stop_all EXIT # a start that fails leaves nothing behind
  mkdir -p "$dir"/{etc,log,pids,munge,state,spool/node1,spool/node2}
  rm -f "$dir"/log/*
  chmod 700 "$dir/munge"
  # A key of its own: the munge of this machine, if there is one, is left alone.
  (umask 077 && head -c 128 /dev/urandom >"$dir/munge/key")
  write_conf
  # --force: DIR may be below a folder like /tmp, of which munged disapproves.
  spawn munged munged --foreground --force --num-threads=2 --socket="$dir/munge/socket" \
    --key-file="$dir/munge/key" --log-file="$dir/log/munged.log" \
    --pid-file="$dir/pids/munged.pid" --seed-file="$dir/munge/seed"
  wait_for 20 "munged answers" munge -n --socket="$dir/munge/socket"
  spawn slurmctld slurmctld -D -c -f "$conf" # -c: without the jobs of an earlier cluster
  wait_for 30 "slurmctld answers" scontrol ping
  for node in "${nodes[@]}"; do start_node "$node"; done
  for node in "${nodes[@]}"; do wait_for 60 "$node is idle" is_idle "$node"; done
  trap - EXIT
  echo "Slurm runs in $dir; export SLURM_CONF=$conf" >&2
}

stop_all() {
  local node
  for node in "${nodes[@]}"; do end "$node"; done
  for node in "${nodes[@]}"; do kill_processes_of "$node"; done
  end slurmctld
  end munged
}

check_node() {
  [[ " ${nodes[*]} " == *" $1 "* ]] || fail "there is no node $1, only ${nodes[*]}"
  pid_of slurmctld >/dev/null || fail "no cluster runs in $dir: scripts/slurm.sh start $dir"
}

command=${1:-}
case $command/$# in
  install/1 | start/2 | stop/2 | status/2 | kill-node/3 | kill-slurmd/3 | restart-node/3 | \
    freeze-node/3 | thaw-node/3 | processes/3) ;;
  *) usage ;;
esac
if [ "$command" = install ]; then
  install_packages
  exit
fi
[ "$command" != start ] || mkdir -p "$2"
[ -d "$2" ] || fail "there is no folder $2"
dir=$(cd "$2" && pwd -P)
conf=$dir/etc/slurm.conf
export SLURM_CONF=$conf
node=${3:-}

case $command in
  start) start ;;
  stop)
    stop_all
    echo "Slurm is stopped in $dir" >&2
    ;;
  status)
    check_node node1
    sinfo -N -o '%N %T %C %E'
    squeue -r -o '%i %T %N %r'
    ;;
  processes)
    check_node "$node"
    processes_of "$node" | awk '!seen[$0]++'
    ;;
  kill-node)
    check_node "$node"
    kill_processes_of "$node"
    rm -f "$dir/pids/$node"
    echo "killed $node with its tasks" >&2
    ;;
  kill-slurmd)
    check_node "$node"
    pid=$(pid_of "$node") || fail "slurmd of $node does not run"
    kill -KILL "$pid"
    rm -f "$dir/pids/$node"
    echo "killed slurmd of $node; its tasks run on" >&2
    ;;
  freeze-node)
    check_node "$node"
    pid=$(pid_of "$node") || fail "slurmd of $node does not run"
    kill -KILL "$pid"
    rm -f "$dir/pids/$node"
    mapfile -t pids < <(processes_of "$node" | awk '!seen[$0]++')
    [ ${#pids[@]} -eq 0 ] || kill -STOP "${pids[@]}" 2>/dev/null || true
    echo "killed slurmd of $node and stopped ${#pids[@]} processes" >&2
    ;;
  thaw-node)
    check_node "$node"
    mapfile -t pids < <(processes_of "$node" | awk '!seen[$0]++')
    [ ${#pids[@]} -eq 0 ] || kill -CONT "${pids[@]}" 2>/dev/null || true
    echo "${#pids[@]} processes of $node run on" >&2
    ;;
  restart-node)
    check_node "$node"
    pid_of "$node" >/dev/null || start_node "$node"
    wait_for 60 "$node is up" is_up "$node"
    echo "$node is $(state_of "$node")" >&2
    ;;
esac
