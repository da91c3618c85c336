#!/bin/bash
#SBATCH --job-name=diffgen
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# Ray on the nodes of a Slurm allocation, the head on the first, and one diffgen command on it:
#
#     sbatch --nodes=4 --gpus-per-node=4 --cpus-per-task=32 jobs/slurm.sh \
#         diffgen synthesize --bundle /shared/runs/paper/bundle --n 10000 --size 2048 --out /shared/out/paper
#
# Submit it from an environment that has diffgen (it travels with the job), with all places on storage that the
# nodes share. Options of sbatch go before those above: --time, --partition, --account, --nodes. What Ray says
# is in slurm-JOB-ray.log.
#
# Two minutes before the time limit (--signal) the command is told to stop: training saves, of synthesis whole
# shards stand. The job then puts itself back into the queue and goes on from there, as it does when Slurm takes
# a node away or prefers another job (--requeue). A command that fails by itself is not tried again.
# `scancel --batch --signal=USR1 JOB` stops and requeues it now, `scancel JOB` ends it.
#
# Not `ray symmetric-run`: it ends with `ray stop`, and so every Ray of the same user on a node.
set -eu
[ $# -gt 0 ] || { echo "slurm.sh: say the command, such as: sbatch jobs/slurm.sh diffgen synthesize …" >&2; exit 2; }
nodes=$SLURM_JOB_NUM_NODES
ip=$(python -c 'import ray; print(ray.util.get_node_ip_address())')
export RAY_ADDRESS=$ip:$((20000 + SLURM_JOB_ID % 10000))  # of the job's own: nodes may be shared
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-disabled}
ray="ray start --block --disable-usage-stats --num-cpus=${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}"
ray="$ray --num-gpus=${SLURM_GPUS_ON_NODE:-0}"
temporary=/tmp/ray-$SLURM_JOB_ID  # not /tmp/ray, which may be another user's
log=slurm-$SLURM_JOB_ID-ray.log

stopped='' command='' status=1
trap 'stopped=1; [ -z "$command" ] || kill -INT "$command"' USR1
echo "slurm.sh: job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)), $nodes nodes, Ray at $RAY_ADDRESS"
each="srun --overlap --ntasks-per-node=1 --kill-on-bad-exit=0"
$each --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" $ray --head --node-ip-address="$ip" \
  --port="${RAY_ADDRESS##*:}" --temp-dir="$temporary" --include-dashboard=false >> "$log" 2>&1 &
if [ "$nodes" -gt 1 ]; then
  until (exec 3<> "/dev/tcp/$ip/${RAY_ADDRESS##*:}") 2> /dev/null; do sleep 1; done
  $each --nodes=$((nodes - 1)) --ntasks=$((nodes - 1)) --exclude="$SLURMD_NODENAME" \
    $ray --address="$RAY_ADDRESS" >> "$log" 2>&1 &
fi
timeout 300 python - "$nodes" << 'END' || [ -n "$stopped" ] || { echo "slurm.sh: not all nodes joined Ray in 300 s: see $log" >&2; exit 1; }
import sys, time, ray

while True:  # until all are there
    try:
        ray.init(logging_level="ERROR")
        break
    except ConnectionError:
        time.sleep(1)
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    time.sleep(1)
END

if [ -z "$stopped" ]; then
  set -m  # the command can be interrupted though it is in the background
  "$@" &
  command=$!
  set +m
  [ -z "$stopped" ] || kill -INT $command
  while true; do
    status=0
    wait $command || status=$?
    kill -0 $command 2> /dev/null || break  # else it was the signal that ended the wait
  done
fi
if [ $status -eq 0 ] || [ -n "$stopped" ]; then  # else Ray's logs stay
  $each --nodes="$nodes" --ntasks="$nodes" rm -rf "$temporary" || true
fi
if [ $status -ne 0 ] && [ -n "$stopped" ]; then
  echo "slurm.sh: stopped before the time limit; back into the queue"
  scontrol requeue "$SLURM_JOB_ID" && sleep 600  # it ends this job
fi
exit $status
