#!/bin/bash
# Made by `opencluster launch slurm`: starts the cluster night on each computer of a job.
#SBATCH --job-name=opencluster-night
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=2
#SBATCH --time=26:00:00
#SBATCH --partition=gpu
#SBATCH --account=astro
#SBATCH --output=/scratch/night/launch/%j.log
#SBATCH --no-kill
#SBATCH --no-requeue
set -euo pipefail
umask 077
run=('/opt/open cluster/bin/python' -m opencluster.launchers.batch.allocation)
job=/scratch/night/jobs-of-slurm/"$SLURM_JOB_ID"
mkdir -p "$job"
scontrol show hostnames "$SLURM_JOB_NODELIST" >"$job/nodes"
"${run[@]}" begin slurm "$job" first
# a computer that fails takes no other one with it
exec srun --ntasks-per-node=1 --cpus-per-task=16 --mpi=none --cpu-bind=none --no-kill \
    --kill-on-bad-exit=0 --wait=0 "${run[@]}" work slurm "$job"
