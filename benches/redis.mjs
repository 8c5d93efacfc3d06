// What Redis costs: round trips, batches, latency, memory, and who is busy first. See benches/README.md.
//
//   node benches/redis.mjs [calls|latency|joins|idle|load]...
//
// Needs redis-server, the release binary (or CHAT_SERVICE_BIN), and tests/clients/node_modules (tests/run.sh clients).
import { spawn, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

const here = new URL('.', import.meta.url).pathname;
const { io } = await import(join(here, '../tests/clients/node_modules/client-4.8/build/esm/index.js'));
const { WebSocket } = await import(join(here, '../tests/clients/node_modules/ws/wrapper.mjs'));
const binary = process.env.CHAT_SERVICE_BIN ?? join(here, '../target/release/chat-service');
const children = [];
const dir = mkdtempSync(join(tmpdir(), 'chat-bench-'));
process.once('exit', () => {
  children.forEach((child) => child.kill('SIGKILL'));
  rmSync(dir, { recursive: true, force: true });
});

async function freePort() {
  const listener = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address();
  listener.close();
  return port;
}

async function until(check) {
  for (let tries = 0; tries < 400; tries++) {
    if (await check().catch(() => false)) return;
    await pause(25);
  }
  throw new Error('it does not become ready');
}

async function startRedis() {
  const port = await freePort();
  const child = spawn('redis-server', ['--port', port, '--bind', '127.0.0.1', '--save', '', '--dir', dir].map(String), { stdio: 'ignore' });
  children.push(child);
  const cli = (...args) => execFileSync('redis-cli', ['-p', port, ...args].map(String), { encoding: 'utf8' });
  await until(async () => cli('PING').startsWith('PONG'));
  return { url: `redis://127.0.0.1:${port}`, pid: child.pid, cli };
}

async function startService(redis) {
  const port = await freePort();
  const env = { PATH: process.env.PATH, PORT: port, RATE_LIMITS: 'off', MAX_CONNECTIONS_PER_IP: 0, LOG_LEVEL: 'error', MAX_ROOMS_PER_SOCKET: 100 };
  const child = spawn(binary, [], { env: { ...env, ...(redis && { REDIS_URL: redis.url }) }, stdio: 'ignore' });
  children.push(child);
  const url = `http://127.0.0.1:${port}`;
  await until(async () => (await fetch(`${url}/api/v1/chat/ready`)).status === 200);
  const metric = async (name) => {
    const text = await (await fetch(`${url}/metrics`)).text();
    return Number(text.split('\n').find((line) => line.startsWith(`${name} `))?.split(' ')[1] ?? 0);
  };
  return { url, pid: child.pid, metric };
}

async function client(service, ...meetings) {
  const socket = io(service.url, { transports: ['websocket'], forceNew: true });
  await once(socket, 'ready');
  for (const meeting_id of meetings) await socket.emitWithAck('join_room', { meeting_id });
  return socket;
}

const cpuMs = (pid) => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
};
const rss = (pid) => Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * 4096;
const calls = (redis, command) => Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(redis.cli('INFO', 'commandstats'))?.[1] ?? 0);
const percentile = (values, share) => values.sort((a, b) => a - b)[Math.floor((values.length - 1) * share)];
const show = (name, value) => console.log(`${name.padEnd(64)} ${value}`);

