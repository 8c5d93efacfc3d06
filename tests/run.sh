#!/usr/bin/env bash
# All tests of the project, or parts of them:
#
#   tests/run.sh                    everything, as CI does
#   tests/run.sh check unit         formatting, lints and docs; Rust tests
#   tests/run.sh image              the binary of the Dockerfile, alone in a read-only root
#   tests/run.sh clients            stock clients and raw sockets against the built binaries
#   tests/run.sh redis              the same service on Redis, several instances of it, and other servers beside them
#   tests/run.sh clients drain upgrade      ... only the files whose name contains one of these words; so for redis
#
# Everything is built with --release, so that dependencies are built once. What is missing on the machine is
# installed. The last line is "N passed, N failed"; a skipped test counts as a failed one, and so does a step that
# crashed. Logs: target/test-logs/.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly LOGS=$PWD/target/test-logs
readonly CLIENTS=$PWD/tests/clients
readonly VENV=$PWD/target/venv
# A hang is a failure, not a wait for CI's own limit. Each is several times what the step takes.
readonly NODE_LIMIT_S=1200 PYTEST_LIMIT_S=420 CARGO_LIMIT_S=1500
readonly NODE_TEST_LIMIT_MS=300000

passed=0
failed=0
failures=()

say() { printf '\n== %s\n' "$*"; }

# count PASSED FAILED NAME: adds the results of a suite.
count() {
  printf -- '-- %s: %s passed, %s failed\n' "$3" "$1" "$2"
  passed=$((passed + $1))
  failed=$((failed + $2))
  if (($2 > 0)); then failures+=("$3: $2"); fi
}

# logged NAME COMMAND...: runs it, shows what it prints and keeps it as $LOGS/NAME.log. Its status is the command's.
logged() {
  local name=$1 status=0
  shift
  "$@" 2>&1 | tee "$LOGS/$name.log" || status=${PIPESTATUS[0]}
  return "$status"
}

# step NAME COMMAND...: one test that is passed if the command succeeds.
step() {
  local name=$1
  shift
  say "$name: $*"
  if logged "$name" "$@"; then count 1 0 "$name"; else count 0 1 "$name"; fi
}

# prepare NAME COMMAND...: something that tests need. Only its failure counts.
prepare() {
  local name=$1
  shift
  say "$name: $*"
  if logged "$name" "$@"; then return 0; fi
  count 0 1 "$name"
  return 1
}

# suite NAME STATUS PASSED FAILED: counts; a suite that failed without a failed test, or ran none, has crashed.
suite() {
  local name=$1 status=$2 good=${3:-0} bad=${4:-0}
  if ((bad == 0 && (status != 0 || good == 0))); then bad=1; fi
  count "$good" "$bad" "$name"
}

# number PATTERN FILE: sum over the file of the number that the (extended) pattern catches; 0 if there is none.
number() { { sed -nE "s/$1/\1/p" "$2" 2>/dev/null || true; } | awk '{ sum += $1 } END { print sum + 0 }'; }

# need COMMAND PACKAGE: installs a missing command.
need() {
  if command -v "$1" >/dev/null; then return; fi
  say "installing $2"
  if ((EUID == 0)); then
    apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install "$2"
  else
    sudo apt-get -q update && sudo DEBIAN_FRONTEND=noninteractive apt-get -qy install "$2"
  fi
}

part_check() {
  step format cargo fmt --check
  step clippy timeout "$CARGO_LIMIT_S" cargo clippy --locked --release --all-targets -- -D warnings
  step docs env RUSTDOCFLAGS="-D warnings" timeout "$CARGO_LIMIT_S" cargo doc --locked --release --no-deps
}

part_unit() {
  need redis-server redis-server
  local status=0
  if cargo nextest --version >/dev/null 2>&1; then
    say "unit: cargo nextest"
    logged nextest timeout "$CARGO_LIMIT_S" cargo nextest run --locked --release --no-fail-fast --color never || status=$?
    # Summary [  1.2s] 9 tests run: 5 passed (1 slow), 2 failed, 1 timed out, 1 exec failed, 3 skipped
    local summary=$LOGS/nextest.summary
    grep -E '^ *Summary ' "$LOGS/nextest.log" | tail -1 >"$summary" || true
    suite nextest "$status" "$(number '.*[ :]([0-9]+) passed.*' "$summary")" \
      $(($(number '.*[ ,]([0-9]+) failed.*' "$summary") + $(number '.* ([0-9]+) timed out.*' "$summary") + \
        $(number '.* ([0-9]+) exec failed.*' "$summary") + $(number '.* ([0-9]+) skipped.*' "$summary")))
  else
    say "unit: cargo test"
    logged cargo-test timeout "$CARGO_LIMIT_S" cargo test --locked --release --no-fail-fast --all-targets || status=$?
    cargo_results cargo-test "$status"
  fi
  status=0
  say "unit: documentation examples"
  logged doctest timeout "$CARGO_LIMIT_S" cargo test --locked --release --doc || status=$?
  # None is fine: examples are not demanded.
  if ((status == 0)) && grep -q '^running 0 tests' "$LOGS/doctest.log"; then return; fi
  cargo_results doctest "$status"
}

