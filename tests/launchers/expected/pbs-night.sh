#!/bin/bash
# Made by `opencluster launch pbs`: starts the cluster night on each computer of a job.
#PBS -N opencluster-night
#PBS -l select=4:ncpus=16:mpiprocs=1:ngpus=2
#PBS -l place=scatter
#PBS -l walltime=26:00:00
#PBS -q gpu
#PBS -A astro
#PBS -j oe
#PBS -o /scratch/night/launch/
#PBS -r n
#PBS -V
#PBS -W tolerate_node_failures=all
set -euo pipefail
umask 077
run=('/opt/open cluster/bin/python' -m opencluster.launchers.batch.allocation)
job=/scratch/night/jobs-of-pbs/"$PBS_JOBID"
mkdir -p "$job"
# PBS delivers what is printed at the end alone, and that of other computers apart
log=/scratch/night/launch/"$PBS_JOBID".log
exec >>"$log" 2>&1
awk '!seen[$0]++' "$PBS_NODEFILE" >"$job/nodes"
echo $(($(date +%s) + 93600)) >"$job/ends-at"
"${run[@]}" begin pbs "$job" first
# qdel tells this computer alone, which tells the others
trap 'touch "$job/end"' TERM
# pbsdsh, told as well, would have all killed; what modules have set it does not hand on
setsid pbsdsh -- /bin/sh -c 'exec "$@" >>"$0" 2>&1' "$log" \
    /usr/bin/env HOME="$HOME" PATH="$PATH" PBS_JOBID="$PBS_JOBID" \
    LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}" PYTHONPATH="${PYTHONPATH:-}" \
    "${run[@]}" work pbs "$job" &
while kill -0 $! 2>/dev/null; do wait $! || true; done
