// Promise: sessions that were begun and abandoned are gone by their deadline, and so is their memory.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { join } from '../support/clients.mjs';
import { request } from '../support/http.mjs';
import { RawSocket, openEngine } from '../support/raw.mjs';
import { startService } from '../support/server.mjs';
import { ask, eventually, time } from '../support/wait.mjs';

const HANDSHAKES = 10_000;
const IN_PARALLEL = 32;
/** Longer than those who mean it need on a machine that stands still for a while. */
const CONNECT_TIMEOUT_MS = 3000;
const UPGRADE_TIMEOUT_MS = 2000;
/** How late a timer may be on a busy machine. */
const LATENESS_MS = 5000;
/** What the allocator may keep beyond what the first wave left. */
const SLACK = { factor: 1.2, bytes: 4 << 20 };

let service;
before(async () => {
  service = await startService({
    CONNECT_TIMEOUT_MS: String(CONNECT_TIMEOUT_MS),
    UPGRADE_TIMEOUT_MS: String(UPGRADE_TIMEOUT_MS),
  });
});
after(() => service.stop());

const gone = async () => {
  const metrics = await service.metrics();
  assert.deepEqual([metrics.sessions(), metrics.rooms()], [0, 0]);
};

/** Handshakes that nobody follows up; answers the most sessions that were seen alive at a time. */
async function abandon() {
  let left = HANDSHAKES;
  let most = 0;
  const worker = async () => {
    while (left-- > 0) {
      const { status, text } = await request(`${service.url}/socket.io/?EIO=4&transport=polling`);
      assert.equal(status, 200, text);
      if (left % 500 === 0) most = Math.max(most, (await service.metrics()).sessions());
    }
  };
  await Promise.all(Array.from({ length: IN_PARALLEL }, worker));
  return most;
}

test(
  `${HANDSHAKES} abandoned handshakes are gone by their deadline, memory included`,
  { timeout: 120_000 },
  async (t) => {
    const idle = service.residentBytes();
    assert.ok((await abandon()) > 100, 'the sessions were there');
    await eventually(gone, CONNECT_TIMEOUT_MS + LATENESS_MS);
    const afterFirst = service.residentBytes();
    for (let wave = 0; wave < 2; wave++) {
      await abandon();
      await eventually(gone, CONNECT_TIMEOUT_MS + LATENESS_MS);
    }
    const afterLast = service.residentBytes();
    const mib = (bytes) => (bytes / (1 << 20)).toFixed(1);
    t.diagnostic(`resident MiB: ${mib(idle)} idle, ${mib(afterFirst)} after one wave, ${mib(afterLast)} after three`);
    assert.ok(
      afterLast <= afterFirst * SLACK.factor + SLACK.bytes,
      `${mib(afterFirst)} MiB after the first wave, ${mib(afterLast)} after the third`,
    );
  },
);

test('a WebSocket that never sends a CONNECT is closed', async (t) => {
  const started = performance.now();
  const socket = await openEngine(t, service.url, '/socket.io/');
  await socket.closed();
  const took = performance.now() - started;
  assert.ok(took > CONNECT_TIMEOUT_MS * 0.8 && took < CONNECT_TIMEOUT_MS + LATENESS_MS, `${took} ms`);
  await eventually(gone);
});

test('a client that did connect is not', async (t) => {
  const socket = await join(t, service.url, { transport: 'upgrade' });
  await time(CONNECT_TIMEOUT_MS + UPGRADE_TIMEOUT_MS + 500);
  assert.deepEqual(await ask(socket, 'message', 'x'), { ok: true });
});

test('an upgrade that is never finished ends, its session goes on by polling', async (t) => {
  const socket = await join(t, service.url, { transport: 'polling' });
  const url = `${service.url}/socket.io/?EIO=4&transport=websocket&sid=${socket.io.engine.id}`;
  const stuck = await RawSocket.open(t, url);
  stuck.send('2probe');
  await stuck.expect('3probe');
  const traffic = setInterval(() => socket.emit('message', 'x'), 100);
  t.after(() => clearInterval(traffic));
  await stuck.closed();
  assert.deepEqual(await ask(socket, 'message', 'after'), { ok: true });
});

test('an abandoned upgrade socket without a probe ends too', async (t) => {
  const socket = await join(t, service.url, { transport: 'polling' });
  const url = `${service.url}/socket.io/?EIO=4&transport=websocket&sid=${socket.io.engine.id}`;
  const stuck = await RawSocket.open(t, url);
  await stuck.closed();
  assert.deepEqual(await ask(socket, 'message', 'after'), { ok: true });
});
