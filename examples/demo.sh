#!/bin/sh
# Parameter server against reduction tree, on one machine: the same training with each, then the
# exchanges alone over message sizes and ranks, and one figure of it all. About eight minutes on
# two cores. Run it with `make demo`, or with commbench and mpirun on the PATH. An argument names the
# folder of the results.
set -eu

folder=${1:-results/demo-$(date +%Y-%m-%dT%H%M%S)}
mkdir -p "$folder"

for exchange in tree parameter-server; do
    printf '\n== Train NiN on 4 ranks, gradients summed by %s ==\n' "$exchange"
    mpirun -n 4 commbench train --model nin --exchange "$exchange" \
        --output "$folder/train-$exchange.h5"
done

for ranks in 2 4 8; do
    printf '\n== The exchanges alone, on %s ranks ==\n' "$ranks"
    mpirun -n "$ranks" commbench sweep \
        --exchange none,native,parameter-server,tree,ring,sharded-server -b 8K -e 32M -f 8 \
        --check --output "$folder/sweep-n$ranks.h5"
done

printf '\n== Parameter server against tree ==\n'
figure=$folder/parameter-server-against-tree.png
commbench report "$folder"/*.h5 --output "$figure"
page=$folder/report.html
commbench report "$folder"/*.h5 --output "$page" > /dev/null

printf '\nLook at   %s\n' "$figure"
printf 'Zoom in   %s\n' "$page"
printf 'Read on   commbench info %s\n' "$folder/train-tree.h5"
printf 'Format    results/README.md\n'
