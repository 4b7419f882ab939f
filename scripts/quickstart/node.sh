# What set_head_node.sh and set_worker_node.sh share. Sourced into the user's shell, so it changes no shell option and
# ends nothing: functions return 1 or 2 and say why.

# hadal_need_source SHOWN ARGUMENT..: 1, and says why, when the script that calls it was started and not sourced. Help
# may be asked for either way.
hadal_need_source() {
  [[ ${BASH_SOURCE[1]} == "$0" && ${2-} != -h && ${2-} != --help ]] || return 0
  echo "${0##*/}: it prepares the shell that it is sourced into: source $0 $1" >&2
  return 1
}

# hadal_read_options NAME ARGUMENT..: sets the caller's quantize and wants_help (0 or 1) and words, the arguments that are
# no options. 2 for an unknown option.
hadal_read_options() {
  local name=$1
  quantize=0 wants_help=0 words=()
  shift
  while [[ $# -gt 0 ]]; do
    case $1 in
      -q) quantize=1 ;;
      -h | --help)
        wants_help=1
        return 0 ;;
      -*)
        echo "$name: unknown option '$1' (did you mean -q or -h?)" >&2
        return 2 ;;
      *) words+=("$1") ;;
    esac
    shift
  done
}

# hadal_route_to ADDRESS: "IP NIC" of this machine's side of the way there; nothing when there is no way.
hadal_route_to() {
  ip -o -4 route get "$1" 2>/dev/null | sed -n 's/.* dev \([^ ]*\).* src \([^ ]*\).*/\2 \1/p'
}

# hadal_own_addresses: "IP NIC" lines, without loopback.
hadal_own_addresses() { ip -o -4 addr show scope global 2>/dev/null | awk '{sub("/.*", "", $4); print $4, $2}'; }

# hadal_choose_address NAME HEAD IP NIC: sets VLLM_HOST_IP, GLOO_SOCKET_IFNAME and HCCL_SOCKET_IFNAME. What is not given
# is the side of this machine that leads to HEAD (or out, when HEAD is empty).
hadal_choose_address() {
  local name=$1 head=$2 address=$3 nic=$4 found
  command -v ip >/dev/null || { [[ -n $address && -n $nic ]] || {
    echo "$name: no 'ip' command here (package iproute2): give address and interface" >&2
    return 1
  }; }
  if [[ -z $address ]]; then
    if [[ -n $nic ]]; then
      found=$(hadal_own_addresses | awk -v nic="$nic" '$2 == nic {print; exit}')
      if [[ -z $found ]]; then
        echo "$name: no interface $nic (GLOO_SOCKET_IFNAME) of this machine has an address. There are:" >&2
        hadal_own_addresses | sed 's/^/  /' >&2
        return 1
      fi
    elif [[ -n $head ]]; then
      found=$(hadal_route_to "$head")
    elif [[ $(hadal_own_addresses | wc -l) -eq 1 ]]; then
      found=$(hadal_own_addresses)
    fi
    address=${found%% *}
    if [[ -z $address ]]; then
      echo "$name: which address do the nodes reach this one by? Give it: source $name ${head:+$head }IP. There are:" >&2
      hadal_own_addresses | sed 's/^/  /' >&2
      return 1
    fi
  fi
  if [[ $address == 127.* ]]; then
    echo "$name: $address is this machine's loopback: other nodes cannot reach it" >&2
    return 1
  fi
  if [[ -z $nic ]]; then
    nic=$(hadal_own_addresses | awk -v ip="$address" '$1 == ip {print $2; exit}')
  fi
  if command -v ip >/dev/null && ! hadal_own_addresses | grep -qxF "$address ${nic:-?}"; then
    echo "$name: no interface ${nic:+$nic }of this machine has the address $address. There are:" >&2
    hadal_own_addresses | sed 's/^/  /' >&2
    return 1
  fi
  export VLLM_HOST_IP=$address GLOO_SOCKET_IFNAME=$nic HCCL_SOCKET_IFNAME=$nic
  echo "$name: this node is $address on $nic"
}

# hadal_choose_numerics QUANTIZE ROOT: the guide's variables for INC, or none of them.
hadal_choose_numerics() {
  if [[ $1 = 0 ]]; then
    unset VLLM_REQUANT_FP8_INC
    return 0
  fi
  export QUANT_CONFIG=${QUANT_CONFIG:-$2/eval/quant_configs/per_channel_bf16kv.json}
  export INC_MEASUREMENT_DUMP_PATH_PREFIX=${INC_MEASUREMENT_DUMP_PATH_PREFIX:-$2/scripts}
  export INC_FORCE_NAIVE_SCALING=1 VLLM_REQUANT_FP8_INC=1 VLLM_ENABLE_RUNTIME_DEQUANT=1
}

# Ray's processes inherit the environment of `ray start`: those that run already do not see what was set now.
hadal_mention_ray() {
  if pgrep -x raylet >/dev/null 2>&1; then
    echo "$1: Ray runs here already and does not see these settings: ray stop --force, then start it again" >&2
  fi
}
