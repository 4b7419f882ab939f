#!/usr/bin/env bash
# Measures the ranges that FP8 scales are made from, with the options of the Gaudi guide's run_inc_calib.sh.
set -euo pipefail
self=$(basename "$0")
source "$(dirname "$0")/common.sh"

model="" world_size=8 num_prompts=512
data=${CALIBRATION_DATA:-pile-10k.jsonl}
output=${CALIBRATION_OUTPUT:-$quickstart_root/scripts/nc_workspace_measure_kvcache}

print_help() {
  cat <<END
Measure FP8 ranges on real text, with the options of the Gaudi guide's run_inc_calib.sh.

Usage: $self --model DIR [--wd N] [--nprompts N] [--data FILE] [--dry-run] [--help] [-- FLAGS..]

  --model     Folder of the weights, official or converted for Gaudi
  --wd        World sizes to write INC's files for, "8" or "8,16"; one run gives them all   [$world_size]
  --nprompts  Prompts of 1024 tokens; 5000 of pile-10k means all                            [$num_prompts]
  --data      Documents, .jsonl or .txt                                                     [$data]
  --help      This text
  --dry-run, HADAL_DRY_RUN=1   print the command instead of running it

Everything after -- goes to 'hadal calibrate': -- --resume --threads 16
One process measures, whatever --wd says. A model that one machine cannot hold is measured by several ranks, with the
same result: -- --tensor-parallel-size 16 --distributed-executor-backend ray, or --nnodes as 'hadal serve' takes it.

Environment: HADAL (the program), CALIBRATION_DATA, CALIBRATION_OUTPUT [$output].
Earlier files there are moved to backup_*, not deleted. The log is prepare.pile.<N>.<date>.log in this folder.
END
}

options=("--model" "--wd world-size tp-size" "--nprompts num-prompts" "--data dataset" "--help" "--dry-run")
extra=()
while [[ $# -gt 0 ]]; do
  option=$1
  case $option in --model | --wd | --nprompts | --data) need_value "$self" "$@" && value=$2 && shift ;; esac
  shift
  case $option in
    --model) model=$value ;;
    --wd) world_size=$value ;;
    --nprompts) need_count "$self" --nprompts "$value" && num_prompts=$value ;;
    --data) data=$value ;;
    -h | --help) print_help && exit 0 ;;
    --dry-run) HADAL_DRY_RUN=1 ;;
    --) extra=("$@") && break ;;
    *) refuse_option "$self" "$option" "${options[@]}" ;;
  esac
done
if [[ -z $model ]]; then
  echo "$self: --model is missing: give the folder of the weights" >&2
  exit 2
fi

command=("$(hadal_program)" calibrate --model "$model" --data "$data" --nprompts "$num_prompts" --wd "$world_size"
  --seed 42 --output "$output" "${extra[@]}")
if is_dry_run; then
  print_command -- "${command[@]}"
  exit 0
fi
if [[ ! -f $data ]]; then
  echo "$self: no file $data. The guide's text is the Hugging Face data set NeelNanda/pile-10k; any text of the kind that" >&2
  echo "the model will see does: .jsonl with \"text\" on each line, or .txt with a document a line (--data FILE)." >&2
  exit 2
fi
"${command[@]}" 2>&1 | tee "prepare.pile.$num_prompts.$(date +%Y%m%d_%H%M%S).log"
