#!/usr/bin/env bash
# A command of this project on all hosts of a TPU slice, over a Cloud Storage bucket that lies at bucket/ on each:
#   bash launch/tpu_pod.sh NAME ZONE BUCKET python -m neurolm_jax.train --workdir bucket/runs/xl/pretrain ...
# This project, as it is committed, is copied to the hosts and installed there first. Whenever a host is lost, or the
# command was asked to end and has saved (code 75), it is started again on all of them and goes on from the newest checkpoint; so it does if this script is. NEUROLM_WAIT is
# handed on: seconds in which all hosts must have started it.
set -euo pipefail
if [ $# -lt 4 ]; then
  echo "error: want a slice, its zone, a bucket and a command: bash $0 NAME ZONE BUCKET python -m ..." >&2
  exit 2
fi
name=$1 zone=$2 bucket=${3#gs://}
shift 3
cd "$(dirname "${BASH_SOURCE[0]}")/.."
files=$(mktemp -d)
trap 'rm -r "$files"' EXIT
git archive --format=tar.gz --output="$files/neurolm_jax.tar.gz" HEAD

# Bucket and command arrive at the hosts word by word as they stand here.
printf -v command '%q ' "$@"
printf -v place '%q' "$bucket"
read -r -d '' setup << HOST || true
set -eu
rm -rf neurolm_jax.new && mkdir -p neurolm_jax neurolm_jax.new bucket
tar -xzf neurolm_jax.tar.gz -C neurolm_jax.new && cp -r neurolm_jax.new/. neurolm_jax
command -v gcsfuse > /dev/null && command -v python3.11 > /dev/null || {
  release=gcsfuse-\$(lsb_release -c -s)
  echo "deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt \$release main" \\
    | sudo tee /etc/apt/sources.list.d/gcsfuse.list > /dev/null
  curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /usr/share/keyrings/cloud.google.asc > /dev/null
  sudo apt-get update -q && sudo apt-get install -q -y gcsfuse python3.11 python3.11-venv
}
mountpoint -q bucket || gcsfuse --implicit-dirs $place bucket
ln -sfn ../bucket neurolm_jax/bucket
cd neurolm_jax && PYTHON=python3.11 ACCELERATOR=tpu bash -c 'source launch/environment.sh'
HOST
# What of an earlier start still runs, its connection lost, is ended first; its number is forgotten when the host is.
cat > "$files/neurolm_jax.start" << HOST
set -eu
cd neurolm_jax
number=/dev/shm/neurolm_jax.\$USER
if [ -f "\$number" ] && kill "\$(cat "\$number")" 2> /dev/null; then
  timeout 60 tail --pid="\$(cat "\$number")" -f /dev/null || kill -KILL "\$(cat "\$number")"
fi
echo \$\$ > "\$number"
export PYTHON=python3.11 ACCELERATOR=tpu NEUROLM_COORDINATOR=auto NEUROLM_WAIT=${NEUROLM_WAIT:-300}
export JAX_COMPILATION_CACHE_DIR=\$PWD/bucket/compiled
source launch/environment.sh
exec $command
HOST

on_all=(--zone="$zone" --worker=all --quiet)
gcloud compute tpus tpu-vm scp "$files"/* "$name:" "${on_all[@]}"
gcloud compute tpus tpu-vm ssh "$name" "${on_all[@]}" --command="$setup"
bash launch/restart.sh gcloud compute tpus tpu-vm ssh "$name" "${on_all[@]}" --command="bash neurolm_jax.start"
