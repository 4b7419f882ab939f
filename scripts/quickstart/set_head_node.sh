#!/usr/bin/env bash
# Prepares this shell to be the first of several nodes, as the Gaudi guide's set_head_node.sh: source it.
hadal_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$hadal_here/node.sh"

hadal_set_head_node() {
  local name=set_head_node.sh quantize wants_help words
  hadal_read_options "$name" "$@" || return
  if [[ $wants_help = 1 ]]; then
    cat <<END
Prepare this shell to be the head, the first of several nodes.

Usage: source $name [-q] [IP [NIC]]

  IP   Address that the other nodes reach this one by   [\$VLLM_HOST_IP, or the only one there is]
  NIC  Its interface                                    [\$GLOO_SOCKET_IFNAME, or the one that has IP]
  -q   FP8 by INC's measurements: QUANT_CONFIG, INC_*, VLLM_REQUANT_FP8_INC

Exports VLLM_HOST_IP, GLOO_SOCKET_IFNAME, HCCL_SOCKET_IFNAME and, for the guide's command line, max_num_batched_tokens
[32768], max_num_seqs [512], block_size [128], KV_CACHE_DTYPE [auto], VLLM_GPU_MEMORY_UTILIZATION [0.9]; values that are
set already stay. The worker nodes take everything else from the head.
END
    return 0
  fi
  hadal_choose_address "$name" "" "${words[0]:-${VLLM_HOST_IP:-}}" "${words[1]:-${GLOO_SOCKET_IFNAME:-}}" || return
  hadal_choose_numerics "$quantize" "$(cd "$hadal_here/../.." && pwd)"
  export max_num_batched_tokens=${max_num_batched_tokens:-32768} max_num_seqs=${max_num_seqs:-512}
  export block_size=${block_size:-128} KV_CACHE_DTYPE=${KV_CACHE_DTYPE:-auto}
  export VLLM_GPU_MEMORY_UTILIZATION=${VLLM_GPU_MEMORY_UTILIZATION:-0.9}
  hadal_mention_ray "$name"
  cat <<END
Next, with Ray:   ray start --head --node-ip-address=$VLLM_HOST_IP --port=8850
  without:        on the other node: hadal worker --nnodes 2 --node-rank 1 --tensor-parallel-size 2 --master-addr $VLLM_HOST_IP
then here:        scripts/quickstart/api_server.sh --model DIR --tensor-parallel-size 2 .. (docs/from-the-guide.md)
END
}

hadal_need_source "[IP [NIC]]" "$@" || exit 2
hadal_set_head_node "$@"
