#!/usr/bin/env bash
# Training under a real Slurm of three nodes, disturbed in every way: each run must end with the weights (and all other
# state) of the undisturbed one, bit for bit, or stop soon and say why.
#
#   tests/slurm/run.sh [--tracker=linuxproc|cgroup]... [--short | CASE...]      (default: both trackers, all cases)
#
# How Slurm tells a job's processes apart (ProctrackType) decides who gets its signals: all of them (linuxproc), or only
# those that Slurm started itself (cgroup, usual in production). Skips, and says so, where no lab can be made.
set -uo pipefail

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../.." && pwd -P)
cd -- "$root" || exit 1
SLURM_LAB=${SLURM_LAB:-$root/../shared/slurm_lab.sh}
# shellcheck source=tests/slurm/lab.sh
source tests/slurm/lab.sh
# shellcheck source=tests/slurm/cases.sh
source tests/slurm/cases.sh

trackers=() chosen=()
for argument in "$@"; do
  case $argument in
    --tracker=linuxproc | --tracker=cgroup) trackers+=("${argument#*=}") ;;
    --short) chosen=("${SHORT[@]}") ;;
    -*) sed -n '2,/^set -/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; exit 2 ;;
    *)
      declare -F "case_$argument" >/dev/null || { echo "no case $argument; there are: ${CASES[*]}" >&2; exit 2; }
      chosen+=("$argument")
      ;;
  esac
done
((${#trackers[@]})) || trackers=(linuxproc cgroup)
((${#chosen[@]})) || chosen=("${CASES[@]}")
reason=$(why_no_lab)
if [[ -n $reason ]]; then
  echo "tests/slurm: SKIPPED: $reason"
  exit 0
fi

work=$(mktemp -d /tmp/dist_trainer-slurm-XXXXXX)
python=$root/.venv/bin/python
export DIST_TRAINER_LEARNERS=1 OMP_NUM_THREADS=1
export TEST_ACT_S=0.003 # so that an iteration takes at least 50 ms

# all_cases TRACKER: in a lab of its own; prints a row for each case
all_cases() {
  local tracker=$1 runs=$work/$1/runs case began verdict
  export SLURM_LAB_DIR=$work/$tracker/lab DIST_TRAINER_SITE=$work/$tracker/site.sh
  local log=$work/$tracker/case.log
  trap 'lab down >/dev/null' EXIT
  trap 'exit 130' INT TERM
  mkdir -p -- "$runs"
  cat >"$DIST_TRAINER_SITE" <<SITE
source '$root/slurm/site.sh'
SITE_INTERFACE=eth0
SITE_RUNS='$runs'
SITE_PATIENCE_S=60
SITE_MAX_RESTARTS=2
SITE_MAX_CRASHES=1
SITE
  for case in "${chosen[@]}"; do
    began=$SECONDS verdict=pass
    lab up -n 3 -c 4 -t 900 -s "ProctrackType=proctrack/$tracker" >"$log" 2>&1 || cat -- "$log"
    (
      set -e
      "case_$case"
    ) >"$log" 2>&1 || verdict=FAIL
    if [[ $verdict == FAIL ]]; then
      {
        echo "=== $tracker $case"
        cat -- "$log"
        tail -n 40 -- "$runs"/*.out
        head_node squeue --states=all
      } >&2
    fi
    lab down >/dev/null
    rm -f -- "$runs"/*.out
    printf '%-10s %-16s %-5s %4d s  %s\n' "$tracker" "$case" "$verdict" $((SECONDS - began)) \
      "$(sed -n 's/^note: //p' "$log" | tail -n 1)" | tee -a "$work/table"
  done
}

# The trackers have a lab each, side by side: most of the time is waiting.
pids=()
for tracker in "${trackers[@]}"; do
  all_cases "$tracker" &
  pids+=($!)
done
trap 'kill "${pids[@]}" 2>/dev/null; wait; exit 130' INT TERM
wait
echo
sort -s -k 1,1 -- "$work/table"
rows=$(wc -l <"$work/table")
if grep -q ' FAIL ' "$work/table" || ((rows != ${#trackers[@]} * ${#chosen[@]})); then
  echo "tests/slurm: FAILED; what is left is in $work"
  exit 1
fi
rm -rf -- "$work"
echo "tests/slurm: all $rows passed in $SECONDS s"
