#!/usr/bin/env bash
# The service's numbers beside socketioxide's and Node's, from one run on one machine.
#
#   benches/run.sh [start|rss|idle|echo|broadcast|size|writes|all]...
#
# What each number means, and the settings, stand in benches/README.md.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(dirname "$here")

servers=${SERVERS:-chat-service socketioxide socketioxide-1t node}
pairs=${PAIRS:-3}                  # each server is measured so often, taking turns; medians are shown
idle_pairs=${IDLE_PAIRS:-1}
seconds=${DURATION:-5}
idle_connections=${IDLE_CONNECTIONS:-10000}
idle_hold=${IDLE_HOLD:-30}         # longer than one ping interval, so that heartbeats are in it
echo_windows=${ECHO_WINDOWS:-1 16}
broadcast_loads=${BROADCAST_LOADS:-1x4 10x4}    # senders in each room x messages each has on its way
server_cpu=${SERVER_CPU:-0}
load_cpu=${LOAD_CPU:-1}

target=${BENCH_TARGET_DIR:-$repo/target/bench}
load=$target/release/chat-load
peer=$target/release/peer-socketioxide
ours=${CHAT_SERVICE_BIN:-$repo/target/release/chat-service}

scratch=$(mktemp -d)
server_pid=
trap 'stop_server; rm -rf "$scratch"' EXIT
results=$scratch/results          # lines of "metric|server|value"
: >"$results"

die() { echo "run.sh: $*" >&2; exit 1; }
note() { echo "  $*" >&2; }

build() {
    CARGO_TARGET_DIR=$target cargo build --release --quiet --manifest-path "$here/load/Cargo.toml"
    local server
    for server in $servers; do
        case $server in
        chat-service)
            [ -x "$ours" ] || [ -n "${CHAT_SERVICE_BIN:-}" ] ||
                cargo build --release --locked --manifest-path "$repo/Cargo.toml"
            [ -x "$ours" ] || die "no such program: $ours"
            ;;
        socketioxide | socketioxide-1t)
            CARGO_TARGET_DIR=$target cargo build --release --quiet --manifest-path "$here/peers/socketioxide/Cargo.toml"
            ;;
        node)
            [ -d "$here/peers/node/node_modules" ] ||
                npm ci --silent --no-audit --no-fund --prefix "$here/peers/node"
            ;;
        *) die "no such server: $server" ;;
        esac
    done
}

# Sets `command` to a server's command line. The environment is cleared, so that only what stands
# here configures it.
command_of() {
    local clean=(env -i "PATH=$PATH" "HOME=${HOME:-/}" "PORT=$port" "${@:2}")
    case $1 in
    chat-service)
        command=("${clean[@]}" AUTH_MODE=none RATE_LIMITS=off LOG_LEVEL=warn MAX_CONNECTIONS=0
            MAX_CONNECTIONS_PER_IP=0 "$ours")
        ;;
    socketioxide) command=("${clean[@]}" "$peer") ;;
    socketioxide-1t) command=("${clean[@]}" TOKIO_FLAVOR=current_thread "$peer") ;;
    node) command=("${clean[@]}" node "$here/peers/node/server.js") ;;
    esac
}

pick_port() {
    local try
    for try in {1..50}; do
        port=$((20000 + RANDOM % 10000))
        listening || return 0
    done
    die "no free port found in $try tries"
}

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

# Runs a server command in the background until `stop_server`.
start_server() {
    "$@" >"$scratch/server.log" 2>&1 &
    server_pid=$!
    local try
    for try in {1..200}; do
        listening && return 0
        kill -0 "$server_pid" 2>/dev/null || break
        sleep 0.05
    done
    cat "$scratch/server.log" >&2
    die "the server did not start (waited $try times): $*"
}

stop_server() {
    [ -n "$server_pid" ] || return 0
    kill -KILL "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
    server_pid=
}

