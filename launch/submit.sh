#!/usr/bin/env bash
# Submits training to Slurm, after checking that it can run: settings, learners, time limit.
#
#   launch/submit.sh [options] SETTING=VALUE...
#   launch/submit.sh --nodes=4 --gpus-per-node=8 --cpus-per-task=96 --time=24:00:00 env=breakout total_envs=8192
#
#   --dry-run        check, and print what would be submitted
#   --learners=N     on each node (default: --gpus-per-node, else --cpus-per-task, else 1)
#   --chain=N        N jobs, one after another, for queues with short time limits: each continues the one before. None
#                    requeues itself. Needs a --job-name=NAME of its own; to cancel them all: scancel --name=NAME
#   --experiments=FILE  one run for each line of settings in FILE, as an array (slurm/experiments.sbatch)
#   --sweep=N        N workers of one sweep, as an array (slurm/sweep.sbatch); settings sweep.* are its own
#   --benchmark=N    N workers of one benchmark, as an array (slurm/benchmark.sbatch); settings are those of the verb
#   --at-once=N      of an array's elements
#   --OPTION=VALUE   anything else is for sbatch; it goes before slurm/site.sh's
set -euo pipefail

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)
cd -- "$root"
# shellcheck source=slurm/site.sh
source "${DIST_TRAINER_SITE:-slurm/site.sh}"
# shellcheck source=slurm/experiments.sh
source slurm/experiments.sh

die() {
  printf 'submit: %s\n' "$1" >&2
  exit 2
}

# A whole number of at least 1, or the end.
count() {
  [[ $2 =~ ^[1-9][0-9]*$ ]] || die "$1=$2: must be a whole number of at least 1"
}

