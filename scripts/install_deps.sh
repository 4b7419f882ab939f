#!/usr/bin/env bash
# Installs what the build and the tests need from the distribution (Debian 12, Ubuntu 22.04 and later).
# Usage: scripts/install_deps.sh [build|test|browser|fuzz]...   default: build
# Idempotent; needs root or sudo only when something is missing.
set -euo pipefail

build_packages=(g++ cmake ninja-build pkg-config nlohmann-json3-dev libcli11-dev libspdlog-dev libfmt-dev
  libexpected-dev libssl-dev libgloo-dev libpcre2-dev libxxhash-dev libhwloc-dev libyaml-cpp-dev libgtest-dev libgmock-dev)
test_packages=(python3 curl nodejs npm)
browser_packages=(chromium)  # part of test where the distribution has it as a package (Ubuntu has a snap)
fuzz_packages=(clang-14 libclang-rt-14-dev)

# Boost.Beast: any version from 1.74 on. Installing libboost-dev would remove a newer libboost1.81-dev.
have_boost() { dpkg-query -W -f='${Status} ${Package}\n' 'libboost1.*-dev' 2>/dev/null | grep -q '^install ok installed'; }
newest_boost() { apt-cache pkgnames libboost1. | grep -E '^libboost1\.[0-9]+-dev$' | sort -V | tail -n 1; }

has_candidate() { apt-cache policy "$1" 2>/dev/null | grep -q '^  Candidate: [0-9]'; }

# A tool that is on the PATH counts, whoever installed it (node from a vendor's archive, say).
present() {
  case $1 in
    nodejs) command -v node >/dev/null && return ;;
    npm | chromium | curl | python3 | cmake | g++ | pkg-config) command -v "$1" >/dev/null && return ;;
    ninja-build) command -v ninja >/dev/null && return ;;
  esac
  dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q '^install ok installed'
}

command -v dpkg-query >/dev/null || {
  echo "install_deps: no dpkg here. Install these yourself, then build with cmake --preset release:" >&2
  echo "  ${build_packages[*]} and Boost >= 1.74 headers" >&2
  exit 1
}

wanted=()
for set in "${@:-build}"; do
  case $set in
    build) wanted+=("${build_packages[@]}") ;;
    test)
      wanted+=("${test_packages[@]}")
      for package in "${browser_packages[@]}"; do has_candidate "$package" && wanted+=("$package"); done ;;
    browser) wanted+=("${browser_packages[@]}") ;;
    fuzz) wanted+=("${fuzz_packages[@]}") ;;
    *) echo "install_deps: unknown set '$set': use build, test, browser or fuzz" >&2; exit 2 ;;
  esac
done

missing=()
for package in "${wanted[@]}"; do present "$package" || missing+=("$package"); done
boost_missing=0
[[ " ${*:-build} " == *" build "* ]] && { have_boost || boost_missing=1; }
if [[ ${#missing[@]} -eq 0 && $boost_missing -eq 0 ]]; then
  echo "install_deps: everything is there"
  exit 0
fi

sudo=()
if [[ $(id -u) -ne 0 ]]; then
  command -v sudo >/dev/null || {
    echo "install_deps: missing ${missing[*]}$([[ $boost_missing = 1 ]] && echo ' libboost-dev'), and neither root nor sudo here" >&2
    exit 1
  }
  sudo=(sudo)
fi
"${sudo[@]}" apt-get update -qq
[[ $boost_missing = 1 ]] && { boost=$(newest_boost); missing+=("${boost:-libboost-dev}"); }
echo "install_deps: installing ${missing[*]}"
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
echo "install_deps: done"
