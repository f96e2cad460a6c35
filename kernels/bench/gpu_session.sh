#!/usr/bin/env bash
# Measure all that needs a GPU, in one sitting or in several, and print a table at the end.
#
#   gpu_session.sh [--dry-run] [STAGE ...]     the stages named, or all that are not done yet
#   gpu_session.sh --list                      the stages in their order, the seconds they may take, what they do
#   gpu_session.sh --help                      this text
#
# OUT     folder of the results and logs; kernels/bench/results, or a temporary one for a dry run,
#         which goes into dry_run in it: a later session is to find nothing of it
# BUDGET  seconds after which no stage runs any more: 1500, just above what all may take together
# PYTHON  the interpreter: python3
#
# Nothing is installed and nothing is downloaded. A dry run takes tiny sizes, on a CPU too, to show
# that the script works; its figures say nothing.
#
# Ends with code 0 if all stages that were asked for are done, 1 if one failed or had no time, 2 for a
# word or a BUDGET that says nothing, 130 after Ctrl-C, which ends the stage that runs too.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
budget=${BUDGET:-1500}

# In order of what is worth knowing first; seconds that each may take.
stages="tests:180 single:100 engine:220 prompts:80 ops:110 ladder:60 invariant:150 large:280 mixed:40
tuning:140 kernel_tests:120"

about() {
  case $1 in
    tests) echo 'the tests that are marked gpu' ;;
    single) echo 'attention of single tokens' ;;
    engine) echo 'Qwen3 0.6B offline, beside transformers' ;;
    prompts) echo 'attention of prompts, beside torch' ;;
    ops) echo 'all other ops, and the limits of memory and products' ;;
    ladder) echo 'paged attention from naive to fast' ;;
    invariant) echo 'the price of batch-invariant mode' ;;
    large) echo 'Qwen3 8B offline, beside transformers' ;;
    mixed) echo 'attention of prompts and single tokens in one batch' ;;
    tuning) echo 'tiles and splits of attention' ;;
    kernel_tests) echo 'the tests of the ops in Triton' ;;
  esac
}

list_stages() {
  for entry in $stages; do
    printf '%-12s %4s  %s\n' "${entry%%:*}" "${entry##*:}" "$(about "${entry%%:*}")"
  done
}

is_stage() {
  local entry
  for entry in $stages; do [ "${entry%%:*}" != "$1" ] || return 0; done
  return 1
}

dry=
names=
for word in "$@"; do
  case $word in
    --dry-run) dry=--dry-run ;;
    --list) list_stages; exit 0 ;;
    --help | -h) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) is_stage "$word" || { echo "no stage $word; see --list"; exit 2; }
       names="$names $word" ;;
  esac
done

if [ -n "$dry" ]; then
  OUT=${OUT:+$OUT/dry_run}
  OUT=${OUT:-$(mktemp -d)}
  budget=${BUDGET:-9000}
  "$python" -c 'import torch, sys; sys.exit(torch.cuda.is_available())' && export TRITON_INTERPRET=1
fi
if ! [[ $budget =~ ^[0-9]+$ ]]; then
  echo "BUDGET=$budget is no number of seconds; give one, such as 1500"
  exit 2
fi
budget=$((10#$budget))  # 0900 is no octal number
OUT=${OUT:-$here/results}
case $OUT in /*) ;; *) OUT=$PWD/$OUT ;; esac  # the stages run in another folder
export OUT
export PYTHONPATH="$here/from_checkout:$root${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
mkdir -p "$OUT/logs" || exit 1
journal=$OUT/gpu_session.tsv
touch "$journal"
cd "$root" || exit 1
if [ -n "$dry" ]; then device=any; else device=cuda; fi
"$python" "$here/session_check.py" --device "$device" || exit 1

# Other versions warn of other things, and without pytest-asyncio its settings are unknown: no errors.
run_tests() {
  "$python" -m pytest -q -o strict_config=false -W default -W ignore::pytest.PytestConfigWarning "$@"
}

run_stage() {
  case $1 in
    tests) run_tests -m gpu ${dry:+--collect-only} $(grep -rl 'mark.gpu' tests) ;;
    kernel_tests) run_tests ${dry:+--collect-only} -m "not slow" tests/kernels/triton ;;
    single | prompts | mixed) "$python" "$here/attention_triton.py" $dry "$1" ;;
    ladder | tuning) "$python" "$here/attention_$1.py" $dry ;;
    ops) run_ops ;;
    engine) "$python" "$here/offline_engine.py" $dry --model qwen3-0.6b ;;
    large) "$python" "$here/offline_engine.py" $dry --model qwen3-8b ;;
    invariant) "$python" "$here/offline_engine.py" $dry --requests 128 \
      --ways toolkit batch-invariant --name invariant ;;
  esac
}

run_ops() {
  if [ -n "$dry" ]; then
    "$python" -m toolkit bench kernels --op silu_mul --repeats 1 --output "$OUT/ops.json"
  else
    "$python" -m toolkit bench kernels --device cuda --repeats 3 --output "$OUT/ops.json"
  fi
}
export -f run_stage run_tests run_ops
export here python dry

# timeout makes a process group of the stage, which a terminal's Ctrl-C does not reach.
running=
stopped=
stop() {
  stopped=yes
  [ -z "$running" ] || kill "$running" 2> /dev/null
}
trap stop INT TERM HUP

missed=
for entry in $stages; do
  [ -z "$stopped" ] || break
  stage=${entry%%:*}
  seconds=${entry##*:}
  [ -z "$dry" ] || seconds=$((6 * seconds))  # a CPU may be busy
  if [ -n "$names" ]; then
    [[ " $names " == *" $stage "* ]] || continue
  elif grep -q "^$stage	done" "$journal"; then
    echo "== $stage: done before"
    continue
  fi
  left=$((budget - SECONDS))
  [ "$left" -lt "$seconds" ] && seconds=$left
  if [ "$seconds" -lt 20 ]; then
    echo "== $stage: no time left"
    printf '%s\tno time left\t0\n' "$stage" >> "$journal"
    missed=yes
    continue
  fi
  echo "== $stage: $(about "$stage"); up to $seconds s, log in $OUT/logs/$stage.log"
  began=$SECONDS
  timeout -k 10 "$seconds" bash -c "run_stage $stage" > "$OUT/logs/$stage.log" 2>&1 &
  running=$!
  wait "$running"
  code=$?
  while kill -0 "$running" 2> /dev/null; do  # the signal ended the wait, the stage ends soon
    wait "$running"
    code=$?
  done
  running=
  case $code in 0) state=done ;; 124 | 137) state='out of time' ;; *) state="failed with code $code" ;; esac
  [ -z "$stopped" ] || state=interrupted
  echo "   $state after $((SECONDS - began)) s"
  if [ "$state" != done ]; then
    missed=yes
    tail -n 3 "$OUT/logs/$stage.log"
  fi
  printf '%s\t%s\t%s\n' "$stage" "$state" "$((SECONDS - began))" >> "$journal"
done
"$python" "$here/session_table.py"
code=$?
[ -z "$stopped" ] || exit 130
[ -z "$missed" ] || exit 1
exit "$code"