# Measures once: a fresh server, pinned to its core with one worker, and the generator on the other.
pinned() {
    local server=$1
    shift
    pick_port
    command_of "$server" WORKER_THREADS=1
    start_server taskset -c "$server_cpu" "${command[@]}"
    json=$(taskset -c "$load_cpu" "$load" "$@" --port "$port" --pid "$server_pid" 2>"$scratch/load.log") || failed "$server"
    stop_server
    note "$server $1 $json"
}

failed() {
    cat "$scratch/load.log" "$scratch/server.log" >&2
    die "measuring $1 failed"
}

# field NAME: the value in $json.
field() { sed -E "s/.*\"$1\":([^,}]*).*/\1/" <<<"$json"; }

# record METRIC SERVER VALUE
record() { printf '%s|%s|%s\n' "$@" >>"$results"; }

scaled() { awk -v value="$1" -v by="$2" -v digits="$3" 'BEGIN { printf "%.*f", digits, value * by }'; }

measure_start() {
    local pair server
    for ((pair = 0; pair < pairs; pair++)); do
        for server in $servers; do
            [ "$server" != socketioxide-1t ] || continue
            pick_port
            command_of "$server"
            json=$("$load" start --port "$port" --times 5 -- "${command[@]}" 2>"$scratch/load.log") || failed "$server"
            note "$server start $json"
            record 'start to first healthy answer, ms (< 50)' "$server" "$(field start_ms)"
            record 'RSS without connections, MB (< 8)' "$server" "$(scaled "$(field rss_kb)" 0.001024 2)"
        done
    done
}

measure_idle() {
    local open_files
    open_files=$(ulimit -n)
    ((open_files >= idle_connections + 100)) ||
        die "idle: ulimit -n is $open_files, $idle_connections connections need more (or set IDLE_CONNECTIONS)"
    local pair server
    for ((pair = 0; pair < idle_pairs; pair++)); do
        for server in $servers; do
            [ "$server" != socketioxide-1t ] || continue
            pick_port
            command_of "$server"
            start_server "${command[@]}"
            json=$("$load" idle --connections "$idle_connections" --hold "$idle_hold" --port "$port" \
                --pid "$server_pid" 2>"$scratch/load.log") || failed "$server"
            stop_server
            note "$server idle $json"
            record "idle WebSocket, bytes of RSS each (<= 4096)" "$server" "$(scaled "$(field bytes_per_connection)" 1 0)"
        done
    done
}

measure_echo() {
    local pair server window
    for ((pair = 0; pair < pairs; pair++)); do
        for window in $echo_windows; do
            for server in $servers; do
                pinned "$server" echo --connections 64 --window "$window" --seconds "$seconds"
                record "echo w$window: CPU us a message (<= 0.5x)" "$server" "$(field cpu_us_per_message)"
                record "echo w$window: messages/s" "$server" "$(scaled "$(field messages_per_s)" 1 0)"
                record "echo w$window: server core busy, %" "$server" "$(scaled "$(field server_cpu_percent)" 1 0)"
            done
        done
    done
}

measure_broadcast() {
    local pair server sending
    for ((pair = 0; pair < pairs; pair++)); do
        for sending in $broadcast_loads; do
            for server in $servers; do
                pinned "$server" broadcast --rooms 3 --members 100 --senders-per-room "${sending%x*}" \
                    --window "${sending#*x}" --seconds "$seconds"
                record "broadcast $sending: deliveries/s (>= 1.5x)" "$server" "$(scaled "$(field deliveries_per_s)" 1 0)"
                record "broadcast $sending: CPU us a delivery" "$server" "$(field cpu_us_per_delivery)"
                record "broadcast $sending: bytes a delivery" "$server" "$(scaled "$(field bytes_per_delivery)" 1 0)"
                record "broadcast $sending: server core busy, %" "$server" "$(scaled "$(field server_cpu_percent)" 1 0)"
            done
        done
    done
}

