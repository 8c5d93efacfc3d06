// Promise: on SIGTERM the service tells its clients, lets go of them one by one so that they come back, and ends in time.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { RELEASES, TRANSPORTS, join } from '../support/clients.mjs';
import { handshake } from '../support/http.mjs';
import { openSocketIo } from '../support/raw.mjs';
import { startService } from '../support/server.mjs';
import { ask, once, record, within } from '../support/wait.mjs';

const READY = '/api/v1/chat/ready';
const POLLING = '/socket.io/?EIO=4&transport=polling';

/** For looking at a drain that does not end while one looks: one of ten clients has its turn every few seconds. */
const LONG = { DRAIN_SPREAD: '60s', DRAIN_TIMEOUT: '120s' };
const CLIENTS = 10;

async function startFor(t, settings) {
  const service = await startService(settings);
  t.after(() => service.kill());
  return service;
}

/** Connects clients, begins the drain, and answers them with what they were told, the last to go first. */
async function drain(t, service) {
  const sockets = await Promise.all(Array.from({ length: CLIENTS }, () => join(t, service.url)));
  for (const socket of sockets) await ask(socket, 'join_room', 'm');
  const told = sockets.map((socket) => once(socket, 'server_draining'));
  service.signal('SIGTERM');
  const events = (await Promise.all(told)).map(([event], n) => ({ socket: sockets[n], ...event }));
  return events.sort((a, b) => b.reconnect_after_ms - a.reconnect_after_ms);
}

test('clients are told, closed so that they reconnect, and the exit code is 0', async (t) => {
  const service = await startFor(t, { DRAIN_SPREAD: '2s', DRAIN_TIMEOUT: '10s' });
  const clients = [];
  for (const release of Object.keys(RELEASES)) {
    for (const transport of Object.keys(TRANSPORTS)) {
      for (let n = 0; n < 2; n++) {
        const socket = await join(t, service.url, { release, transport, reconnection: true, reconnectionDelay: 10 });
        clients.push({
          socket,
          told: once(socket, 'server_draining'),
          left: once(socket, 'disconnect'),
          returns: once(socket.io, 'reconnect_attempt'),
        });
      }
    }
  }
  const started = performance.now();
  service.signal('SIGTERM');

  const told = (await Promise.all(clients.map((client) => client.told))).map(([event]) => event);
  for (const { reconnect_after_ms, deadline_ms } of told) {
    assert.ok(
      Number.isInteger(reconnect_after_ms) && reconnect_after_ms >= 0,
      `reconnect_after_ms ${reconnect_after_ms}`,
    );
    assert.ok(Number.isInteger(deadline_ms) && deadline_ms > 0, `deadline_ms ${deadline_ms}`);
  }
  assert.ok(new Set(told.map((event) => event.reconnect_after_ms)).size > 1, 'all are told to come back at once');

  for (const [index, { left, returns }] of clients.entries()) {
    const [reason] = await left;
    assert.equal(reason, 'transport close', `client ${index}`);
    await returns;
  }
  for (const { socket } of clients) socket.disconnect();
  assert.deepEqual(await within(service.exited, 'the end of the service'), { code: 0, signal: null });
  assert.ok(performance.now() - started < 10_000, 'within DRAIN_TIMEOUT');
});

test('while it drains it is not ready, lets nobody in, and is still alive', async (t) => {
  const service = await startFor(t, LONG);
  const ready = await service.get(READY);
  assert.deepEqual([ready.status, ready.json().status], [200, 'ready']);
  await drain(t, service);

  const drained = await service.get(READY);
  assert.deepEqual([drained.status, drained.json().status], [503, 'draining']);
  assert.equal((await service.health()).status, 200);
  for (const refused of [
    await service.get(POLLING),
    await handshake(`${service.url}/socket.io/?EIO=4&transport=websocket`),
  ]) {
    assert.equal(refused.status, 503);
    assert.match(refused.headers['retry-after'] ?? '', /^\d+$/, 'Retry-After');
  }
});

test('who is still connected is served until its turn', async (t) => {
  const [last, second] = await drain(t, await startFor(t, LONG));
  const heard = [last, second].map(({ socket }) => record(socket, 'chat_message'));
  const acks = Array.from({ length: 50 }, (_, n) =>
    ask(last.socket, 'chat_message', { meeting_id: 'm', text: `${n}` }),
  );
  for (const ack of await Promise.all(acks)) assert.equal(ack.ok, true, JSON.stringify(ack));
  for (const { count } of heard) await count(50);
});

test('what was acknowledged is answered before the transport is closed', async (t) => {
  const service = await startFor(t, { DRAIN_SPREAD: '1s', DRAIN_TIMEOUT: '10s' });
  const socket = await join(t, service.url);
  await ask(socket, 'join_room', 'm');
  const events = [];
  const left = once(socket, 'disconnect').then(() => events.push('disconnect'));
  const acks = Array.from({ length: 50 }, (_, n) =>
    ask(socket, 'chat_message', { meeting_id: 'm', text: `${n}` }).then(() => events.push('ack')),
  );
  // The first answer shows that the server has begun to read them.
  await acks[0];
  service.signal('SIGTERM');
  await Promise.all([...acks, left]);
  assert.deepEqual(events.slice(-2), ['ack', 'disconnect']);
});

test('with nobody connected it ends at once', async (t) => {
  const service = await startFor(t, LONG);
  service.signal('SIGTERM');
  assert.deepEqual(await within(service.exited, 'the end of the service', 5000), { code: 0, signal: null });
});

test('a client that neither reads nor closes does not hold it beyond DRAIN_TIMEOUT', async (t) => {
  const service = await startFor(t, { DRAIN_SPREAD: '300ms', DRAIN_TIMEOUT: '1500ms' });
  const stuck = await openSocketIo(t, service.url);
  // From here on it answers no close frame and does not notice the end of the stream.
  stuck.ws.pause();
  const socket = await join(t, service.url);
  const left = once(socket, 'disconnect');
  service.signal('SIGTERM');
  assert.deepEqual(await within(service.exited, 'the end of the service', 6000), { code: 0, signal: null });
  assert.equal((await left)[0], 'transport close');
});

test('a second SIGTERM ends it at once', async (t) => {
  const service = await startFor(t, LONG);
  await drain(t, service);
  service.signal('SIGTERM');
  await within(service.exited, 'the end of the service', 5000);
});