# test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out
cargo_results() {
  local log=$LOGS/$1.log
  suite "$1" "$2" "$(number '^test result: .* ([0-9]+) passed;.*' "$log")" \
    $(($(number '^test result: .* ([0-9]+) failed;.*' "$log") + $(number '^test result: .* ([0-9]+) ignored;.*' "$log")))
}

# unchanged STAMP FILE...: whether what was installed from these files still is.
unchanged() { [[ -f $1 && $(cat "$1") == "$(stamp "${@:2}")" ]]; }
stamp() { sha256sum "$@" | sha256sum; }

install_npm() {
  if grep -q '"resolved"' "$CLIENTS/package-lock.json"; then
    echo "package-lock.json names a registry: write it with omit-lockfile-registry-resolved=true"
    return 1
  fi
  local mark=$CLIENTS/node_modules/.installed files=("$CLIENTS"/package.json "$CLIENTS"/package-lock.json)
  if unchanged "$mark" "${files[@]}"; then return; fi
  (cd "$CLIENTS" && npm ci) && stamp "${files[@]}" >"$mark"
}

install_python() {
  local mark=$VENV/.installed file=$CLIENTS/requirements.txt
  if unchanged "$mark" "$file"; then return; fi
  if ! python3 -c 'import ensurepip' 2>/dev/null; then need no-such-command python3-venv; fi
  python3 -m venv --clear "$VENV" && "$VENV/bin/pip" install --quiet -r "$file" && stamp "$file" >"$mark"
}

