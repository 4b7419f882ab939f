#!/usr/bin/env bash
# `python -m vllm.entrypoints.openai.api_server FLAGS` and `vllm serve MODEL FLAGS`, for hadal: takes the same flags.
#
#   scripts/quickstart/api_server.sh --host 0.0.0.0 --port 8688 --model /data/DeepSeek-R1 --trust-remote-code
#   alias api_server=.../scripts/quickstart/api_server.sh
#
# Flags without meaning on CPUs are accepted and say so once; unknown ones are refused with the nearest name.
# HADAL_DRY_RUN=1 prints the command instead of running it.
set -euo pipefail
source "$(dirname "$0")/common.sh"

[[ ${1-} == -m && ${2-} == vllm.entrypoints.openai.api_server ]] && shift 2
[[ ${1-} == serve ]] && shift
command=("$(hadal_program)" serve "$@")
if is_dry_run; then
  print_command -- "${command[@]}"
  exit 0
fi
exec "${command[@]}"
