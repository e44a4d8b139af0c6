# shellcheck shell=bash
# A throw-away Slurm cluster for tests: n1, n2, n3 on this machine. Sourced by run.sh.
#
# SLURM_LAB: the script that makes it (default: ../shared/slurm_lab.sh beside the repository). SLURM_LAB_DIR is its state.

lab() { bash "$SLURM_LAB" "$@"; }
head_node() { lab exec -- "$@"; } # run a command there

# Prints why there can be no lab here; nothing if there can.
why_no_lab() {
  local command
  if [[ ! -f $SLURM_LAB ]]; then
    echo "there is no $SLURM_LAB (set SLURM_LAB)"
  elif [[ $(id -u) != 0 ]]; then
    echo "this needs root, for network namespaces"
  else
    for command in slurmctld slurmd sbatch munged ip unshare nsenter; do
      PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null || {
        echo "$command is not installed: $SLURM_LAB install"
        return
      }
    done
    unshare --net --mount --pid --fork true 2>/dev/null || echo "namespaces are not allowed here"
  fi
}

fail() {
  printf 'FAILED: %s\n' "$*" >&2
  exit 1 # of the case, which is a subshell
}

# within SECONDS WHAT COMMAND...: polls until the command succeeds
within() {
  local until=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    ((SECONDS < until)) || fail "took too long: $what"
    sleep 0.3
  done
}

# status_field RUN NAME
status_field() { sed -n "s/^$2=//p" -- "$1/status" 2>/dev/null; }

has_reached() { # RUN ITERATION
  local iteration
  iteration=$(status_field "$1" iteration)
  [[ -n $iteration ]] && ((iteration >= $2))
}

state_of() { head_node squeue --noheader --states=all --jobs="$1" --format=%T 2>/dev/null || true; }
has_state() { [[ $(state_of "$1") == "$2" ]]; }
is_over() {
  case $(state_of "$1") in PENDING | RUNNING | COMPLETING | REQUEUED | SUSPENDED | '') return 1 ;; esac
}

# restarts JOB: how often it was requeued
restarts() { head_node scontrol show job "$1" | grep -o 'Restarts=[0-9]*' | cut -d = -f 2; }
