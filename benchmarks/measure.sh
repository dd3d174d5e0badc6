#!/bin/sh
# All measurements: every number of ranks under every MPI library, the libraries in turn.
#
#   sh benchmarks/measure.sh FOLDER LIBRARY=BIN...
#
# with the folder BIN of each library's mpirun and python writes
# FOLDER/{tune,exchanges,training,scale}-LIBRARY-nP.h5, and
# FOLDER/{models,overhead,input-cCORES}.h5 of one process. QUICK=1 takes two minutes and shows
# nothing but that everything works.
set -eu

folder=$1
shift
ranks='2 4 8' many='64 128' rounds=20 longest=16M seconds=6
sizes=4K,16K,32K,64K,256K,1M,4M,16M,64M
trained='2 4' models=nin,alexnet,resnet50 steps=20 fed='1 2'
if [ -n "${QUICK:-}" ]; then
    ranks=2 many=16 rounds=3 longest=4M seconds=0.2
    sizes=4K,256K,4M
    trained=2 models=nin steps=2 some='--models lstm-mnist --steps 1'
    fed=2 few='--pictures 16 --rounds 2'
fi

# Open MPI refuses to start as root, and to start more ranks than cores, unless it is told twice;
# a container on a small machine is both. MPICH reads none of these.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$folder"

exchanges() { # LIBRARY P: which of ours is the best for which size; then that against others
    more=,256M
    # Eight ranks would hold 12 GB of buffers.
    if [ "$2" -ge 8 ] || [ -n "${QUICK:-}" ]; then more=; fi
    rm -f "$folder/tune-$1-n$2.h5" "$folder/exchanges-$1-n$2.h5"
    ours=parameter-server,tree,ring,sharded-server,halving-doubling,recursive-doubling
    mpirun -n "$2" commbench tune --exchange "native,$ours" \
        --minbytes 4K --maxbytes "$longest" --stepfactor 4 --iters "$rounds" \
        --tuning "$scratch/tuning.json" --output "$folder/tune-$1-n$2.h5"
    mpirun -n "$2" python -m benchmarks.run --sizes "$sizes$more" --seconds "$seconds" \
        --tuning "$scratch/tuning.json" --tuned "$folder/tune-$1-n$2.h5" \
        --output "$folder/exchanges-$1-n$2.h5"
}

training() { # LIBRARY P: whole training steps, against DDP
    rm -f "$folder/training-$1-n$2.h5"
    OMP_NUM_THREADS=1 mpirun -n "$2" python -m benchmarks.training --models "$models" \
        --rounds "$steps" --output "$folder/training-$1-n$2.h5"
}

scale() { # LIBRARY P
    rm -f "$folder/scale-$1-n$2.h5"
    mpirun -n "$2" python -m benchmarks.scale --launched "$(date +%s.%N)" \
        --output "$folder/scale-$1-n$2.h5"
}

path=$PATH
under_all() { # COMMAND P LIBRARY=BIN...
    what=$1 p=$2
    shift 2
    for library; do
        PATH=${library#*=}:$path
        "$what" "${library%%=*}" "$p"
    done
}

for p in $ranks; do under_all exchanges "$p" "$@"; done
PATH=${1#*=}:$path
rm -f "$folder/models.h5"
python -m benchmarks.models ${some:-} --output "$folder/models.h5"
rm -f "$folder/overhead.h5"
mpirun -n 1 python -m benchmarks.overhead --rounds "$steps" --output "$folder/overhead.h5"
for cores in $fed; do
    rm -f "$folder/input-c$cores.h5"
    python -m benchmarks.input --cores "$cores" ${few:-} --output "$folder/input-c$cores.h5"
done
PATH=$path
for p in $trained; do under_all training "$p" "$@"; done
for p in $many; do under_all scale "$p" "$@"; done
