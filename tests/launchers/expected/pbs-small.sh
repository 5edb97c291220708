#!/bin/bash
# Made by `opencluster launch pbs`: starts the cluster small on each computer of a job.
#PBS -N opencluster-small
#PBS -l select=1:ncpus=4:mpiprocs=1
#PBS -l place=scatter
#PBS -l walltime=0:30:00
#PBS -j oe
#PBS -o /home/ann/small/launch/
#PBS -r n
#PBS -V
set -euo pipefail
umask 077
run=(/usr/bin/python3 -m opencluster.launchers.batch.allocation)
job=/home/ann/small/jobs-of-pbs/"$PBS_JOBID"
mkdir -p "$job"
awk '!seen[$0]++' "$PBS_NODEFILE" >"$job/nodes"
echo $(($(date +%s) + 1800)) >"$job/ends-at"
"${run[@]}" begin pbs "$job" first
# pbsdsh hands on nothing of the environment
exec pbsdsh -u -- /usr/bin/env HOME="$HOME" PATH="$PATH" PBS_JOBID="$PBS_JOBID" \
    LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}" PYTHONPATH="${PYTHONPATH:-}" \
    "${run[@]}" work pbs "$job"
