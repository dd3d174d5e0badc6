#!/bin/sh
# All measurements under one MPI library, the one whose mpirun comes first on the PATH:
#
#   sh benchmarks/measure.sh FOLDER LIBRARY
#
# writes FOLDER/{tune,exchanges,scale}-LIBRARY-nP.h5. QUICK=1 takes a minute and shows nothing but
# that everything works.
set -eu

folder=$1 library=$2
ranks='2 4 8' many='64 128' longest=64M rounds=30
sizes=4K,16K,32K,64K,256K,1M,4M,16M,64M,256M seconds=8
if [ -n "${QUICK:-}" ]; then
    ranks=2 many=16 longest=4M rounds=3
    sizes=4K,256K,4M seconds=0.2
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$folder"

for p in $ranks; do
    # First which exchange is the best for which size, in a run of its own; then that against others.
    rm -f "$folder/tune-$library-n$p.h5" "$folder/exchanges-$library-n$p.h5"
    mpirun -n "$p" commbench tune \
        --exchange native,tree,ring,sharded-server,halving-doubling,recursive-doubling \
        --minbytes 4K --maxbytes "$longest" --stepfactor 4 --iters "$rounds" \
        --tuning "$scratch/tuning.json" --output "$folder/tune-$library-n$p.h5"
    mpirun -n "$p" python -m benchmarks.run --sizes "$sizes" --seconds "$seconds" \
        --tuning "$scratch/tuning.json" --tuned "$folder/tune-$library-n$p.h5" \
        --output "$folder/exchanges-$library-n$p.h5"
done
for p in $many; do
    rm -f "$folder/scale-$library-n$p.h5"
    mpirun -n "$p" python -m benchmarks.scale --output "$folder/scale-$library-n$p.h5"
done
