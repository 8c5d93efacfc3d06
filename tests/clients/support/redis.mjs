// A real redis-server on a free port, that a test may stop, kill, suspend and start again with what it had kept.
import { spawn } from 'node:child_process';
import { once as happens } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, statSync, truncateSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Reader, RedisError, asText, encode } from './resp.mjs';
import { freePort } from './server.mjs';
import { eventually, within } from './wait.mjs';

/** A connection of a test's own: one answer for each command, in order. */
export class RedisClient {
  waiting = [];
  /** Pub/sub messages, `[channel, payload]`. */
  messages = [];

  static async open(port) {
    const client = new RedisClient();
    client.socket = connect({ port, host: '127.0.0.1', noDelay: true });
    const reader = new Reader();
    client.socket.on('data', (chunk) => {
      for (const { value } of reader.push(chunk)) client.take(value);
    });
    client.socket.on('error', (error) => (client.error = error));
    client.socket.once('close', () => {
      client.isClosed = true;
      const error = client.error ?? new Error('the connection to Redis ended');
      for (const { reject } of client.waiting.splice(0)) reject(error);
    });
    await within(happens(client.socket, 'connect'), `Redis at ${port}`);
    return client;
  }

  take(value) {
    if (Array.isArray(value) && Buffer.isBuffer(value[0]) && value[0].equals(Buffer.from('message'))) {
      this.messages.push([asText(value[1]), value[2]]);
      return;
    }
    const { resolve, reject } = this.waiting.shift() ?? {};
    if (value instanceof RedisError) reject?.(value);
    else resolve?.(asText(value));
  }

  command(...args) {
    if (this.isClosed) return Promise.reject(this.error ?? new Error('the connection to Redis ended'));
    const answer = new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
    this.socket.write(encode(args));
    return within(answer, `Redis' answer to ${String(args[0])}`);
  }

  close() {
    this.socket.destroy();
  }
}

export class Redis {
  /**
   * `aof`: `always` or `everysec`, else nothing is kept. `replicaOf`: the port of a master. `config`: further settings of
   * redis.conf, `{ 'maxmemory-policy': 'noeviction' }`.
   */
  static async start({ port, aof, replicaOf, config = {} } = {}) {
    const redis = new Redis();
    redis.port = port ?? (await freePort());
    redis.dir = mkdtempSync(join(tmpdir(), 'chat-redis-'));
    redis.settings = {
      port: redis.port,
      bind: '127.0.0.1',
      dir: redis.dir,
      save: '',
      'repl-diskless-sync-delay': 0,
      appendonly: aof ? 'yes' : 'no',
      ...(aof && { appendfsync: aof }),
      ...(replicaOf && { replicaof: `127.0.0.1 ${replicaOf}` }),
      ...config,
    };
    process.once('exit', redis.reap);
    try {
      return await redis.start();
    } catch (error) {
      await redis.remove();
      throw error;
    }
  }

  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }

  get isRunning() {
    return this.child !== undefined && this.ended === undefined;
  }

  reap = () => {
    if (this.isRunning) this.child.kill('SIGKILL');
    rmSync(this.dir, { recursive: true, force: true });
  };

  /** Starts it, or starts it again with what it had kept; ready for commands. */
  async start() {
    const args = Object.entries(this.settings).flatMap(([name, value]) => [`--${name}`, ...words(name, value)]);
    this.ended = undefined;
    this.log = '';
    const child = spawn('redis-server', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.child = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (this.log = (this.log + text).slice(-10_000)));
    }
    this.exited = new Promise((resolve) => {
      child.once('exit', (code, signal) => resolve((this.ended = { code, signal })));
      child.once('error', (error) => resolve((this.ended = { error })));
    });
    const gone = this.exited.then((ended) => {
      throw new Error(`redis-server ended at its start: ${JSON.stringify(ended)} ${ended.error ?? ''}\n${this.log}`);
    });
    gone.catch(() => {});
    await Promise.race([gone, eventually(() => this.command('PING'))]);
    return this;
  }

  /** Its connection for commands is opened when it is needed. */
  async command(...args) {
    if (!this.client || this.client.isClosed) {
      this.client = undefined;
      const opening = await RedisClient.open(this.port);
      if (this.client) opening.close();
      else this.client = opening;
    }
    return this.client.command(...args);
  }

  connect() {
    return RedisClient.open(this.port);
  }

  /** `INFO` of a section, `{ name: text }`. */
  async info(section) {
    const lines = (await this.command('INFO', section)).split('\r\n').filter((line) => /^\w+:/.test(line));
    return Object.fromEntries(
      lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]),
    );
  }

  /** Connections of others, each `{ id, name, cmd, sub, … }`; `kind` is `normal`, `pubsub` or `replica`. */
  async clients(kind) {
    const own = String(await this.command('CLIENT', 'ID'));
    const lines = (await this.command('CLIENT', 'LIST', 'TYPE', kind)).split('\n').filter(Boolean);
    const all = lines.map((line) => Object.fromEntries(line.split(' ').map((pair) => pair.split(/=(.*)/s))));
    return all.filter(({ id }) => id !== own);
  }

  /** A replica that follows its master and has all of it. */
  async isSynced() {
    const { master_link_status, master_sync_in_progress } = await this.info('replication');
    return master_link_status === 'up' && master_sync_in_progress === '0';
  }

  /** Ends it in good order, with everything kept that is to be kept. */
  async stop() {
    await this.end('SIGTERM');
  }

  async kill() {
    await this.end('SIGKILL');
  }

  async end(signal) {
    this.client?.close();
    if (this.isRunning) this.child.kill(signal);
    await within(this.exited, 'the end of redis-server');
  }

  /**
   * How long the AOF is now. The function that it returns cuts off what came after, as a power cut does with what was
   * not flushed yet; to be called when the server has ended.
   */
  markAof() {
    const dir = join(this.dir, 'appendonlydir');
    const lengths = readdirSync(dir).map((name) => [join(dir, name), statSync(join(dir, name)).size]);
    return () => {
      for (const [path, bytes] of lengths) if (statSync(path).size > bytes) truncateSync(path, bytes);
    };
  }

  suspend() {
    this.child.kill('SIGSTOP');
  }

  resume() {
    this.child.kill('SIGCONT');
  }

  /** Ends it, and takes its files away. */
  async remove() {
    if (this.isRunning) await this.kill();
    process.removeListener('exit', this.reap);
    this.reap();
  }
}

/** `replicaof` and such take several words, where quotes would make one of them. */
const words = (name, value) => (name === 'replicaof' ? value.split(' ') : [String(value)]);
