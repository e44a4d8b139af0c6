#!/usr/bin/env bash
# Trains on several machines without Slurm. They need this repository at the same path, and a file system for the run
# folder that all of them see. Ctrl-C stops all learners after the iteration, with a checkpoint; if this script or its
# connections die, too.
#
#   launch/multi_node.sh --hosts=a,b,c --learners=8 run_dir=/shared/runs/mine SETTING=VALUE...
#
#   --hosts=A,B            names or addresses; the first one hosts the rendezvous. Or --hostfile=FILE, one a line
#   --learners=N           on each host
#   --interface=NAME       of the network between the hosts, such as eth0 or ib0 (default: that of the hosts' names);
#                          learners talk and listen on it alone
#   --port=N               of the rendezvous on the first host (default 29500)
#   --remote-shell=COMMAND called with a host and one string for its shell (default: ssh -o BatchMode=yes)
#   --patience=SECONDS     for all hosts to start (default 300); those that do not are named
#   --max-restarts=N       of all learners after one has failed (default 3)
#
# The command continues the run that run_dir holds, if there is one.
set -euo pipefail

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)

die() {
  printf 'multi_node: %s\n' "$1" >&2
  exit 2
}

hosts=() learners='' port=29500 remote_shell='ssh -o BatchMode=yes' agent=() settings=() run_dir=''
for argument in "$@"; do
  case $argument in
    --help | -h) sed -n '2,/^set -/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
    --hosts=*) IFS=, read -ra hosts <<<"${argument#*=}" ;;
    --hostfile=*) mapfile -t hosts < <(grep -vE '^[[:space:]]*(#|$)' -- "${argument#*=}") ;;
    --learners=*) learners=${argument#*=} ;;
    --port=*) port=${argument#*=} ;;
    --remote-shell=*) remote_shell=${argument#*=} ;;
    --interface=* | --patience=* | --max-restarts=*) agent+=("$argument") ;;
    -*) die "$argument: no such option; see --help" ;;
    resume=*) die "$argument: what run_dir holds is continued" ;;
    run_dir=*)
      run_dir=$(realpath -m -- "${argument#*=}")
      settings+=("run_dir=$run_dir")
      ;;
    *) settings+=("$argument") ;;
  esac
done
((${#hosts[@]} > 0)) || die "--hosts: name at least one"
[[ $learners =~ ^[1-9][0-9]*$ ]] || die "--learners=$learners: must be a whole number of at least 1, for each host"
[[ -n $run_dir ]] || die "run_dir: is required, on a file system that all hosts see"

cd -- "$root"
WORLD_SIZE=$((${#hosts[@]} * learners)) LOCAL_WORLD_SIZE=1 .venv/bin/python -m dist_trainer train --cfg job \
  "${settings[@]}" resume=auto >/dev/null

job=$(hostname)-$$-$(date +%s)
variables=("DIST_TRAINER_JOB=$job" DIST_TRAINER_RESTART=0 "DIST_TRAINER_LOGS=$run_dir/logs")
variables+=("DIST_TRAINER_STOP_FILE=$run_dir/stop.$job.0")
nodes=$(IFS=, && echo "${hosts[*]}")
agent+=(--learners="$learners" --nodes="$nodes" --port="$port" --follow-stdin)

# Each agent reads a pipe that this script holds open: a line asks it to stop, and so does the end.
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT
pids=() pipes=()
for host in "${hosts[@]}"; do
  mkfifo "$folder/$host"
  printf -v command '%q ' env "${variables[@]}" .venv/bin/python -m dist_trainer.agent --node="$host" "${agent[@]}" \
    -- train "${settings[@]}" resume=auto
  # shellcheck disable=SC2086  # the remote shell may have options
  setsid $remote_shell "$host" "cd $(printf '%q' "$root") && umask go-w && exec $command" <"$folder/$host" &
  pids+=($!)
done
for host in "${hosts[@]}"; do # only now, so that no child inherits another one's
  exec {pipe}>"$folder/$host"
  pipes+=("$pipe")
done

# shellcheck disable=SC2317  # the traps call it
tell() {
  for pipe in "${pipes[@]}"; do
    echo "$1" >&"$pipe" || true
  done
} 2>/dev/null
trap 'tell SIGINT' INT
trap 'tell SIGTERM' TERM
trap '' PIPE

worst=0
while ((${#pids[@]} > 0)); do
  sleep 0.5 || true # Ctrl-C ends it
  for index in "${!pids[@]}"; do
    if kill -0 "${pids[index]}" 2>/dev/null; then
      continue
    fi
    status=0
    wait "${pids[index]}" || status=$?
    unset "pids[index]"
    if ((status != 0)); then
      echo "multi_node: the agent on ${hosts[index]} ended with status $status" >&2
    fi
    if ((status != 0 && worst == 0)); then
      worst=$status
      for pipe in "${pipes[@]}"; do # without one the others cannot go on
        exec {pipe}>&-
      done
      pipes=()
    fi
  done
done
exit "$worst"