const benches = {
  /** What one chat message costs Redis. */
  async calls() {
    const redis = await startRedis();
    const [a, b] = [await startService(redis), await startService(redis)];
    const [sender] = [await client(a, 'm'), await client(b, 'm')];
    await sender.emitWithAck('chat_message', { meeting_id: 'm', text: 'the script is known from here on' });
    const count = 1000;
    const before = ['evalsha', 'eval', 'publish'].map((command) => calls(redis, command));
    for (let i = 0; i < count; i++) await sender.emitWithAck('chat_message', { meeting_id: 'm', text: `hello ${i}`, client_id: `c${i}` });
    const after = ['evalsha', 'eval', 'publish'].map((command) => calls(redis, command));
    const [evalsha, evals, publish] = after.map((value, i) => value - before[i]);
    show('round trips for 1 000 messages (EVALSHA + EVAL; heartbeats included)', evalsha + evals);
    show('PUBLISH for 1 000 messages', publish);
  },

  /** From emit to the arrival at another client, 1 000 messages a second. */
  async latency() {
    const measure = async (from, to, name) => {
      const meetings = Array.from({ length: 10 }, (_, i) => `m${i}`);
      const [sender, receiver] = [await client(from, ...meetings), await client(to, ...meetings)];
      const sent = new Map();
      const times = [];
      receiver.on('chat_message', (message) => {
        const at = sent.get(message.text);
        if (at !== undefined) times.push(performance.now() - at);
      });
      const started = performance.now();
      const count = 5000;
      for (let i = 0; i < count; ) {
        const due = Math.min(count, Math.floor(performance.now() - started));
        for (; i < due; i++) {
          sent.set(`${name}${i}`, performance.now());
          sender.emit('chat_message', { meeting_id: meetings[i % 10], text: `${name}${i}` });
        }
        await pause(1);
      }
      await until(async () => times.length === count);
      sender.disconnect();
      receiver.disconnect();
      show(`latency at 1 000/s, ${name}: p50, p99 (ms)`, `${percentile(times, 0.5).toFixed(2)}, ${percentile(times, 0.99).toFixed(2)}`);
      return percentile(times, 0.5);
    };
    const redis = await startRedis();
    const [alone, a, b] = [await startService(), await startService(redis), await startService(redis)];
    const local = await measure(alone, alone, 'without Redis');
    await measure(a, a, 'with Redis, same instance');
    const far = await measure(a, b, 'with Redis, other instance');
    show('other instance over Redis, above without Redis: p50 (ms)', (far - local).toFixed(2));
  },

  /** 10 000 rooms joined by 100 sockets. */
  async joins() {
    const redis = await startRedis();
    const service = await startService(redis);
    const sockets = await Promise.all(Array.from({ length: 100 }, () => client(service)));
    const before = { subscribe: calls(redis, 'subscribe'), batches: await service.metric('chat_redis_batches_total') };
    const started = performance.now();
    await Promise.all(
      sockets.flatMap((socket, s) =>
        Array.from({ length: 100 }, (_, i) => socket.timeout(60_000).emitWithAck('join_room', { meeting_id: `r${s}-${i}` }).then((ack) => {
          if (!ack.ok) throw new Error(JSON.stringify(ack));
        })),
      ),
    );
    show('10 000 joins at once: seconds', ((performance.now() - started) / 1000).toFixed(2));
    show('10 000 joins at once: SUBSCRIBE batches', calls(redis, 'subscribe') - before.subscribe);
    show('10 000 joins at once: batches of other commands', (await service.metric('chat_redis_batches_total')) - before.batches);
    const again = calls(redis, 'subscribe');
    redis.cli('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await until(async () => Number(redis.cli('PUBSUB', 'CHANNELS').split('\n').length) > 10_000);
    show('10 000 rooms listened to again after a lost connection: batches', calls(redis, 'subscribe') - again);
  },

  /** Memory of idle connections. */
  async idle() {
    const count = 4000;
    const measure = async (service) => {
      const before = rss(service.pid);
      const sockets = [];
      for (let i = 0; i < count; i += 100) {
        const opened = Array.from({ length: 100 }, () => new WebSocket(`${service.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`));
        sockets.push(...opened);
        await Promise.all(opened.map(async (socket) => {
          const ready = new Promise((resolve) => socket.on('message', (data) => String(data).startsWith('42["ready"') && resolve()));
          await once(socket, 'open');
          socket.send('40');
          await ready;
        }));
      }
      await pause(1000);
      const each = (rss(service.pid) - before) / count;
      sockets.forEach((socket) => socket.terminate());
      return each;
    };
    const redis = await startRedis();
    show('an idle connection without Redis: bytes', Math.round(await measure(await startService())));
    show('an idle connection with Redis: bytes', Math.round(await measure(await startService(redis))));
  },

  /** As much as goes: who is busy first. */
  async load() {
    const redis = await startRedis();
    const services = [await startService(redis), await startService(redis)];
    const seconds = 8;
    let acked = 0;
    let isOver = false;
    const senders = await Promise.all(Array.from({ length: 32 }, (_, i) => client(services[i % 2], `m${i % 16}`)));
    const before = [redis, ...services].map(({ pid }) => cpuMs(pid));
    const send = async (socket, i) => {
      while (!isOver) {
        const ack = await socket.emitWithAck('chat_message', { meeting_id: `m${i % 16}`, text: 'hello', client_id: crypto.randomUUID() });
        if (ack.ok) acked += 1;
      }
    };
    const sending = senders.flatMap((socket, i) => Array.from({ length: 4 }, () => send(socket, i)));
    await pause(seconds * 1000);
    isOver = true;
    await Promise.all(sending);
    const used = [redis, ...services].map(({ pid }, i) => cpuMs(pid) - before[i]);
    show('messages acked a second, 16 meetings of 2 at 2 instances', Math.round(acked / seconds));
    show('CPU per message: Redis (µs)', ((used[0] * 1000) / acked).toFixed(1));
    show('CPU per message: each instance (µs)', used.slice(1).map((ms) => ((ms * 1000) / acked).toFixed(1)).join(', '));
  },
};

const chosen = process.argv.slice(2);
for (const [name, bench] of Object.entries(benches)) if (chosen.length === 0 || chosen.includes(name)) await bench();
process.exit(0);
