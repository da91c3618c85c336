#!/bin/sh
# The one command on a machine with torch and without a network, in the folder that `make gpu-pack` filled:
#
#     sh gpu-pack/run.sh                             # one GPU: the recipe in 6 minutes, then its speed
#     sh gpu-pack/run.sh --device cpu --budget 20m   # options of jobs/bundle.py
#
# Leaves in $OUT (./gpu-out) at most 8 files of at most 16 MB; `python jobs/bundle.py --unpack gpu-out` at home
# takes them. WORK is where it works (a fresh folder), RECIPE the recipe (tissue), BENCHMARK the seconds that
# benchmarks/gpu.py may take (90; 0: none), LIMIT the seconds after which the recipe is stopped (430).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
OUT=${OUT:-$PWD/gpu-out}
WORK=${WORK:-$(mktemp -d)}
python=${PYTHON:-python3}
mkdir -p "$OUT" "$WORK/source"
OUT=$(cd "$OUT" && pwd)
[ -d "$WORK/site" ] || "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
  --target "$WORK/site" "$here"/wheels/*.whl
export PYTHONPATH="$here/code:$WORK/site" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
tar -xf "$here/pictures.tar.gz" -C "$WORK/source"
cd "$WORK"
bundle="$here/code/jobs/bundle.py"
run="--recipe ${RECIPE:-tissue} --run pack"
[ -d "$here/autoencoder" ] && run="$run --autoencoder $here/autoencoder"
# Stopped by a signal that training saves at, so that there is something to collect.
timeout --signal=INT --kill-after=20 "${LIMIT:-430}" "$python" "$bundle" source $run --device cuda --budget 6m \
  --without evaluate "$@" || echo "run.sh: the recipe did not end by itself" >&2
"$python" "$bundle" $run --collect "$OUT"
if [ "${BENCHMARK:-90}" -gt 0 ] && [ -f "$here/code/benchmarks/gpu.py" ]; then
  timeout "${BENCHMARK:-90}" "$python" "$here/code/benchmarks/gpu.py" --json "$OUT/gpu.json" ||
    echo "run.sh: no benchmark" >&2
fi
