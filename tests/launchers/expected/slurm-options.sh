#!/bin/bash
# Made by `opencluster launch slurm`: starts the cluster whole on each computer of a job.
#SBATCH --job-name=opencluster-whole
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --partition=long
#SBATCH --output=/scratch/whole/launch/%j.log
#SBATCH --no-kill
#SBATCH --no-requeue
#SBATCH --mem=64G
#SBATCH -C ib
set -euo pipefail
umask 077
run=(/usr/bin/python3 -m opencluster.launchers.batch.allocation)
job=/scratch/whole/jobs-of-slurm/"$SLURM_JOB_ID"
mkdir -p "$job"
scontrol show hostnames "$SLURM_JOB_NODELIST" >"$job/nodes"
"${run[@]}" begin slurm "$job" first
# a computer that fails takes no other one with it
exec srun --ntasks-per-node=1 --mpi=none --cpu-bind=none --no-kill \
    --kill-on-bad-exit=0 --wait=0 "${run[@]}" work slurm "$job"
