# shellcheck shell=bash
# What happens to a job, case by case; each is a function that `fail`s, run in a subshell by run.sh with a lab of its own.
# shellcheck disable=SC2034,SC2154  # CASES and SHORT are for run.sh; work, runs and python are its own

CASES=(undisturbed usr1_to_batch usr1_to_steps time_limit preempted requeued node_killed cable_cut killed_learner
  cancelled endless_crash missing_node chain experiments sweep benchmark three_nodes multi_node)
SHORT=(undisturbed usr1_to_steps node_killed)

ITERATIONS=80
SETTINGS=(env=cartpole device=cpu total_envs=24 horizon=16 ppo.minibatches=2 policy.hidden_size=16 torch_threads=1
  env_threads=1 policy._target_=tests.slow_policy.SlowPolicy total_env_steps=$((24 * 16 * ITERATIONS))
  checkpoint_every=10 collective_timeout_s=15)

# submit NAME SBATCH_OPTION... : sets job and run
submit() {
  local name=$1
  shift
  job=$(head_node sbatch --parsable --nodes=2 --job-name="$name" --output="$runs/%x-%j.out" "$@" \
    slurm/train.sbatch "${SETTINGS[@]}")
  run=$runs/$name-$job
}

# train NAME SBATCH_OPTION...: as submit, and waits until it is in the middle
train() {
  submit "$@"
  within 90 "$1 to train" has_reached "$run" $((ITERATIONS / 4))
}

digest() { "$python" -m tests.slurm.digest "$1"; }

# finishes JOB RUN [REFERENCE]: the run is complete and the same as the undisturbed one
finishes() {
  local reference=$runs/${3:-reference}
  within 150 "job $1 to end" is_over "$1"
  [[ $(status_field "$2" state) == complete ]] || fail "status: $(cat -- "$2/status")"
  if [[ ! -f $reference ]]; then
    echo "(no reference: case undisturbed did not run before)"
    return
  fi
  [[ $(digest "$2") == "$(<"$reference")" ]] || fail "$(digest "$2") is not the undisturbed $(<"$reference")"
}

was_requeued() { # JOB TIMES
  [[ $(restarts "$1") == "$2" ]] || fail "job $1 was requeued $(restarts "$1") times instead of $2"
}

# Nothing of the trainer listens but on the interface of site.sh and on the loopback.
listeners_are_private() {
  local strangers
  strangers=$(lab on n1 -- ss --no-header --listening --tcp --numeric --processes | grep python |
    awk '{print $4}' | grep -vE '^(10\.213\.|127\.|\[::1\]|\[::ffff:10\.213\.)' || true)
  [[ -z $strangers ]] || fail "listens on $strangers"
  lab on n1 -- ss --no-header --listening --tcp --processes | grep -q python || fail "nobody listens: what was looked at?"
}

case_undisturbed() {
  train plain
  listeners_are_private
  within 60 "job to end" is_over "$job"
  [[ $(status_field "$run" state) == complete ]] || fail "status: $(cat -- "$run/status")"
  [[ $(digest "$run") == "$ITERATIONS "* ]] || fail "$(digest "$run")"
  if [[ -f $runs/reference ]]; then
    [[ $(digest "$run") == "$(<"$runs/reference")" ]] || fail "not the run that it was before"
  fi
  digest "$run" >"$runs/reference"
  [[ -s $run/logs/rank_000.log && -s $run/logs/rank_001.log ]] || fail "no log for each rank"
  was_requeued "$job" 0
}

case_usr1_to_batch() {
  train batch
  head_node scancel --batch --signal=USR1 "$job"
  finishes "$job" "$run"
  was_requeued "$job" 1
  [[ $(grep -c '^--- job' "$run/logs/rank_001.log") == 2 ]] || fail "the log of rank 1 was not appended to"
  [[ $(grep -c ' starts at \| resumes at ' "$runs/batch-$job.out") == 2 ]] || fail "the job's output was not appended to"
}

case_usr1_to_steps() {
  train steps
  head_node scancel --signal=USR1 "$job"
  finishes "$job" "$run"
  was_requeued "$job" 1
}