# seconds TIME: of Slurm's minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]
seconds() {
  local days=0 rest=$1 parts
  if [[ $rest == *-* ]]; then
    days=${rest%%-*}
    IFS=: read -ra parts <<<"${rest#*-}"
    parts+=(0 0)
  else
    IFS=: read -ra parts <<<"$rest"
    case ${#parts[@]} in
      1) parts=(0 "${parts[0]}" 0) ;;
      2) parts=(0 "${parts[@]}") ;;
    esac
  fi
  [[ "$days${parts[0]}${parts[1]}${parts[2]}" =~ ^[0-9]+$ ]] || die "--time=$1: must be a time as Slurm writes it"
  echo $((((10#$days * 24 + 10#${parts[0]}) * 60 + 10#${parts[1]}) * 60 + 10#${parts[2]}))
}

# lead SCRIPT: seconds before the time limit at which the job is told
lead() {
  local signal=${options[--signal]:-}
  if [[ -z $signal ]]; then
    signal=$(sed -n 's/^#SBATCH --signal=//p' "$1")
  fi
  [[ $signal == *USR1* ]] || die "--signal=$signal: must send USR1, such as B:USR1@300"
  [[ $signal == *@* ]] && echo "${signal#*@}" || echo 60
}

# The trainer's own checks, without GPUs or other learners. Memory is that of a node, and left to the job.
check_settings() {
  WORLD_SIZE=$((nodes * learners)) LOCAL_WORLD_SIZE=1 python -m dist_trainer train --cfg job \
    "run_dir=$SITE_RUNS/$name-0" "$@" resume=auto >/dev/null || die "nothing was submitted${1:+: $*}"
}

# submit VARIABLE=VALUE... -- SBATCH_ARGUMENT...: prints the job's id, or the command
submit() {
  local variables=()
  while [[ $1 != -- ]]; do
    variables+=("$1")
    shift
  done
  shift
  if [[ -n $dry_run ]]; then
    printf '%q ' env "${variables[@]}" sbatch "$@"
    echo
  else
    env "${variables[@]}" sbatch --parsable "$@" | cut -d ';' -f 1
  fi
}

declare -A options=()
dry_run='' chain='' experiments='' sweep='' benchmark='' at_once='''' learners='' settings=() for_sbatch=()
for argument in "$@"; do
  case $argument in
    --help | -h) sed -n '2,/^set -/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
    --dry-run) dry_run=yes ;;
    --chain=*) chain=${argument#*=} ;;
    --experiments=*) experiments=${argument#*=} ;;
    --sweep=*) sweep=${argument#*=} ;;
    --benchmark=*) benchmark=${argument#*=} ;;
    --at-once=*) at_once=${argument#*=} ;;
    --learners=*) learners=${argument#*=} ;;
    --*=*)
      options[${argument%%=*}]=${argument#*=}
      for_sbatch+=("$argument")
      ;;
    -*) for_sbatch+=("$argument") ;;
    resume=*) die "$argument: a job continues what its run folder holds; give run_dir=${argument#*=}" ;;
    *) settings+=("$argument") ;;
  esac
done

script=slurm/train.sbatch
if [[ -n $experiments ]]; then
  script=slurm/experiments.sbatch
elif [[ -n $sweep ]]; then
  script=slurm/sweep.sbatch
elif [[ -n $benchmark ]]; then
  script=slurm/benchmark.sbatch
fi
nodes=${options[--nodes]:-1}
name=${options[--job-name]:-$(sed -n 's/^#SBATCH --job-name=//p' "$script")}
gpus=${options[--gpus-per-node]:-}
learners=${learners:-${gpus##*:}}
learners=${learners:-${options[--cpus-per-task]:-1}}
count --nodes "$nodes"
count --learners "$learners"

if [[ -n ${options[--time]:-} ]]; then
  limit=$(seconds "${options[--time]}")
  lead=$(lead "$script")
  if ((limit < 2 * lead)); then
    die "--time=${options[--time]}: must be at least twice the $lead s that the job is told before its end (--signal)"
  fi
fi

set +eu # modules are not written for them
site_environment
set -eu
[[ -z $chain || -n ${options[--job-name]:-} ]] || die "--chain=$chain: needs --job-name; jobs of one name wait for each other"
elements=0
if [[ -n $sweep ]]; then
  count --sweep "$sweep"
  [[ -z $chain$experiments$benchmark ]] || die "--sweep=$sweep: not with --chain, --experiments or --benchmark"
  ((nodes == 1)) || die "--nodes=$nodes: a worker of a sweep has one node; more workers: --sweep=N"
  elements=$sweep
  settings=("sweep.learners=$learners" "${settings[@]}")
  python -m dist_trainer sweep --cfg job "${settings[@]}" >/dev/null || die "nothing was submitted"
elif [[ -n $benchmark ]]; then
  count --benchmark "$benchmark"
  [[ -z $chain$experiments ]] || die "--benchmark=$benchmark: not with --chain or --experiments"
  ((nodes == 1)) || die "--nodes=$nodes: a worker of a benchmark has one node; more workers: --benchmark=N"
  elements=$benchmark
  settings=("learners=$learners" "${settings[@]}")
  python -m dist_trainer benchmark --cfg job "${settings[@]}" >/dev/null || die "nothing was submitted"
elif [[ -n $experiments ]]; then
  [[ -f $experiments ]] || die "--experiments=$experiments: no such file"
  [[ -z $chain ]] || die "--chain=$chain: not with --experiments; its runs requeue themselves"
  while IFS= read -r line; do
    mapfile -t words < <(experiment_words <<<"$line")
    check_settings "${settings[@]}" "${words[@]}"
    elements=$((elements + 1))
  done < <(experiment_lines "$experiments")
  count "--experiments=$experiments: lines" "$elements"
else
  check_settings "${settings[@]}"
fi

arguments=(${SITE_PARTITION:+--partition="$SITE_PARTITION"} ${SITE_ACCOUNT:+--account="$SITE_ACCOUNT"})
arguments+=(${SITE_SBATCH[@]+"${SITE_SBATCH[@]}"})
variables=("DIST_TRAINER_LEARNERS=$learners")
echo "submit: $nodes node(s) x $learners learner(s)${sweep:+, $elements workers}${benchmark:+, $elements workers}${experiments:+, $elements runs}${chain:+, $chain jobs in a chain}" >&2
if [[ -z $dry_run ]]; then
  mkdir -p -- "$SITE_RUNS"
fi

if ((elements)); then
  range=0-$((elements - 1))${at_once:+%$at_once}
  arguments+=(--array="$range" --output="$SITE_RUNS/%x-%A_%a.out" "${for_sbatch[@]}" "$script")
  if [[ -n $experiments ]]; then
    arguments+=("$(realpath -- "$experiments")")
  fi
  submit "${variables[@]}" -- "${arguments[@]}" "${settings[@]}"
  exit
fi
arguments+=(--output="$SITE_RUNS/%x-%j.out" "${for_sbatch[@]}")
if [[ -z $chain ]]; then
  submit "${variables[@]}" -- "${arguments[@]}" "$script" "${settings[@]}"
  exit
fi
count --chain "$chain"
# A chain is known by its first job: its run folder is that one's, whichever job is running.
first=$(submit "${variables[@]}" DIST_TRAINER_CHAIN=first -- --dependency=singleton "${arguments[@]}" "$script" "${settings[@]}")
echo "$first"
id=$first
if [[ -n $dry_run ]]; then
  id=FIRST
fi
for ((link = 1; link < chain; link++)); do
  submit "${variables[@]}" DIST_TRAINER_CHAIN="$id" -- --dependency=singleton "${arguments[@]}" "$script" "${settings[@]}"
done
echo "submit: to cancel the chain: scancel --name=$name" >&2
