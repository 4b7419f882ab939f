#!/bin/bash
# All-reduce latency of hadal beside Open MPI's, by turns in one run: shared memory, TCP over loopback, and (as root) two
# network namespaces joined by veth.   usage: compare_openmpi.sh BUILD_DIR [bench_comm's options, as --loop 5000]
set -euo pipefail
bench=$(realpath "$1")/bin/bench_comm
shift
if [ ! -x "$bench" ] || ! command -v mpirun > /dev/null; then
  echo "bench_comm was not built or mpirun is missing: install openmpi-bin and libopenmpi-dev, then configure again"
  exit 77
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
run=(mpirun --oversubscribe --bind-to none -n 2 --mca pml ob1)

echo "== shared memory"
"${run[@]}" --mca btl vader,self "$bench" "$@"
echo "== shared memory, as the Gaudi guide's containers have it (no single copy)"
"${run[@]}" --mca btl vader,self --mca btl_vader_single_copy_mechanism none "$bench" "$@"
echo "== TCP over loopback"
"${run[@]}" --mca btl tcp,self --mca btl_tcp_if_include lo "$bench" --tcp --interface lo "$@"

if [ "$(id -u)" != 0 ] || ! ip netns add hbenchA 2> /dev/null; then
  echo "== two namespaces: left out, they cannot be made here"
  exit 0
fi
agent=$(mktemp)
cleanup() {
  ip netns del hbenchA
  ip netns del hbenchB || true
  rm -f "$agent"
}
trap cleanup EXIT
ip netns add hbenchB
ip link add eth0 netns hbenchA type veth peer name eth0 netns hbenchB
for side in A:1 B:2; do
  name=hbench${side%:*}
  ip -n "$name" address add "10.78.0.${side#*:}/24" dev eth0
  ip -n "$name" link set eth0 up
  ip -n "$name" link set lo up
done
# mpirun's remote shell: the "host" is an address of a namespace.
cat > "$agent" << 'AGENT'
#!/bin/bash
host=$1
shift
case $host in
  10.78.0.1) exec ip netns exec hbenchA bash -c "$*" ;;
  *) exec ip netns exec hbenchB bash -c "$*" ;;
esac
AGENT
chmod +x "$agent"
echo "== two namespaces"
ip netns exec hbenchA mpirun --oversubscribe --bind-to none -n 2 --host 10.78.0.1,10.78.0.2 \
  --mca plm_rsh_agent "$agent" --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include eth0 \
  --mca oob_tcp_if_include eth0 "$bench" --tcp --address 10.78.0.1 --interface eth0 "$@"
