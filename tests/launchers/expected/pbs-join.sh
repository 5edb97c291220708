#!/bin/bash
# Made by `opencluster launch pbs`: joins the cluster small on each computer of a job.
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
# PBS delivers what is printed at the end alone, and that of other computers apart
log=/home/ann/small/launch/"$PBS_JOBID".log
exec >>"$log" 2>&1
awk '!seen[$0]++' "$PBS_NODEFILE" >"$job/nodes"
echo $(($(date +%s) + 1800)) >"$job/ends-at"
"${run[@]}" begin pbs "$job" joining
# qdel tells this computer alone, which tells the others
trap 'touch "$job/end"' TERM
# pbsdsh, told as well, would have all killed; what modules have set it does not hand on
setsid pbsdsh -- /bin/sh -c 'exec "$@" >>"$0" 2>&1' "$log" \
    /usr/bin/env HOME="$HOME" PATH="$PATH" PBS_JOBID="$PBS_JOBID" \
    LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}" PYTHONPATH="${PYTHONPATH:-}" \
    "${run[@]}" work pbs "$job" &
while kill -0 $! 2>/dev/null; do wait $! || true; done
