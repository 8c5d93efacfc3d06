// A Redis of its own for a test file: on a free port of the loopback, keeping nothing, ended by its own pid.
import { spawn } from 'node:child_process';
import { once as happens } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { createClient } from 'redis';

import { freePort } from '../server.mjs';
import { eventually, within } from '../wait.mjs';

class Redis {
  constructor(port) {
    this.url = `redis://127.0.0.1:${port}`;
    this.directory = mkdtempSync(join(tmpdir(), 'chat-redis-'));
    this.clients = [];
    this.log = '';
    const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'];
    this.child = spawn('redis-server', [...args, '--dir', this.directory], { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (this.log = (this.log + text).slice(-10_000)));
    }
    this.exited = happens(this.child, 'exit');
    this.reap = () => this.child.kill('SIGKILL');
    process.once('exit', this.reap);
  }

  /** A connection that is closed with the server. */
  async client() {
    const client = createClient({ url: this.url, socket: { reconnectStrategy: false } });
    // Only a connection that was lost when the server ended may fail.
    client.on('error', () => {});
    await client.connect();
    this.clients.push(client);
    return client;
  }

  async stop() {
    for (const client of this.clients) if (client.isOpen) await client.disconnect();
    this.child.kill('SIGKILL');
    await within(this.exited, 'the end of redis-server');
    process.removeListener('exit', this.reap);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** A server that answers. */
export async function startRedis() {
  const redis = new Redis(await freePort());
  try {
    const client = await eventually(() => redis.client());
    await client.ping();
  } catch (error) {
    throw new Error(`redis-server does not answer: ${redis.log}`, { cause: error });
  }
  return redis;
}