measure_size() {
    local server
    for server in $servers; do
        case $server in
        chat-service) record 'program, MB (< 8)' "$server" "$(scaled "$(wc -c <"$ours")" 0.000001 2)" ;;
        socketioxide) record 'program, MB (< 8)' "$server" "$(scaled "$(wc -c <"$peer")" 0.000001 2)" ;;
        esac
    done
}

# Counts the system calls that write, from before the first message to after the last.
measure_writes() {
    command -v strace >/dev/null || die "writes: strace is not installed"
    local members=1000 messages=20 per_message=0.05 server tracer counted
    for server in $servers; do
        pick_port
        command_of "$server" WORKER_THREADS=1
        start_server strace -f -y -ttt -s 0 -o "$scratch/strace.log" \
            -e trace=write,writev,sendto,sendmsg,sendmmsg "${command[@]}"
        # strace ends with what it runs; killed itself, it would leave that running.
        tracer=$server_pid
        server_pid=$(<"/proc/$tracer/task/$tracer/children")
        server_pid=${server_pid%% *}
        json=$("$load" burst --members "$members" --messages "$messages" --port "$port" 2>"$scratch/load.log") || failed "$server"
        stop_server
        wait "$tracer" 2>/dev/null || true
        counted=$(awk -v from="$(field from)" -v to="$(field to)" '
            $2 >= from && $2 <= to && $3 ~ /^(write|writev|sendto|sendmsg|sendmmsg)\(/ {
                if ($3 ~ /<(socket|TCP)/) sockets++; else others++
            }
            END { print sockets + 0, others + 0 }' "$scratch/strace.log")
        note "$server writes (socket, other): $counted $json"
        record 'room of 1000: socket writes a message (<= 1001)' "$server" "$(scaled "${counted% *}" "$per_message" 1)"
        record 'room of 1000: other writes (wake-ups) a message' "$server" "$(scaled "${counted#* }" "$per_message" 1)"
    done
}

# Medians; the ratio columns are the service's median over the peer's.
print_table() {
    awk -F'|' -v servers="$servers" '
        function median(list,    n, i, j, swap, values) {
            n = split(list, values, " ")
            for (i = 2; i <= n; i++)
                for (j = i; j > 1 && values[j - 1] + 0 > values[j] + 0; j--) {
                    swap = values[j]; values[j] = values[j - 1]; values[j - 1] = swap
                }
            return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
        }
        function ratio(metric, peer) {
            if (!((metric, "chat-service") in all) || !((metric, peer) in all)) return "-"
            if (median(all[metric, peer]) + 0 == 0) return "-"
            return sprintf("%.2fx", median(all[metric, "chat-service"]) / median(all[metric, peer]))
        }
        !($1 in seen) { seen[$1] = 1; metrics[++rows] = $1 }
        { all[$1, $2] = all[$1, $2] " " $3 }
        END {
            count = split(servers, names, " ")
            head = sprintf("%-50s", "median")
            for (i = 1; i <= count; i++) head = head sprintf(" %15s", names[i])
            print head sprintf(" %8s %8s", "/siox", "/siox-1t")
            for (row = 1; row <= rows; row++) {
                line = sprintf("%-50s", metrics[row])
                for (i = 1; i <= count; i++)
                    line = line sprintf(" %15s", (metrics[row], names[i]) in all ? median(all[metrics[row], names[i]]) : "-")
                print line sprintf(" %8s %8s", ratio(metrics[row], "socketioxide"), ratio(metrics[row], "socketioxide-1t"))
            }
        }' "$results"
}

[ $# -gt 0 ] || set -- all
wanted=" $* "
for word in "$@"; do
    case $word in
    start | rss | idle | echo | broadcast | size | writes | all) ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
wants() {
    local word
    for word in "$@" all; do [[ $wanted != *" $word "* ]] || return 0; done
    return 1
}

ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
build
if wants start rss; then measure_start; fi
if wants size; then measure_size; fi
if wants writes; then measure_writes; fi
if wants idle; then measure_idle; fi
if wants echo; then measure_echo; fi
if wants broadcast; then measure_broadcast; fi
echo
print_table
