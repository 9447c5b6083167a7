#!/usr/bin/env bash
# What is done with a card that is rented for some minutes, on a machine that may have no git and no Ray. From the
# project's root; `report/experiments/README.md` has the sequence.
#
#   data DIR            unpack images that came in DIR with their pack.py, to $TPSNET_DATA
#   bench               measure the card in the background, while more is brought
#   start MINUTES       spend the minutes in the background, from now on; $TPSNET_COMMIT is the commit of this tree
#   declared COMMIT     the best is declared in this commit: its runs may start
#   wait SECONDS DIR    until something is to be committed, all is done or the time is up; then pack what goes home
#   home DIR            at home: take what was packed, commit it, and print the commit
set -euo pipefail
store=report/local/records
export TPSNET_DATA=${TPSNET_DATA:-$HOME/cifar10}
tpsnet() { "${PYTHON:-python3}" -m tpsnet_lib "$@"; }
in_background() { setsid "$0" "$@" >>"$store/log" 2>&1 </dev/null & }
wants_a_commit() { [ ! -e "$store/declared" ] && grep -qs '_best": ' "$store/card.json"; }

mkdir -p "$store"
case "$1" in
data)
  "${PYTHON:-python3}" "$2/pack.py" unpack "$2" "$TPSNET_DATA" >/dev/null
  ls "$TPSNET_DATA"
  ;;
bench)
  touch "$store/benching"
  in_background bench_now
  ;;
bench_now)
  trap 'rm -f "$store/benching"' EXIT
  tpsnet bench card --json >"$store/bench.part"
  mv "$store/bench.part" "$store/bench.json"
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
  if [ -e "$store/card.json" ]; then tpsnet run --card 1 --minutes 0 --pack "$3"; fi
  ;;
home)
  tpsnet run --bring "$2"
  ;;
*)
  sed -n '2,13p' "$0"
  exit 2
  ;;
esac
