#!/usr/bin/env bash
# One learner, as `python -m dist_trainer.agent` starts it. If DIST_TRAINER_LOGS names a folder, its output is appended
# to a file there, over all restarts; the first learner's is shown as well.
#
#   launch/learner.sh VERB SETTING=VALUE...
set -euo pipefail

trap '' USR1 # not to end by it before the learner listens

if [[ -n ${DIST_TRAINER_LOGS:-} ]]; then
  mkdir -p -- "$DIST_TRAINER_LOGS"
  printf -v log '%s/rank_%03d.log' "$DIST_TRAINER_LOGS" "$RANK"
  printf -- '--- job %s restart %s on %s, %s\n' \
    "${DIST_TRAINER_JOB:--}" "${DIST_TRAINER_RESTART:--}" "$(hostname)" "$(date -Is)" >>"$log"
  if ((RANK == 0)); then
    exec > >(trap '' TERM INT HUP USR1 && exec tee -a -- "$log") 2>&1
  else
    exec >>"$log" 2>&1
  fi
fi
exec "${DIST_TRAINER_PYTHON:-python}" -m dist_trainer "$@"
