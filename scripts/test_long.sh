#!/usr/bin/env bash
# What `make test-long` runs: start-up time and soak on the release build, sanitizer builds with their tests, and 30 s
# of each fuzzer. Over an hour on 2 cores. FUZZ_SECONDS and SOAK_SECONDS shorten or lengthen it.
set -euo pipefail
cd "$(dirname "$0")/.."
fuzz_seconds=${FUZZ_SECONDS:-30}
soak_seconds=${SOAK_SECONDS:-600}

step() { printf '\n== %s\n' "$*"; }

step "release build, start-up, soak"
make --no-print-directory build
(cd tests/e2e && python3 startup_long.py && python3 soak_long.py --seconds "$soak_seconds" &&
  python3 idle_connections_long.py && python3 long_prompt_long.py)

step "faults of ranks at random moments"
(cd tests/multinode && HADAL_BUILD_DIR=$PWD/../../build/release python3 chaos_long.py) || { code=$?; [ "$code" -eq 77 ] || exit "$code"; }

for preset in asan-ubsan tsan; do
  step "$preset"
  cmake --preset "$preset" >/dev/null
  cmake --build --preset "$preset"
  TSAN_OPTIONS="halt_on_error=1 die_after_fork=0 suppressions=$PWD/scripts/tsan_suppressions.txt" ASAN_OPTIONS=detect_leaks=1 \
    ctest --test-dir "build/$preset" --output-on-failure -E '^e2e\.'
done

step "fuzzers, $fuzz_seconds s each"
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz
mkdir -p build/fuzz/findings
for fuzzer in build/fuzz/bin/fuzz_*; do
  name=$(basename "$fuzzer")
  corpus=build/fuzz/corpus/$name
  mkdir -p "$corpus"
  echo "-- $name"
  log=build/fuzz/$name.log
  "$fuzzer" -max_total_time="$fuzz_seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
    -artifact_prefix="build/fuzz/findings/$name-" "$corpus" "tests/fuzz/corpus/${name#fuzz_}" >"$log" 2>&1 || {
    tail -n 40 "$log"
    echo "$name found something: see build/fuzz/findings and $log"
    exit 1
  }
  grep 'stat::number_of_executed_units' "$log"
done
step "all long tests passed"