case_time_limit() {
  export TEST_ACT_S=0.022 # Slurm tells time in half minutes
  submit limit --time=1 --signal=B:USR1@30
  within 120 "the time limit" has_been_requeued "$job"
  head_node scontrol update JobId="$job" TimeLimit=10
  finishes "$job" "$run"
  grep -q 'USR1: the learners are asked to stop' "$runs/limit-$job.out" || fail "no USR1 came"
}
has_been_requeued() { (($(restarts "$1") > 0)); }

case_preempted() {
  local other
  train spot --partition=spot
  other=$(head_node sbatch --parsable --nodes=3 --cpus-per-task=4 --output=/dev/null --wrap='sleep 1')
  finishes "$job" "$run"
  was_requeued "$job" 1
  [[ $(state_of "$other") == COMPLETED ]] || fail "the other job: $(state_of "$other")"
}

case_requeued() {
  train requeued
  head_node scontrol requeue "$job"
  finishes "$job" "$run"
  was_requeued "$job" 1
}

# The first node of the job loses its power: the batch shell, the rendezvous and a learner are gone. n3 replaces it.
case_node_killed() {
  train killed
  lab kill n1
  finishes "$job" "$run"
  was_requeued "$job" 1
}

# The second node is cut off, and goes on by itself until its collectives time out.
case_cable_cut() {
  train cut
  lab cut n2
  finishes "$job" "$run"
  was_requeued "$job" 1
}

# All learners come back by themselves, in the same job.
case_killed_learner() {
  train oom
  # shellcheck disable=SC2016  # the node's own process ids
  lab on n2 -- sh -c 'kill -KILL $(pgrep -f "^[^ ]*python -m dist_trainer train")'
  finishes "$job" "$run"
  was_requeued "$job" 0
  [[ $(grep -c '^--- job' "$run/logs/rank_000.log") == 2 ]] || fail "the learners were not started twice"
}

case_cancelled() {
  train cancelled
  head_node scancel "$job"
  within 30 "job to end" is_over "$job"
  [[ $(state_of "$job") == CANCELLED ]] || fail "job is $(state_of "$job")"
  sleep 8 # longer than a requeue takes
  [[ $(state_of "$job") == CANCELLED ]] || fail "job is $(state_of "$job")"
  [[ $(status_field "$run" state) == stopped ]] || fail "it left no checkpoint: $(cat -- "$run/status")"
  # Somebody continues it, with another job.
  job=$(head_node sbatch --parsable --nodes=2 --output="$runs/%x-%j.out" slurm/train.sbatch "${SETTINGS[@]}" "run_dir=$run")
  finishes "$job" "$run"
}

# A learner that always dies at the same place: as many tries as site.sh allows, and an end that says so.
case_endless_crash() {
  export TEST_DIES_AT=20
  submit crash
  within 150 "job to give up" is_over "$job"
  [[ $(state_of "$job") == FAILED ]] || fail "job is $(state_of "$job")"
  was_requeued "$job" 1
  grep -q 'gives up' "$runs/crash-$job.out" || fail "it does not say so"
  grep -q 'dist_trainer' "$runs/crash-$job.out" || fail "nobody is named"
}

# A node that Slurm has but that cannot reach the others is named.
case_missing_node() {
  local began=$SECONDS
  lab on n2 -- ip route add blackhole 10.213.77.11
  sed 's/^SITE_PATIENCE_S=.*/SITE_PATIENCE_S=10/; s/^SITE_MAX_CRASHES=.*/SITE_MAX_CRASHES=0/' "$DIST_TRAINER_SITE" >"$runs/patience.sh"
  DIST_TRAINER_SITE=$runs/patience.sh submit missing
  within 60 "job to give up" is_over "$job"
  echo "note: after $((SECONDS - began)) s"
  grep -qE 'no sign of node n2|node n2 cannot reach' "$runs/missing-$job.out" || fail "n2 is not named"
}

