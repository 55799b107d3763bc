#!/usr/bin/env bash
# The pi0.5 learner on a TPU slice: the same command on every host of it, which find each other by themselves. With gcloud:
#   gcloud compute tpus tpu-vm ssh NAME --zone ZONE --worker all --command "cd sop-jax && SOP_STORE=.. launch/tpu/learner.sh"
# Set in the environment: SOP_STORE (gs://), SOP_REPLAY (HOST:PORT of `sop replay`), SOP_RUN (a folder that all hosts share, a
# mounted disk). Optional: SOP_CONFIG, SOP_POLICY, SOP_REPLAY_TLS (folder with the learner's certificate, from launch/tls/ca.sh: the
# replay server lets nobody else in from other machines).
# Each host needs .venv with JAX for TPUs: `launch/setup.sh tpu`.
set -euo pipefail
cd "$(dirname "$0")/../.."

: "${SOP_STORE:?}" "${SOP_REPLAY:?}" "${SOP_RUN:?}"
# The vocabulary of pi0.5's prompts: export SOP_PALIGEMMA_TOKENIZER=/path/to/paligemma_tokenizer.model

# exec: the learner itself gets the SIGTERM of a preemption, makes a checkpoint with all hosts and exits with 143. Start it
# again with the same command and it goes on from there.
exec .venv/bin/sop learn --config "${SOP_CONFIG:-pi05_tpu}" --store "$SOP_STORE" --replay "$SOP_REPLAY" \
  --checkpoints "$SOP_RUN/checkpoints" --metrics "$SOP_RUN/metrics" ${SOP_POLICY:+--policy "$SOP_POLICY"} --coordinator auto
