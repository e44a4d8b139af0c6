# shellcheck shell=bash disable=SC2034
# A site for dry runs: the interpreter is whichever `python` is found first.
SITE_PARTITION=quiet
SITE_ACCOUNT=''
SITE_SBATCH=()
SITE_INTERFACE=''
SITE_RUNS=runs
SITE_PATIENCE_S=300
SITE_MAX_RESTARTS=3
SITE_MAX_CRASHES=3
site_environment() { return 0; }
