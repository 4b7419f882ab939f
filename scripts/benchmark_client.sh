#!/usr/bin/env bash
# The serving benchmark of the Gaudi guide against any OpenAI server: random prompts, 1024 tokens in and 1024 out, one
# client with 3 requests, then 32 clients with 96. Needs nothing of the server but its URL.
#
#   scripts/benchmark_client.sh                                   # 127.0.0.1:8688, the model that the server lists
#   HOST=10.0.0.5 PORT=8000 MODEL=/data/DeepSeek-R1 scripts/benchmark_client.sh --goodput ttft:2000
#   BASE_URL=https://api.example.org MODEL=deepseek-r1 TOKENIZER=/data/DeepSeek-R1 scripts/benchmark_client.sh
#
# INPUT_LEN, OUTPUT_LEN, RATIO and CASES ("concurrency,prompts ..") change the cases, RESULT_DIR where the JSON goes.
# Further arguments go to `hadal bench serve`.
set -euo pipefail
source "$(dirname "$0")/quickstart/common.sh"
hadal=$(hadal_program)
input_len=${INPUT_LEN:-1024} output_len=${OUTPUT_LEN:-1024} ratio=${RATIO:-1}
cases=${CASES:-"1,3 32,96"}
# The guide's file name, spelling included: scripts that collect results look for it.
label=${LABEL:-DeekSeek-R1_cardnumber_16_datatype_bfloat16}

target=(--host "${HOST:-127.0.0.1}" --port "${PORT:-8688}")
[[ -n ${BASE_URL:-} ]] && target=(--base-url "$BASE_URL")
[[ -n ${MODEL:-} ]] && target+=(--model "$MODEL")
[[ -n ${TOKENIZER:-} ]] && target+=(--tokenizer "$TOKENIZER")

status=0
for case in $cases; do
  concurrency=${case%,*} prompts=${case#*,}
  now=$(TZ='Asia/Shanghai' date +%Y-%m-%d-%H-%M-%S)
  name=benchmark_serving_${label}_random_batchsize_${concurrency}_in_${input_len}_out_${output_len}_ratio_${ratio}
  "$hadal" bench serve --backend vllm "${target[@]}" --trust-remote-code --dataset-name random \
    --random-input-len "$input_len" --random-output-len "$output_len" --random-range-ratio "$ratio" \
    --max_concurrency "$concurrency" --num-prompts "$prompts" --request-rate inf --seed 0 --ignore_eos \
    --save-result --result-dir "${RESULT_DIR:-.}" \
    --result-filename "${name}_rate_inf_prompts_${prompts}_${now}.json" "$@" || status=$?
done
exit "$status"
