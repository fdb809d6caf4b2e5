#!/bin/bash
# One run on all hosts of a Cloud TPU: the same command on each, and JAX finds the others by itself.
# The workdir is a folder that all hosts share, such as a mounted bucket. From the checkout:
#   TPU=my-tpu ZONE=us-central2-b experiments/jobs/tpu-vm.sh \
#     experiments/translation.py help --workdir /mnt/shared/help
set -euo pipefail

# The TPU and its zone; the hosts' Python, 3.11 or newer.
: "${TPU:?names the TPU VM}" "${ZONE:?names its zone}" "${PYTHON:=python3.11}"
on_all_hosts() { gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"; }

# The committed state of this checkout goes to all hosts.
archive=$(mktemp)
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz --output="$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$TPU":s2sjax.tar.gz --zone="$ZONE" --worker=all

# What is locked is installed, and then JAX of the locked version with what it needs for TPUs.
on_all_hosts "
  set -e
  mkdir -p s2sjax && tar -xzf s2sjax.tar.gz -C s2sjax && cd s2sjax
  [ -e .venv/bin/pip ] || $PYTHON -m venv .venv
  .venv/bin/pip install --quiet --require-hashes --requirement requirements.lock
  jax=\$(.venv/bin/python -c 'import jax; print(jax.__version__)')
  .venv/bin/pip install --quiet \"jax[tpu]==\$jax\"
  .venv/bin/pip install --quiet --no-deps --no-build-isolation --editable ."

# After a maintenance event or exit code 75 (saved) the same command goes on. To stop it, as Ctrl-C
# does not reach the hosts, run there: pkill -TERM -f '[s]2sjax.*--distributed'
on_all_hosts "cd s2sjax && exec \$PWD/.venv/bin/python $(printf '%q ' "$@") --distributed on"
