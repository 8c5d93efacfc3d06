#!/usr/bin/env bash
# What the Dockerfile builds, without a Docker engine: the binary is static, small, and runs in a root that is empty but
# for itself, read-only, as the image's user. Needs root, for the chroot.
#
# The last line is "N passed, N failed".
set -euo pipefail
cd "$(dirname "$0")/.."

readonly TARGET=$(rustc -vV | sed -n 's/^host: //p')
readonly BINARY=target/$TARGET/dist/chat-service
readonly MAX_BYTES=$((10 * 1024 * 1024))
passed=0
failed=0

check() { # check NAME COMMAND...
  local name=$1
  shift
  if "$@"; then
    echo "ok: $name"
    passed=$((passed + 1))
  else
    echo "FAILED: $name"
    failed=$((failed + 1))
  fi
}

RUSTFLAGS="-C target-feature=+crt-static" cargo build --profile dist --locked --target "$TARGET" --bin chat-service

is_static() { ldd "$BINARY" 2>&1 | grep -Eq 'statically linked|not a dynamic executable'; }
is_small() { (($(stat -c %s "$BINARY") <= MAX_BYTES)); }
check "ldd calls it static" is_static
check "it is at most $MAX_BYTES bytes, and the image holds nothing else" is_small

root=$(mktemp -d)
server=
cleanup() {
  if [[ -n $server ]]; then kill -9 "$server" 2>/dev/null || true; fi
  rm -rf "$root"
}
trap cleanup EXIT
chmod 0755 "$root"
install -m 0755 "$BINARY" "$root/chat-service"
port=$((20000 + RANDOM % 20000))

# In a mount namespace of its own, which goes with the process: the root is bound onto itself, read-only.
inside() { # inside VARIABLE=VALUE... -- ARGUMENT...
  local variables=()
  while [[ $1 != -- ]]; do
    variables+=("$1")
    shift
  done
  shift
  exec unshare --mount sh -c '
    root=$1; shift
    mount --bind "$root" "$root" && mount -o remount,ro,bind "$root" || exit 99
    if touch "$root/x" 2>/dev/null; then echo "the root is writable" >&2; exit 98; fi
    exec env -i PATH="$PATH" "$@"' sh "$root" "${variables[@]}" \
    chroot --userspec=65532:65532 "$root" /chat-service "$@"
}

(inside ENV=production AUTH_MODE=none HOST=127.0.0.1 PORT=$port DRAIN_SPREAD=1s DRAIN_TIMEOUT=2s -- ) &
server=$!

answers() {
  for _ in $(seq 100); do
    if curl -sf "http://127.0.0.1:$port/api/v1/chat/health" | grep -q '"status":"ok"'; then return 0; fi
    kill -0 "$server" 2>/dev/null || return 1
    sleep 0.1
  done
  return 1
}
has_user() { [[ $(awk '/^Uid:/ { print $2, $3 }' "/proc/$server/status") == "65532 65532" ]]; }
is_healthy() { (inside ENV=production AUTH_MODE=none HOST=127.0.0.1 PORT=$port -- healthcheck); }
ends_with() { # ends_with STATUS COMMAND...
  local expected=$1 status=0
  shift
  ("$@") 2>/dev/null || status=$?
  ((status == expected))
}
stops() {
  local status=0
  kill -TERM "$server"
  wait "$server" || status=$?
  server=
  return "$status"
}
check "it answers from an empty, read-only root" answers
check "it runs as uid 65532" has_user
check "the image's health check says yes" is_healthy
check "the image's health check can say no" ends_with 1 inside ENV=production AUTH_MODE=none PORT=1 -- healthcheck
check "production without a key is refused" ends_with 2 inside ENV=production -- --check-config
check "SIGTERM ends it with status 0" stops

echo "$passed passed, $failed failed"
((failed == 0))
