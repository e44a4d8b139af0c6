# shellcheck shell=bash
# Files of experiments: one line of settings each. Sourced by slurm/experiments.sbatch and launch/submit.sh.

# experiment_lines FILE: those that count
experiment_lines() {
  grep -vE '^[[:space:]]*(#|$)' -- "$1" || true
}

# experiment_line FILE INDEX: the line of this index, from 0
experiment_line() {
  local line
  line=$(experiment_lines "$1" | sed -n "$(($2 + 1))p")
  if [[ -z $line ]]; then
    echo "slurm: $1 has no experiment $2 (they count from 0)" >&2
    return 2
  fi
  printf '%s\n' "$line"
}

# experiment_words <LINE: its settings, one a line. xargs knows quotes and expands nothing.
experiment_words() {
  xargs --no-run-if-empty printf '%s\n'
}
