// Other programs on the Redis of a cluster, each a process of its own: Socket.IO servers and emitters of Node and Python.
import assert from 'node:assert/strict';
import { fork, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { open } from '../clients.mjs';
import { once, within } from '../wait.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** Answers to numbered requests. */
class Answers {
  waiting = new Map();

  add() {
    const id = this.waiting.size === 0 ? 1 : Math.max(...this.waiting.keys()) + 1;
    const answer = new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    return { id, answer };
  }

  settle({ id, value, error }) {
    const { resolve, reject } = this.waiting.get(id);
    this.waiting.delete(id);
    if (error === undefined) resolve(value);
    else reject(new Error(error));
  }
}

/** A connected client of a peer's server, in these rooms. */
async function client(t, url, rooms) {
  const socket = open(t, url);
  await once(socket, 'connect');
  for (const room of rooms) await within(new Promise((done) => socket.emit('join', room, done)), 'the ack of "join"');
  return socket;
}

/** A Socket.IO server of Node with the classic Redis adapter. */
export class NodePeer {
  static async start(redis) {
    const peer = new NodePeer();
    peer.answers = new Answers();
    peer.child = fork(here('peer_process.mjs'), [redis.url], { serialization: 'advanced' });
    peer.exited = new Promise((resolve) => peer.child.once('exit', resolve));
    process.once('exit', (peer.reap = () => peer.child.kill('SIGKILL')));
    peer.url = await within(
      new Promise((resolve) => {
        peer.child.on('message', (message) => {
          if (message.port) resolve(`http://127.0.0.1:${message.port}`);
          else peer.answers.settle(message);
        });
      }),
      'the start of a Node server',
    );
    return peer;
  }

  /** Runs `action(io, ...args)` over there; it can use nothing but its arguments. Answers its value. */
  run(action, ...args) {
    const { id, answer } = this.answers.add();
    this.child.send({ id, source: action.toString(), args });
    return within(answer, 'an answer of the Node server');
  }

  client(t, ...rooms) {
    return client(t, this.url, rooms);
  }

  /** What went wrong in the process since its start. */
  faults() {
    return this.run(() => globalThis.faults);
  }

  async stop() {
    try {
      assert.deepEqual(await this.faults(), [], 'what the Node server did not expect');
    } finally {
      this.child.kill('SIGKILL');
      await within(this.exited, 'the end of the Node server');
      process.removeListener('exit', this.reap);
    }
  }
}

/** Where tests/run.sh installs what `requirements-<name>.txt` lists. */
const python = (name) => here(`../../../../target/venv-${name}/bin/python`);

/** A Python program of interop/python, which takes commands as lines of JSON and answers them so. */
export class PythonPeer {
  /** `venv` is the name of one; `args` go to the program. Its first line says that it is ready. */
  static async start(venv, program, ...args) {
    const path = python(venv);
    assert.ok(existsSync(path), `${path} is missing: tests/run.sh installs it`);
    const peer = new PythonPeer();
    peer.answers = new Answers();
    peer.log = '';
    const file = here(`../../interop/python/${program}.py`);
    const env = { PATH: process.env.PATH, PYTHONDONTWRITEBYTECODE: '1', PYTHONUNBUFFERED: '1' };
    peer.child = spawn(path, [file, ...args], { env, stdio: ['pipe', 'pipe', 'pipe'] });
    peer.exited = new Promise((resolve) => peer.child.once('exit', resolve));
    process.once('exit', (peer.reap = () => peer.child.kill('SIGKILL')));
    peer.child.stderr.setEncoding('utf8').on('data', (text) => (peer.log = (peer.log + text).slice(-20_000)));
    const lines = createInterface({ input: peer.child.stdout });
    const ready = new Promise((resolve, reject) => {
      lines.on('line', (line) => {
        const message = JSON.parse(line);
        if (message.ready) resolve(message);
        else peer.answers.settle(message);
      });
      peer.exited.then(() => reject(new Error(`${program}.py ended:\n${peer.log}`)));
    });
    ready.catch(() => {});
    Object.assign(peer, await within(ready, `the start of ${program}.py`, 30_000));
    return peer;
  }

  /** Has a command done. What JSON has no word for is written `{$bytes: base64}` and `{$tuple: [...]}`. */
  run(name, args = {}) {
    const { id, answer } = this.answers.add();
    this.child.stdin.write(`${JSON.stringify({ id, do: name, ...args })}\n`);
    return within(answer, `an answer to "${name}" of a Python program`).catch((error) => {
      error.message += `\n${this.log}`;
      throw error;
    });
  }

  /** Of `server.py`. */
  client(t, ...rooms) {
    return client(t, this.url, rooms);
  }

  async stop() {
    this.child.kill('SIGKILL');
    await within(this.exited, 'the end of a Python program');
    process.removeListener('exit', this.reap);
  }
}

/** The bytes, as `PythonPeer.run` takes them. */
export const bytes = (...list) => ({ $bytes: Buffer.from(list).toString('base64') });
/** A tuple, as `PythonPeer.run` takes it. */
export const tuple = (...items) => ({ $tuple: items });

/** The answer of `socket` to one event, sent back by its ack. */
export const answering = (socket, event, value) => socket.on(event, (...args) => args.at(-1)(value));
