# shellcheck shell=bash
# What a job does on its first node: starts one agent (torchrun) per node, asks learners to stop when Slurm says so, and
# decides at the end whether the job is over. Sourced by slurm/*.sbatch.
#
#   signal to the batch shell   USR1: time is nearly up, or pre-empted. The learners stop with a checkpoint; the job
#                               requeues itself and continues.
#                               TERM: cancelled, requeued by somebody, or out of time. The learners stop with a
#                               checkpoint, if Slurm's KillWait lasts; what a user cancels stays cancelled.
#   signal to the steps         USR1, TERM: the agents pass it on as above; the job requeues itself, if it is not cancelled.
#   a crash                     the job requeues itself, at most SITE_MAX_CRASHES times without a newer checkpoint.
#   a node that fails           Slurm requeues the job.
#
# How the learners ended is told by the file `status` of the run folder, not by exit statuses.
#
# DIST_TRAINER_LEARNERS  learners per node (default: its GPUs, else its CPUs)
# DIST_TRAINER_CHAIN     set by launch/submit.sh --chain to the chain's first job, or to "first": never requeue, the
#                        next job of the chain goes on

# shellcheck source=slurm/site.sh
source "${DIST_TRAINER_SITE:-slurm/site.sh}"

say() { printf 'slurm: %s (job %s, restart %s)\n' "$*" "$job" "$restart"; }

# field NAME: of the run's status
field() { sed -n "s/^$1=//p" -- "$run_dir/status" 2>/dev/null || true; }

# How the learners of this very start of the job have ended: complete, stopped, or crashed (no or another word).
outcome() {
  local state=''
  if [[ $(field job) == "$job" && $(field restart) == "$restart" ]]; then
    state=$(field state)
  fi
  case $state in complete | stopped) echo "$state" ;; *) echo crashed ;; esac
}

ask_to_stop() {
  : >"$DIST_TRAINER_STOP_FILE"
  say "$1: the learners are asked to stop"
}

# Whether Slurm is ending the job: cancelled, or requeued by somebody. Not if only its time is up.
is_ended() {
  local state reason
  read -r state reason < <(squeue --noheader --jobs="$job" --format='%T %r' 2>/dev/null) || true
  [[ ${state:-} != RUNNING && ${reason:-} != TimeLimit ]]
}

# Counts the crashes since the newest checkpoint.
may_crash_again() {
  local owner=${chain:-$job} before=0 at='' by='' iteration
  iteration=$(field iteration)
  iteration=${iteration:-none}
  read -r by before at < <(cat -- "$run_dir/crashes" 2>/dev/null) || true
  if [[ $by != "$owner" || $at != "$iteration" ]]; then
    before=0
  fi
  printf '%s %d %s\n' "$owner" "$((before + 1))" "$iteration" >"$run_dir/crashes"
  say "crash $((before + 1)) at iteration $iteration"
  ((before < SITE_MAX_CRASHES))
}

# Each learner's node, and what it said last of what matters; all of it is in the logs.
last_words() {
  awk '
    FNR == 1 { if (file) print file ": " words; file = FILENAME; sub(".*/", "", file) }
    /^--- job / { node = $7; sub(",", "", node); words = "(" node ") no last words" }
    /^(dist_trainer[.:]|[A-Za-z.]+Error)/ && !/the traceback is above/ { words = "(" node ") " $0 }
    END { if (file) print file ": " words }' "$DIST_TRAINER_LOGS"/rank_*.log || true
}

# go_on STATUS: requeues the job, or leaves the rest to the next one of its chain and ends with STATUS.
go_on() {
  if [[ -n $chain ]]; then
    say "the next job of the chain goes on"
    exit "$1"
  fi
  say "requeued"
  scontrol requeue "$job"
  exit 0
}

# shared_folder: of all elements of an array
shared_folder() { printf '%s\n' "$SITE_RUNS/$SLURM_JOB_NAME-${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}"; }

# worker_job VERB SETTING=VALUE...: of a sweep or a benchmark on this node; see slurm/sweep.sbatch
worker_job() {
  local verb=$1 status=0 worker told='' chain=''
  job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
  job=${job:-$SLURM_JOB_ID}
  restart=${SLURM_RESTART_COUNT:-0}
  umask go-w
  mkdir -p -- "$SITE_RUNS"
  set +eu # modules are not written for them
  site_environment
  set -eu
  say "on $(hostname)"
  python -m dist_trainer "$@" &
  worker=$!
  trap 'told=yes; say "USR1: stopping"; kill -TERM "$worker" 2>/dev/null || true' USR1
  trap 'told=yes; say "TERM: stopping"; kill -TERM "$worker" 2>/dev/null || true' TERM
  while kill -0 "$worker" 2>/dev/null; do # a trap ends a wait
    status=0
    wait "$worker" || status=$?
  done
  if [[ $verb == benchmark && $status == 3 && -z $told ]]; then
    say "what is left is being done by other elements"
    exit 0
  fi
  case $status in
    0) say "the $verb is over" ;;
    2) exit 2 ;;
    *)
      say "ended with status $status"
      if is_ended; then
        exit 143
      fi
      if ((status != 3 && restart >= SITE_MAX_CRASHES)); then
        say "gives up"
        exit 1
      fi
      go_on "$status"
      ;;
  esac
}

