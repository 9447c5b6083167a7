#!/usr/bin/env bash
# What is done with a card that is rented for some minutes, on a machine that may have no git and no Ray. From the
# project's root; `report/experiments/README.md` has the sequence.
#
#   data DIR            unpack images that came in DIR with their pack.py, to $TPSNET_DATA; keep airbench95.py
#   bench               measure the card in the background, while more is brought
#   start MINUTES       spend the minutes in the background, from now on; $TPSNET_COMMIT is the commit of this tree
#   declared COMMIT     the best is declared in this commit: its runs may start
#   wait SECONDS DIR    until something is to be committed, all is done or the time is up; then pack what goes home
#   home DIR            at home: put the pieces together, commit what was packed, and print the commit
set -euo pipefail
store=report/local/records
export TPSNET_DATA=${TPSNET_DATA:-$HOME/cifar10}
tpsnet() { "${PYTHON:-python3}" -m tpsnet_lib "$@"; }
in_background() { setsid "$0" "$@" >>"$store/log" 2>&1 </dev/null & }
pack() { # the state with its declarations, the finished records, checkpoints; a running plan is not disturbed
  mkdir -p "$1"
  rm -f "$1"/*.checkpoint* "$1"/records.tar*
  cp "$store/card.json" "$1"
  tpsnet records export --out "$1/records.tar" || true # of which there may be none yet
  for file in "$store"/.work/*/checkpoint; do
    [ ! -e "$file" ] || cp "$file" "$1/$(basename "$(dirname "$file")").checkpoint" || true
  done
  for file in "$1"/records.tar "$1"/*.checkpoint; do # in pieces, as a machine gives at most 8 files of 14 MiB away
    [ -e "$file" ] || continue
    split -b 14M -d "$file" "$file."
    rm "$file"
    pieces=("$1"/*.[0-9][0-9])
    case "$file" in *.checkpoint) [ ${#pieces[@]} -le 4 ] || rm "$file".[0-9][0-9] ;; esac # which has no room
  done
}
wants_a_commit() { [ ! -e "$store/declared" ] && grep -qs '_best": ' "$store/card.json"; }

mkdir -p "$store"
case "$1" in
data)
  "${PYTHON:-python3}" "$2/pack.py" unpack "$2" "$TPSNET_DATA" >/dev/null
  [ ! -e "$2/airbench95.py" ] || cp "$2/airbench95.py" report/local
  ls "$TPSNET_DATA"
  ;;
bench)
  touch "$store/benching"
  in_background bench_now
  ;;
bench_now)
  trap 'rm -f "$store/benching"' EXIT
  tpsnet bench card --json >"$store/bench.part"
  mv "$store/bench.part" "$store/bench_card.json"
  ;;
start)
  touch "$store/going"
  in_background spend "$2"
  ;;
spend)
  trap 'rm -f "$store/going"' EXIT
  while [ -e "$store/benching" ]; do sleep 0.5; done
  for _ in 1 2 3 4 5; do # a card that fails ends the command; what was begun is gone on with
    # shellcheck disable=SC2086
    tpsnet run --card "$2" ${CARD_OPTIONS:-} && break
    sleep 1
  done
  ;;
declared)
  echo "$2" >"$store/declared.part"
  mv "$store/declared.part" "$store/declared"
  ;;
wait)
  until=$((SECONDS + $2))
  while [ $SECONDS -lt $until ] && [ -e "$store/going" ] && ! wants_a_commit; do sleep 0.5; done
  tail -n 20 "$store/log"
  [ ! -e "$store/card.json" ] || pack "$3"
  ;;
home)
  whole=$(mktemp -d)
  trap 'rm -rf "$whole"' EXIT
  for piece in "$2"/*.[0-9][0-9]; do
    [ ! -e "$piece" ] || cat "$piece" >>"$whole/$(basename "${piece%.*}")"
  done
  [ ! -e "$whole/records.tar" ] || tpsnet records import "$whole/records.tar" >&2
  for file in "$whole"/*.checkpoint; do
    [ ! -e "$file" ] || install -D -m 644 "$file" "$store/.work/$(basename "$file" .checkpoint)/checkpoint"
  done
  tpsnet run --bring "$2/card.json"
  ;;
*)
  sed -n '2,13p' "$0"
  exit 2
  ;;
esac
