#!/usr/bin/env bash
# Fails when the code in protos/ is not what protoc makes of protos/*.proto.
set -euo pipefail
python=${1:-python}
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
"$python" -m grpc_tools.protoc -I. --python_out="$fresh" --pyi_out="$fresh" --grpc_python_out="$fresh" protos/*.proto
for made in "$fresh"/protos/*; do
    diff -u "protos/$(basename "$made")" "$made" || { echo "protos/ is stale: run \`make protos\`" >&2; exit 1; }
done
