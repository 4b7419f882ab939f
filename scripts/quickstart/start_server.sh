#!/usr/bin/env bash
# Serves a model on this machine, with the options of the Gaudi guide's start_vllm.sh.
set -euo pipefail
self=$(basename "$0")
source "$(dirname "$0")/common.sh"

converted=/data/hf_models/DeepSeek-R1-Gaudi
official=/data/hf_models/DeepSeek-R1
weights=$converted
[[ ! -d $converted && -d $official ]] && weights=$official
host=0.0.0.0 port=8688 max_model_len=16384 max_num_seqs=64 max_num_prefill_seqs=1
recipe_cache="" skip_warmup=0 quantize=0

print_help() {
  cat <<END
Start hadal for a Hugging Face folder, with the options of the Gaudi guide's start_vllm.sh.

Usage: $self [-w DIR] [-u HOST] [-p PORT] [-l N] [-b N] [-c DIR] [-s] [-q] [-m N] [--dry-run] [-h] [-- FLAGS..]

  -w  Folder of the weights, official or converted for Gaudi        [$weights]
  -u  Address to listen on                                          [$host]
  -p  Port                                                          [$port]
  -l  max_model_len: tokens of a prompt with its answer             [$max_model_len]
  -b  max_num_seqs: sequences in one step                           [$max_num_seqs]
  -c  Folder of the recipe cache: accepted, there is nothing to keep
  -s  Skip warm-up: accepted, there is none
  -q  FP8 by Intel Neural Compressor's measurements, as a Gaudi 2 computes it
  -m  max_num_prefill_seqs: accepted, prefill is chunked instead    [$max_num_prefill_seqs]
  -h  This text
  --dry-run, HADAL_DRY_RUN=1   print the command instead of running it

Everything after -- goes to 'hadal serve': -- --api-key KEY --tensor-parallel-size 2

Environment: HADAL (the program), KV_CACHE_DTYPE [auto; fp8_inc with -q], max_num_batched_tokens [2048: tokens of a step;
a prompt is computed in pieces of it]; with -q QUANT_CONFIG [eval/quant_configs/per_channel_fp8kv.json],
INC_MEASUREMENT_DUMP_PATH_PREFIX [scripts/, below which the configuration's dump_stats_path lies],
INC_FORCE_NAIVE_SCALING [1] and, always 1, VLLM_REQUANT_FP8_INC, VLLM_ENABLE_RUNTIME_DEQUANT.
'hadal serve' reads HADAL_* variables and vLLM's besides.
END
}

options=("-w weights model" "-u url host" "-p port" "-l length max-model-len" "-b batch max-num-seqs"
  "-c cache recipe-cache" "-s skip-warmup" "-q quantize quantization inc" "-m max-num-prefill-seqs" "-h help" "--dry-run")
extra=()
while [[ $# -gt 0 ]]; do
  split_cluster sqh wupblcm "$1" && shift && set -- "${split[@]}" "$@"
  option=$1
  case $option in -[wupblcm]) need_value "$self" "$@" && value=$2 && shift ;; esac
  shift
  case $option in
    -w) weights=$value ;;
    -u) host=$value ;;
    -p) port=$value ;;
    -l) need_count "$self" -l "$value" && max_model_len=$value ;;
    -b) need_count "$self" -b "$value" && max_num_seqs=$value ;;
    -c) recipe_cache=$value ;;
    -s) skip_warmup=1 ;;
    -q) quantize=1 ;;
    -m) need_count "$self" -m "$value" && max_num_prefill_seqs=$value ;;
    -h | --help) print_help && exit 0 ;;
    --dry-run) HADAL_DRY_RUN=1 ;;
    --) extra=("$@") && break ;;
    *) refuse_option "$self" "$option" "${options[@]}" ;;
  esac
done

program=$(hadal_program)
kv_cache_dtype=auto
numerics=()
if [[ $quantize = 1 ]]; then
  export QUANT_CONFIG=${QUANT_CONFIG:-$quickstart_root/eval/quant_configs/per_channel_fp8kv.json}
  export INC_MEASUREMENT_DUMP_PATH_PREFIX=${INC_MEASUREMENT_DUMP_PATH_PREFIX:-$quickstart_root/scripts}
  export INC_FORCE_NAIVE_SCALING=${INC_FORCE_NAIVE_SCALING:-1} VLLM_REQUANT_FP8_INC=1 VLLM_ENABLE_RUNTIME_DEQUANT=1
  numerics=(--quantization inc)
  kv_cache_dtype=fp8_inc
fi
[[ -n $recipe_cache ]] && echo "$self: -c $recipe_cache: nothing is compiled at run time, so nothing is kept there" >&2
[[ $skip_warmup = 1 ]] && echo "$self: -s: there is no warm-up to skip" >&2
[[ $max_num_prefill_seqs != 1 ]] && echo "$self: -m $max_num_prefill_seqs: prefill is chunked, no prompt waits for another" >&2

command=("$program" serve --host "$host" --port "$port" --block-size 128 --model "$weights" --dtype bfloat16
  "${numerics[@]}" --kv-cache-dtype "${KV_CACHE_DTYPE:-$kv_cache_dtype}" --max-model-len "$max_model_len"
  --max-num-seqs "$max_num_seqs" --max-num-batched-tokens "${max_num_batched_tokens:-2048}" --disable-log-requests
  "${extra[@]}")
if is_dry_run; then
  print_command QUANT_CONFIG INC_MEASUREMENT_DUMP_PATH_PREFIX INC_FORCE_NAIVE_SCALING VLLM_REQUANT_FP8_INC \
    VLLM_ENABLE_RUNTIME_DEQUANT -- "${command[@]}"
  exit 0
fi
exec "${command[@]}"
