# What the quickstart scripts share. Sourced by them; runs nothing by itself and needs bash 4.3.

quickstart_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# The program: $HADAL, this clone's release build, or whatever is on the PATH.
hadal_program() {
  local built=$quickstart_root/build/release/bin/hadal
  if [[ -n ${HADAL:-} ]]; then
    command -v "$HADAL" || { echo "HADAL=$HADAL: no such program" >&2 && return 2; }
  elif [[ -x $built ]]; then
    echo "$built"
  elif command -v hadal >/dev/null; then
    command -v hadal
  else
    echo "no program at $built: run 'make build', or set HADAL" >&2
    return 2
  fi
}

# edit_distance A B: letters to change, add or remove, upper and lower case alike.
edit_distance() {
  local a=${1,,} b=${2,,} i j diagonal above cost
  local -a row
  for ((j = 0; j <= ${#b}; ++j)); do row[j]=$j; done
  for ((i = 1; i <= ${#a}; ++i)); do
    diagonal=${row[0]} row[0]=$i
    for ((j = 1; j <= ${#b}; ++j)); do
      above=${row[j]} cost=1
      [[ ${a:i-1:1} == "${b:j-1:1}" ]] && cost=0
      ((cost += diagonal))
      ((above + 1 < cost)) && cost=$((above + 1))
      ((row[j - 1] + 1 < cost)) && cost=$((row[j - 1] + 1))
      row[j]=$cost diagonal=$above
    done
  done
  echo "${row[${#b}]}"
}

# nearest_option GIVEN "OPTION NAME.."..: the OPTION that has a name nearest to GIVEN, or nothing when none is near.
# Names are without dashes: "-w weights model" is -w, which people may write as --weights or --model.
nearest_option() {
  local given=${1%%=*} entry name distance best="" best_distance
  given=${given//_/-}
  while [[ $given == -* ]]; do given=${given#-}; done
  [[ ${#given} -gt 40 ]] && return 0
  best_distance=$((${#given} / 3 + 2))
  [[ ${#given} -le 1 ]] && best_distance=1  # a letter is near to itself only
  shift
  for entry in "$@"; do
    local -a words
    read -ra words <<<"$entry"
    for name in "${words[@]}"; do
      while [[ $name == -* ]]; do name=${name#-}; done
      distance=$(edit_distance "$given" "$name")
      ((distance < best_distance)) && best=${words[0]} best_distance=$distance
    done
  done
  echo "$best"
}

# refuse_option SCRIPT GIVEN "OPTION NAME.."..: says so, with the nearest, and ends with 2.
refuse_option() {
  local script=$1 given=$2 nearest
  shift 2
  nearest=$(nearest_option "$given" "$@")
  echo "$script: unknown option '$given'${nearest:+ (did you mean $nearest?)}" >&2
  echo "Run '$script -h' for what there is; flags of hadal itself go after --." >&2
  exit 2
}

# split_cluster SWITCHES VALUED WORD: sets split to what getopts takes WORD for: -sq is -s -q, -p80 is -p 80. SWITCHES and
# VALUED are the letters of each kind; a WORD with any other letter stays as it is.
split_cluster() {
  local switches=$1 valued=$2 word=$3 rest=${3#-} letter
  split=()
  [[ $word =~ ^-[a-zA-Z].+ ]] || { split=("$word") && return; }
  while [[ -n $rest ]]; do
    letter=${rest:0:1} rest=${rest:1}
    if [[ $valued == *"$letter"* ]]; then
      split+=("-$letter")
      [[ -n $rest ]] && split+=("$rest")
      return 0
    fi
    [[ $switches == *"$letter"* ]] || { split=("$word") && return; }
    split+=("-$letter")
  done
}

# need_value SCRIPT OPTION VALUE..: the option's value must follow it.
need_value() {
  [[ $# -ge 3 ]] && return 0
  echo "$1: $2 needs a value" >&2
  exit 2
}

# need_count SCRIPT OPTION VALUE: a whole number from 1 on.
need_count() {
  [[ $3 =~ ^[1-9][0-9]{0,9}$ ]] && return 0
  echo "$1: $2 $3: expected a whole number from 1 on" >&2
  exit 2
}

is_dry_run() { [[ ${HADAL_DRY_RUN:-0} =~ ^(1|true|yes|on)$ ]]; }

# print_command VARIABLE.. -- WORD..: as a line for a shell, exported variables first.
print_command() {
  local name
  while [[ $1 != -- ]]; do
    name=$1
    [[ -n ${!name:-} ]] && printf '%s=%q ' "$name" "${!name}"
    shift
  done
  shift
  printf '%q ' "$@"
  echo
}
