// Promise: Engine.IO v4, silent clients are found out, living ones are not cut. Time itself is the subject here.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Polling, openEngine } from '../support/raw.mjs';
import { PING_INTERVAL_MS, PING_TIMEOUT_MS, startConformance } from '../support/server.mjs';
import { eventually, time } from '../support/wait.mjs';

const PATH = '/engine.io/';
const SILENCE_MS = PING_INTERVAL_MS + PING_TIMEOUT_MS;
/** How late anything may be on a busy machine; how early a timer may seem to be. */
const LATE_MS = 1500;
const EARLY_MS = 20;

let server;
before(async () => (server = await startConformance('engineio')));
after(() => server.stop());

function assertTook(started, ms, what) {
  const took = performance.now() - started;
  assert.ok(took >= ms - EARLY_MS && took < ms + LATE_MS, `${what} after ${Math.round(took)} ms, expected ${ms}`);
}

test('engine.io v4 § Heartbeat: by polling, a ping comes every interval and is answered by a POST', async () => {
  // Measured from before what the interval begins with: nobody knows how late its answer comes.
  let started = performance.now();
  const session = await Polling.open(server.url, PATH);
  for (let round = 0; round < 3; round++) {
    assert.equal((await session.get()).text, '2');
    assertTook(started, PING_INTERVAL_MS, 'the ping');
    started = performance.now();
    await session.send('3');
  }
});

test('engine.io v4 § Heartbeat: by WebSocket, a ping comes every interval', async (t) => {
  let started = performance.now();
  const socket = await openEngine(t, server.url, PATH, { pong: false });
  for (let round = 0; round < 3; round++) {
    await socket.expect('2');
    assertTook(started, PING_INTERVAL_MS, 'the ping');
    started = performance.now();
    socket.send('3');
  }
});

test('engine.io v4 § Heartbeat: the interval begins with the pong', async (t) => {
  const socket = await openEngine(t, server.url, PATH, { pong: false });
  await socket.expect('2');
  await time(PING_TIMEOUT_MS / 4);
  const started = performance.now();
  socket.send('3');
  await socket.expect('2');
  assertTook(started, PING_INTERVAL_MS, 'the next ping');
});

test('engine.io v4 § Heartbeat: by polling, a session without a pong is closed', async () => {
  const session = await Polling.open(server.url, PATH);
  await time(SILENCE_MS);
  // Its timers may be as late as anything.
  await eventually(() => session.assertGone('no pong'), LATE_MS);
});

test('engine.io v4 § Heartbeat: a parked GET of a session without a pong is let go', async () => {
  const started = performance.now();
  const session = await Polling.open(server.url, PATH);
  assert.equal((await session.get()).text, '2');
  const answer = await session.get();
  assertTook(started, SILENCE_MS, 'the end');
  assert.deepEqual([answer.status, answer.text], [200, '1']);
  await session.assertGone('no pong');
});

test('engine.io v4 § Heartbeat: by WebSocket, a session without a pong is closed', async (t) => {
  const started = performance.now();
  const socket = await openEngine(t, server.url, PATH, { pong: false });
  await socket.expect('2');
  await socket.closed();
  assertTook(started, SILENCE_MS, 'the end');
});

test('engine.io v4 § Heartbeat: other traffic does not stand for a pong', async (t) => {
  const started = performance.now();
  const socket = await openEngine(t, server.url, PATH, { pong: false });
  const traffic = setInterval(() => socket.ws.readyState === 1 && socket.send('4alive'), 20);
  t.after(() => clearInterval(traffic));
  await socket.ended;
  assertTook(started, SILENCE_MS, 'the end');
});

test('engine.io v4 § Heartbeat: pongs keep a quiet session for many intervals', async (t) => {
  const [session, socket] = [await Polling.open(server.url, PATH), await openEngine(t, server.url, PATH)];
  const end = performance.now() + 5 * SILENCE_MS;
  while (performance.now() < end) {
    assert.equal((await session.get()).text, '2');
    await session.send('3');
  }
  await session.send('4x');
  assert.deepEqual(await session.receive(1), ['4x']);
  socket.send('4y');
  await socket.expect('4y');
});

test('engine.io v4 § Heartbeat: a ping from a client, which was version 3, closes the session', async (t) => {
  const session = await Polling.open(server.url, PATH);
  await session.post('2');
  await eventually(() => session.assertGone('it pinged'));
  const socket = await openEngine(t, server.url, PATH);
  socket.send('2');
  await socket.closed();
});
