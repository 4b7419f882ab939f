#!/usr/bin/env bash
# Prepares this shell to be a further node, as the Gaudi guide's set_worker_node.sh: source it.
hadal_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$hadal_here/node.sh"

hadal_set_worker_node() {
  local name=set_worker_node.sh quantize wants_help words head
  hadal_read_options "$name" "$@" || return
  if [[ $wants_help = 1 ]]; then
    cat <<END
Prepare this shell to be a worker, any node but the first.

Usage: source $name [-q] HEAD_IP [IP [NIC]]

  HEAD_IP  Address of the first node (what set_head_node.sh printed there)
  IP       This node's address        [\$VLLM_HOST_IP, or the one on the way to HEAD_IP]
  NIC      Its interface              [\$GLOO_SOCKET_IFNAME, or the one that has IP]
  -q       FP8 by INC's measurements; needed nowhere but on the head, accepted here

Exports VLLM_HOST_IP, GLOO_SOCKET_IFNAME and HCCL_SOCKET_IFNAME. Everything else comes from the head.
END
    return 0
  fi
  head=${words[0]-}
  if [[ -z $head ]]; then
    echo "$name: the head's address is missing: source $name HEAD_IP [IP [NIC]]" >&2
    return 2
  fi
  hadal_choose_address "$name" "$head" "${words[1]:-${VLLM_HOST_IP:-}}" "${words[2]:-${GLOO_SOCKET_IFNAME:-}}" || return
  hadal_choose_numerics "$quantize" "$(cd "$hadal_here/../.." && pwd)"
  hadal_mention_ray "$name"
  cat <<END
Next, with Ray:   ray start --address='$head:8850'
  without:        hadal worker --nnodes 2 --node-rank 1 --tensor-parallel-size 2 --master-addr $head
END
}

hadal_need_source HEAD_IP "$@" || exit 2
hadal_set_worker_node "$@"