case_chain() {
  local jobs
  mapfile -t jobs < <(head_node env TEST_ACT_S="$TEST_ACT_S" launch/submit.sh --chain=3 --nodes=2 --learners=1 \
    --job-name=chain "${SETTINGS[@]}" 2>/dev/null)
  ((${#jobs[@]} == 3)) || fail "submit.sh printed ${jobs[*]}"
  run=$runs/chain-${jobs[0]}
  within 90 "the first job to train" has_reached "$run" $((ITERATIONS / 4))
  head_node scancel --batch --signal=USR1 "${jobs[0]}"
  finishes "${jobs[1]}" "$run"
  [[ $(status_field "$run" job) == "${jobs[1]}" ]] || fail "job ${jobs[1]} did not finish the run: $(cat -- "$run/status")"
  within 60 "the third job" is_over "${jobs[2]}" # it finds nothing to do
  was_requeued "${jobs[0]}" 0
  [[ $(state_of "${jobs[2]}") == COMPLETED ]] || fail "job ${jobs[2]}: $(state_of "${jobs[2]}")"
}

case_experiments() {
  local array index
  printf '%s\n' '# two runs' 'seed=1' '' 'seed=2 optimizer.lr=0.001' >"$runs/experiments"
  array=$(head_node env TEST_ACT_S="$TEST_ACT_S" launch/submit.sh --experiments="$runs/experiments" --learners=2 \
    --job-name=experiments "${SETTINGS[@]}" 2>/dev/null)
  run=$runs/experiments-$array
  for index in 0 1; do
    within 90 "element $index to train" has_reached "$run/$index" $((ITERATIONS / 4))
  done
  head_node scancel --batch --signal=USR1 "${array}_1" # its job id is the array's own
  for index in 0 1; do
    within 120 "element $index to end" is_over "${array}_$index"
    [[ $(status_field "$run/$index" state) == complete ]] || fail "element $index: $(cat -- "$run/$index/status")"
    [[ $(status_field "$run/$index" restart) == "$index" ]] || fail "element $index: $(cat -- "$run/$index/status")"
  done
  finishes "${array}_0" "$run/0"
  [[ $(digest "$run/0") != $(digest "$run/1") ]] || fail "both elements are the same run"
}

# sweep_trials STATE: how many trials of the study in $run ended so
sweep_trials() { awk -F , -v state="$1" 'NR > 1 && $2 == state' "$run/trials.csv" 2>/dev/null | wc -l; }

# Two workers on two nodes; one is asked to stop, and its element requeued; the other one's node dies.
case_sweep() {
  local array index owner
  printf 'knobs:\n  optimizer.lr: {log: [0.001, 0.01]}\n' >"$runs/space.yaml"
  array=$(head_node env TEST_ACT_S="$TEST_ACT_S" launch/submit.sh --sweep=2 --learners=1 --cpus-per-task=4 \
    --job-name=sweep "${SETTINGS[@]}" sweep.space="$runs/space.yaml" sweep.trials=4 sweep.pruner=none \
    sweep.patience_s=8 2>/dev/null)
  run=$runs/sweep-$array
  for index in 0 1; do
    within 90 "trial $index to train" has_reached "$run/trials/000$index/run1" $((ITERATIONS / 4))
  done
  head_node scancel --batch --signal=USR1 "${array}_1"
  within 90 "element 1 to be requeued" grep -q 'requeued' "$runs/sweep-${array}_1.out"
  owner=$(head_node squeue --noheader --jobs="${array}_0" --format=%N)
  lab kill "$owner"
  for index in 0 1; do
    within 240 "element $index to end" is_over "${array}_$index"
    [[ $(state_of "${array}_$index") == COMPLETED ]] || fail "element $index: $(state_of "${array}_$index")"
  done
  [[ $(sweep_trials complete) == 4 && $(wc -l <"$run/trials.csv") == 5 ]] || fail "trials: $(cat -- "$run/trials.csv")"
  cut -d , -f 7 "$run/trials.csv" | grep -q 'its worker disappeared' || fail "nobody missed the dead node's worker"
  [[ -s $run/tuned/best.yaml ]] || fail "no best.yaml"
}

# Two workers on two nodes; one is asked to stop in mid-training, and its element requeued: no run is lost or done twice.
case_benchmark() {
  local array index
  array=$(head_node env TEST_ACT_S="$TEST_ACT_S" DIST_TRAINER_TRUST=tests launch/submit.sh --benchmark=2 --learners=1 --cpus-per-task=4 \
    --job-name=benchmark "optimizers=[muon,adamw]" "envs=[cartpole]" seeds=2 workers=1 budget=0.03 device=cpu total_envs=24 \
    horizon=16 ppo.minibatches=2 policy.hidden_size=16 policy._target_=tests.slow_policy.SlowPolicy 2>/dev/null)
  run=$runs/benchmark-$array
  for index in muon adamw; do
    within 90 "$index to train" has_reached "$run/runs/cartpole/$index/1/train" $((ITERATIONS / 4))
  done
  head_node scancel --batch --signal=USR1 "${array}_1"
  within 90 "element 1 to be requeued" grep -q 'requeued' "$runs/benchmark-${array}_1.out"
  for index in 0 1; do
    within 240 "element $index to end" is_over "${array}_$index"
    [[ $(state_of "${array}_$index") == COMPLETED ]] || fail "element $index: $(state_of "${array}_$index")"
  done
  [[ $(find "$run/runs" -name score.json | wc -l) == 4 ]] || fail "runs: $(find "$run/runs" -name score.json)"
  [[ -z $(find "$run/runs" -name failed.json) ]] || fail "$(find "$run/runs" -name failed.json -exec cat {} +)"
  [[ $(wc -l <"$run/report/runs.csv") == 5 ]] || fail "the report: $(cat -- "$run/report/runs.csv")"
}

# Three nodes; one of them loses its power and is started again.
case_three_nodes() {
  train three --nodes=3
  if [[ ! -f $runs/reference3 ]]; then
    within 90 "job to end" is_over "$job"
    digest "$run" >"$runs/reference3"
    train three --nodes=3
  fi
  lab kill n3
  within 60 "Slurm to notice" has_state "$job" PENDING
  lab boot n3
  finishes "$job" "$run" reference3
  was_requeued "$job" 1
}

# Without Slurm: the nodes are machines with a remote shell.
case_multi_node() {
  cat >"$runs/remote" <<SHELL
#!/usr/bin/env bash
exec bash '$SLURM_LAB' on "\$1" -- env OMP_NUM_THREADS=1 TEST_ACT_S=$TEST_ACT_S bash -c "\$2"
SHELL
  chmod +x "$runs/remote"
  run=$runs/multi_node
  local command=(launch/multi_node.sh "--hosts=n1,n2" --learners=1 --interface=eth0 --patience=20 "--remote-shell=$runs/remote"
    "${SETTINGS[@]}" "run_dir=$run") script
  "${command[@]}" &
  script=$!
  within 60 "the learners to train" has_reached "$run" $((ITERATIONS / 4))
  kill -TERM "$script"
  wait "$script" || fail "it ended with $?"
  [[ $(status_field "$run" state) == stopped ]] || fail "status: $(cat -- "$run/status")"
  "${command[@]}" &
  script=$!
  within 60 "the learners to train" has_reached "$run" $((ITERATIONS / 2))
  kill -KILL "$script" # its connections end with it
  within 30 "the learners to stop" is_stopped "$run"
  within 30 "the agents to end" agents_are_gone
  "${command[@]}" || fail "it ended with $?"
  [[ $(digest "$run") == "$(<"$runs/reference")" ]] || fail "$(digest "$run") is not the undisturbed $(<"$runs/reference")"
  lab cut n2
  local status=0 began=$SECONDS log=$runs/missing.log
  "${command[@]}" "run_dir=$run-2" >"$log" 2>&1 || status=$?
  if ((status != 3)) || ! grep -q 'no sign of node n2' "$log"; then
    fail "status $status: $(<"$log")"
  fi
  echo "note: a missing host is named after $((SECONDS - began)) s"
}
is_stopped() { [[ $(status_field "$1" state) == stopped ]]; }
agents_are_gone() { ! lab on n1 -- pgrep -f dist_trainer.agent >/dev/null && ! lab on n2 -- pgrep -f dist_trainer.agent >/dev/null; }
