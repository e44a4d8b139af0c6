# shellcheck shell=bash disable=SC2034
# What is different at every site: the one file to edit. Sourced by launch/submit.sh and, on the first node, by jobs.
# Another file, for another cluster: export DIST_TRAINER_SITE=/path/to/it.

SITE_PARTITION='' # empty: the cluster's default
SITE_ACCOUNT=''
SITE_SBATCH=()    # further options of sbatch for all jobs, such as --qos=long or --constraint=a100

# The interface of the network between nodes, such as ib0 or eth0: learners talk (NCCL, gloo) and listen on it alone.
# Empty: that of the nodes' host names.
SITE_INTERFACE=''

SITE_RUNS=runs       # run folders; on a file system that all nodes see
SITE_PATIENCE_S=300  # for all nodes to start; those that do not are named
SITE_MAX_RESTARTS=3  # of all learners by torchrun, within one job, after one has failed
SITE_MAX_CRASHES=3   # requeues after crashes without a newer checkpoint between them

# Run on the first node, from the root of the repository; the other nodes inherit what it exports.
site_environment() {
  # module load gcc/12 cuda/12.4
  # shellcheck disable=SC1091
  source .venv/bin/activate
}