# Python emitters, each version in an environment of its own.
install_emitters() {
  local file name venv
  if ! python3 -c 'import ensurepip' 2>/dev/null; then need no-such-command python3-venv; fi
  for file in "$CLIENTS"/interop/requirements-*.txt; do
    name=${file##*/requirements-}
    venv=$VENV-${name%.txt}
    if unchanged "$venv/.installed" "$file"; then continue; fi
    python3 -m venv --clear "$venv" && "$venv/bin/pip" install --quiet -r "$file" &&
      stamp "$file" >"$venv/.installed" || return 1
  done
}

# chosen FILE WORD...: whether the name contains one of the words; without words, every one does.
chosen() {
  local file=$1 word
  shift
  (($# > 0)) || return 0
  for word; do [[ ${file##*/} != *"$word"* ]] || return 0; done
  return 1
}

# node_suite NAME FILE...: one file at a time: several measure time, and there may be only two cores.
node_suite() {
  local name=$1 status=0 tap=$LOGS/$1.tap
  shift
  say "$name: node --test, $# files"
  rm -f "$tap"
  logged "$name" timeout "$NODE_LIMIT_S" node --test --test-concurrency=1 --test-timeout="$NODE_TEST_LIMIT_MS" \
    --test-reporter=spec --test-reporter-destination=stdout \
    --test-reporter=tap --test-reporter-destination="$tap" "$@" || status=$?
  suite "$name" "$status" "$(number '^# pass ([0-9]+)$' "$tap")" \
    $(($(number '^# fail ([0-9]+)$' "$tap") + $(number '^# cancelled ([0-9]+)$' "$tap") + \
      $(number '^# skipped ([0-9]+)$' "$tap") + $(number '^# todo ([0-9]+)$' "$tap")))
}

# What all tests of clients need. False if it is not to be had.
prepare_clients() {
  need curl curl
  need node nodejs
  need npm npm
  need python3 python3
  prepare build timeout "$CARGO_LIMIT_S" cargo build --locked --release --bins --examples || return 1
  prepare npm install_npm || return 1
  prepare pip install_python || return 1
  # Set already: the binaries of somebody else, such as the reference server.
  export CHAT_SERVICE_BIN=${CHAT_SERVICE_BIN:-$PWD/target/release/chat-service}
  export CONFORMANCE_BIN=${CONFORMANCE_BIN:-$PWD/target/release/examples/conformance}
}

part_redis() {
  need redis-server redis-server
  need faketime faketime
  need openssl openssl
  prepare_clients || return 0
  prepare emitters install_emitters || return 0
  local file service_files=() files=()
  for file in "$CLIENTS"/service/*.test.mjs; do
    # These start no service, or say by themselves what Redis there is.
    case ${file##*/} in browser.* | demo.* | descriptions.* | fast_client.* | story.* | protocol_examples.*) continue ;; esac
    if chosen "$file" "$@"; then service_files+=("$file"); fi
  done
  for file in "$CLIENTS"/{cluster,interop}/*.test.mjs; do
    if chosen "$file" "$@"; then files+=("$file"); fi
  done
  if ((${#service_files[@]} + ${#files[@]} == 0)); then
    echo "no file is named like: $*"
    count 0 1 redis
  fi
  if ((${#service_files[@]} > 0)); then SERVICE_TESTS_ON_REDIS=1 node_suite service-on-redis "${service_files[@]}"; fi
  if ((${#files[@]} > 0)); then node_suite redis "${files[@]}"; fi
}

part_clients() {
  if [[ -z ${CHROMIUM_BIN:-} ]]; then need chromium chromium; fi
  prepare_clients || return 0

  local file status=0 node_files=() python_files=()
  for file in "$CLIENTS"/{protocol,service}/*.test.mjs; do
    if chosen "$file" "$@"; then node_files+=("$file"); fi
  done
  for file in "$CLIENTS"/python/test_*.py; do
    if chosen "$file" "$@"; then python_files+=("$file"); fi
  done
  if ((${#node_files[@]} + ${#python_files[@]} == 0)); then
    echo "no file of the clients is named like: $*"
    count 0 1 clients
  fi

  if ((${#node_files[@]} > 0)); then node_suite node "${node_files[@]}"; fi

  if ((${#python_files[@]} > 0)); then
    say "clients: pytest, ${#python_files[@]} files"
    local xml=$LOGS/pytest.xml
    rm -f "$xml"
    status=0
    logged pytest timeout "$PYTEST_LIMIT_S" env PYTHONDONTWRITEBYTECODE=1 "$VENV/bin/python" -m pytest -q \
      -p no:cacheprovider --durations=5 --junitxml="$xml" "${python_files[@]}" || status=$?
    local all bad
    all=$(number '.*<testsuite [^>]*tests="([0-9]+)".*' "$xml")
    bad=$(($(number '.*<testsuite [^>]*failures="([0-9]+)".*' "$xml") + \
      $(number '.*<testsuite [^>]*errors="([0-9]+)".*' "$xml") + \
      $(number '.*<testsuite [^>]*skipped="([0-9]+)".*' "$xml")))
    # A test may fail and have an error in its tear-down: never less than none passed.
    suite pytest "$status" $((all > bad ? all - bad : 0)) "$bad"
  fi
}

# What goes into the image, without a Docker engine.
part_image() {
  need curl curl
  need unshare util-linux
  say "image: tests/image.sh"
  local status=0
  logged image timeout "$CARGO_LIMIT_S" bash tests/image.sh || status=$?
  suite image "$status" "$(number '^([0-9]+) passed, [0-9]+ failed$' "$LOGS/image.log")" \
    "$(number '^[0-9]+ passed, ([0-9]+) failed$' "$LOGS/image.log")"
}

mkdir -p "$LOGS"
parts=("$@")
if ((${#parts[@]} == 0)); then parts=(check unit image clients redis); fi
for ((i = 0; i < ${#parts[@]}; i++)); do
  case ${parts[i]} in
    check | unit | image) "part_${parts[i]}" ;;
    clients | redis)
      part=${parts[i]} words=()
      # Words up to the next part.
      while ((i + 1 < ${#parts[@]})) && [[ ! ${parts[i + 1]} =~ ^(check|unit|image|clients|redis)$ ]]; do
        words+=("${parts[++i]}")
      done
      "part_$part" "${words[@]}"
      ;;
    *)
      echo "usage: tests/run.sh [check] [unit] [image] [clients [WORD...]] [redis [WORD...]]" >&2
      exit 2
      ;;
  esac
done

if ((${#failures[@]} > 0)); then printf '\nfailed: %s' "${failures[@]}" && echo; fi
echo
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
