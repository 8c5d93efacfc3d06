// Starts the binaries under test, each on a free port of the loopback, and ends them by their own pid.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once as happens } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, connect } from 'node:net';
import { tmpdir } from 'node:os';

import { eventually, within } from './wait.mjs';
import { Metrics } from './metrics.mjs';
import { request } from './http.mjs';

const API = '/api/v1/chat';

// The test runner ends a file that takes too long with a SIGTERM; then too its servers must go.
process.once('SIGTERM', () => process.exit(1));

/** What a test's server runs with unless the test says otherwise: no limit that a burst of tests would hit. */
const TEST_SETTINGS = {
  RATE_LIMITS: 'off',
  MAX_CONNECTIONS_PER_IP: '0',
  LOG_LEVEL: 'warn',
  DRAIN_SPREAD: '500ms',
};

/** Ports that were given to somebody of this process. */
const given = new Set();

/**
 * A port of which nobody makes use, and nobody will before it is used: none of those that the kernel gives to listeners
 * and connections by itself (32768 and above), and none twice.
 */
export async function freePort() {
  for (;;) {
    const port = 11_000 + Math.floor(Math.random() * 20_000);
    if (given.has(port)) continue;
    given.add(port);
    const listener = createServer();
    const isFree = await new Promise((resolve) => {
      listener.once('error', () => resolve(false));
      listener.listen(port, '127.0.0.1', () => resolve(true));
    });
    if (!isFree) continue;
    listener.close();
    await happens(listener, 'close');
    return port;
  }
}

function binary(variable) {
  const path = process.env[variable];
  assert.ok(path, `${variable} names no binary to test`);
  return path;
}

class Server {
  constructor(path, args, env, port) {
    this.port = port;
    this.url = `http://127.0.0.1:${port}`;
    this.log = '';
    // Only these variables: the service must not see a developer's own REDIS_URL or SECRET_KEY.
    this.child = spawn(path, args, { env: { PATH: process.env.PATH, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (this.log = (this.log + text).slice(-20_000)));
    }
    this.exited = new Promise((resolve) => {
      this.child.once('exit', (code, signal) => {
        this.ended = { code, signal };
        resolve(this.ended);
      });
      this.child.once('error', (error) => {
        this.ended = { error };
        resolve(this.ended);
      });
    });
    this.reap = () => this.child.kill('SIGKILL');
    process.once('exit', this.reap);
  }

  get pid() {
    return this.child.pid;
  }

  async ready(check) {
    await Promise.race([
      eventually(check),
      this.exited.then((ended) => {
        throw new Error(`the server ended at its start: ${JSON.stringify(ended)}\n${this.log}`);
      }),
    ]);
    return this;
  }

  signal(name) {
    this.child.kill(name);
  }

  /** Ends the process whatever it does; for tests that ended it themselves there is nothing left to do. */
  async kill() {
    if (!this.ended) this.child.kill('SIGKILL');
    await within(this.exited, 'the end of the server');
    process.removeListener('exit', this.reap);
    this.redis?.stop();
  }

  /** Resident memory in bytes, as the kernel counts it. */
  residentBytes() {
    return Number(readFileSync(`/proc/${this.pid}/statm`, 'utf8').split(' ')[1]) * 4096;
  }
}

class Service extends Server {
  get(path, options) {
    return request(this.url + path, options);
  }

  async metrics() {
    const { status, text } = await this.get(`${API}/metrics`);
    assert.equal(status, 200);
    return new Metrics(text);
  }

  health() {
    return this.get(`${API}/health`);
  }

  /** The end of a test file: the server must have lived through it, without a panic. */
  async stop() {
    try {
      assert.equal(this.ended, undefined, `the server ended by itself: ${JSON.stringify(this.ended)}\n${this.log}`);
      assert.equal((await this.metrics()).panics(), 0, this.log);
    } finally {
      await this.kill();
    }
  }
}

/**
 * The chat service, answering its health check. With `SERVICE_TESTS_ON_REDIS=1` each one gets a Redis of its own: what is
 * promised holds there as well.
 */
export async function startService(settings = {}, port = undefined) {
  port ??= await freePort();
  const redis = process.env.SERVICE_TESTS_ON_REDIS && !('REDIS_URL' in settings) ? await startOwnRedis() : undefined;
  const env = { ...TEST_SETTINGS, PORT: String(port), ...(redis && { REDIS_URL: redis.url }), ...settings };
  const service = new Service(binary('CHAT_SERVICE_BIN'), [], env, port);
  service.redis = redis;
  return service.ready(async () => {
    assert.equal((await service.health()).status, 200);
    if (redis) assert.equal((await service.get(`${API}/ready`)).status, 200);
  });
}

/** A redis-server that keeps nothing, and ends with its service. */
async function startOwnRedis() {
  const port = await freePort();
  const args = ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--loglevel', 'warning'];
  const child = spawn('redis-server', args.map(String), { stdio: 'ignore', cwd: tmpdir() });
  const reap = () => child.kill('SIGKILL');
  process.once('exit', reap);
  return { url: `redis://127.0.0.1:${port}`, stop: () => (process.removeListener('exit', reap), reap()) };
}

/** What the conformance server announces in every handshake. The timeout is longer than this process may stand still. */
export const PING_INTERVAL_MS = 300;
export const PING_TIMEOUT_MS = 1000;
/** For tests in which no ping is to come. */
export const WITHOUT_PINGS = ['--ping-interval-ms', 60_000, '--ping-timeout-ms', 60_000];
export const MAX_PAYLOAD = 1_000_000;

/** The conformance server in one of its modes: `engineio` (echoes every message) or `socketio`. */
export async function startConformance(mode, ...flags) {
  const port = await freePort();
  const args = ['--mode', mode, '--port', port, '--ping-interval-ms', PING_INTERVAL_MS];
  args.push('--ping-timeout-ms', PING_TIMEOUT_MS, '--max-payload', MAX_PAYLOAD, ...flags);
  const server = new Server(binary('CONFORMANCE_BIN'), args.map(String), {}, port);
  server.stop = async () => {
    const { ended, log } = server;
    await server.kill();
    assert.equal(ended, undefined, `the server ended by itself: ${JSON.stringify(ended)}\n${log}`);
  };
  return server.ready(
    () =>
      new Promise((resolve, reject) => {
        const probe = connect(port, '127.0.0.1', () => resolve(probe.destroy()));
        probe.once('error', reject);
      }),
  );
}