# train_job NAME SETTING=VALUE...
train_job() {
  local run_dir=$SITE_RUNS/$1 setting step status=0 chain=${DIST_TRAINER_CHAIN:-}
  if [[ $chain == first ]]; then
    chain=$SLURM_JOB_ID
  fi
  shift
  local settings=("$@")
  for setting in "$@"; do
    case $setting in
      run_dir=*) run_dir=${setting#run_dir=} ;;
      resume=*)
        echo "slurm: $setting: a job goes on with what its run folder holds; give run_dir=${setting#resume=}" >&2
        exit 2
        ;;
    esac
  done
  settings+=("run_dir=$run_dir" resume=auto)

  job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID} # not an array's SLURM_JOB_ID: see its last element
  job=${job:-$SLURM_JOB_ID}
  restart=${SLURM_RESTART_COUNT:-0}
  umask go-w
  mkdir -p -- "$run_dir/logs"
  export DIST_TRAINER_JOB=$job DIST_TRAINER_RESTART=$restart DIST_TRAINER_LOGS=$run_dir/logs
  export DIST_TRAINER_STOP_FILE=$run_dir/stop.$job.$restart
  trap 'ask_to_stop USR1' USR1
  trap 'ask_to_stop TERM' TERM
  set +eu # modules are not written for them
  site_environment
  set -eu

  local nodes learners cpus
  mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  cpus=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
  learners=${DIST_TRAINER_LEARNERS:-${SLURM_GPUS_ON_NODE:-$cpus}}
  OMP_NUM_THREADS=$((cpus / learners > 0 ? cpus / learners : 1))
  export OMP_NUM_THREADS

  if [[ -n $chain && $(field state) == complete ]]; then
    say "the run is complete: nothing to do"
    exit 0
  fi
  # A mistake is told here, once, and is no crash.
  WORLD_SIZE=$((${#nodes[@]} * learners)) LOCAL_WORLD_SIZE=$learners \
    python -m dist_trainer train --cfg job "${settings[@]}" >/dev/null || exit 2

  local agent=(--learners="$learners" --max-restarts="$SITE_MAX_RESTARTS" --patience="$SITE_PATIENCE_S")
  agent+=(--nodes="$(IFS=, && echo "${nodes[*]}")" --port=$((20000 + SLURM_JOB_ID % 10000)))
  if [[ -n $SITE_INTERFACE ]]; then
    agent+=(--interface="$SITE_INTERFACE")
    agent+=(--head="$(ip -4 -oneline address show dev "$SITE_INTERFACE" | awk '{sub("/.*", "", $4); print $4; exit}')")
  fi
  say "${#nodes[@]} node(s) x $learners learner(s), $cpus CPU(s) a node: ${nodes[*]}"
  # shellcheck disable=SC2016  # each node expands its own name
  srun --nodes="${#nodes[@]}" --ntasks="${#nodes[@]}" --ntasks-per-node=1 --cpus-per-task="$cpus" \
    --kill-on-bad-exit=1 --wait=60 --unbuffered \
    bash -c 'exec python -m dist_trainer.agent --node="$SLURMD_NODENAME" "$@"' agent "${agent[@]}" -- train "${settings[@]}" &
  step=$!
  while kill -0 "$step" 2>/dev/null; do # a trap ends a wait
    status=0
    wait "$step" || status=$?
  done
  rm -f -- "$DIST_TRAINER_STOP_FILE"

  local ended
  ended=$(outcome)
  if [[ $ended == complete ]]; then
    say "complete"
  elif is_ended; then
    say "$ended at iteration $(field iteration); ended by Slurm, and not requeued from here"
    exit 143
  elif [[ $ended == stopped ]]; then
    say "stopped at iteration $(field iteration)"
    go_on 0
  else
    say "crashed (srun: $status)"
    last_words
    if may_crash_again; then
      go_on 1
    fi
    say "gives up; $run_dir/logs has what each learner said"
    exit 1
  fi
}
