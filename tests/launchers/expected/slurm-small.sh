#!/bin/bash
# Made by `opencluster launch slurm`: starts the cluster small on each computer of a job.
#SBATCH --job-name=opencluster-small
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --time=0:30:00
#SBATCH --output=/home/ann/small/launch/%j.log
#SBATCH --no-kill
#SBATCH --no-requeue
set -euo pipefail
umask 077
run=(/usr/bin/python3 -m opencluster.launchers.batch.allocation)
job=/home/ann/small/jobs-of-slurm/"$SLURM_JOB_ID"
mkdir -p "$job"
scontrol show hostnames "$SLURM_JOB_NODELIST" >"$job/nodes"
"${run[@]}" begin slurm "$job" first
# a computer that fails takes no other one with it
exec srun --ntasks-per-node=1 --cpus-per-task=4 --mpi=none --cpu-bind=none --no-kill \
    --kill-on-bad-exit=0 --wait=0 "${run[@]}" work slurm "$job"
