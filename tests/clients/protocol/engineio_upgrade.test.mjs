// Promise: Engine.IO v4, the change from polling to WebSocket, in whatever order its steps meet.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Polling, RawSocket, SEPARATOR } from '../support/raw.mjs';
import { PING_INTERVAL_MS, PING_TIMEOUT_MS, WITHOUT_PINGS, startConformance } from '../support/server.mjs';
import { eventually, time, within } from '../support/wait.mjs';

const PATH = '/engine.io/';
let server;
before(async () => (server = await startConformance('engineio', ...WITHOUT_PINGS)));
after(() => server.stop());

const open = () => Polling.open(server.url, PATH);
const second = (t, session, options) => RawSocket.open(t, session.webSocketUrl, options);

/** A socket that has been probed and awaits the upgrade packet. */
async function probed(t, session, options) {
  const socket = await second(t, session, options);
  socket.send('2probe');
  await socket.expect('3probe');
  return socket;
}

/** A GET that must be answered with a noop. */
async function assertNoop(session) {
  const answer = await session.get();
  assert.deepEqual([answer.status, answer.text], [200, '6']);
}

async function assertUpgraded(session, socket) {
  socket.send('4hello', Buffer.from([1]));
  await socket.expect('4hello', Buffer.from([1]));
  const answer = await session.get();
  assert.deepEqual([answer.status, answer.json().code], [400, 3]);
  socket.send('4unharmed');
  await socket.expect('4unharmed');
}

async function assertStillPolling(session) {
  await session.send('4polling');
  assert.deepEqual(await session.receive(1), ['4polling']);
}

test('engine.io v4 § Upgrade: probe, noop to the parked GET, upgrade packet', async (t) => {
  const session = await open();
  const get = await session.park();
  const socket = await probed(t, session);
  assert.equal((await get.response).text, '6');
  socket.send('5');
  await assertUpgraded(session, socket);
});

test('engine.io v4 § Upgrade: with no GET parked', async (t) => {
  const session = await open();
  const socket = await probed(t, session);
  socket.send('5');
  await assertUpgraded(session, socket);
});

test('engine.io v4 § Upgrade: every GET between the probe and the upgrade packet gets a noop', async (t) => {
  const session = await open();
  const socket = await probed(t, session);
  for (let n = 0; n < 5; n++) await assertNoop(session);
  socket.send('5');
  await assertUpgraded(session, socket);
});

test('engine.io v4 § Upgrade: every GET between the opening of the WebSocket and the probe gets a noop', async (t) => {
  const session = await open();
  const socket = await second(t, session);
  for (let n = 0; n < 5; n++) await assertNoop(session);
  socket.send('2probe');
  await socket.expect('3probe');
  socket.send('5');
  await assertUpgraded(session, socket);
});

test('engine.io v4 § Upgrade: a client need not wait for any answer', async (t) => {
  const session = await open();
  const socket = await second(t, session);
  socket.send('2probe', '5', '4hello', '4again');
  await socket.expect('3probe', '4hello', '4again');
  await assertUpgraded(session, socket);
});

test('engine.io v4 § Upgrade: a GET still parked at the upgrade packet is let go with a noop', async (t) => {
  const session = await open();
  const socket = await second(t, session);
  const get = await session.park();
  socket.send('2probe', '5');
  await socket.expect('3probe');
  const answer = await get.response;
  assert.deepEqual([answer.status, answer.text], [200, '6']);
  await assertUpgraded(session, socket);
});

test('engine.io v4 § Upgrade: what was queued before comes over the WebSocket after it, in order, once', async (t) => {
  const session = await open();
  await session.send('4a', 'bAQI=', '4c');
  const socket = await second(t, session);
  socket.send('2probe', '5');
  await socket.expect('3probe', '4a', Buffer.from([1, 2]), '4c');
  await assertUpgraded(session, socket);
});

test('engine.io v4 § Upgrade: POSTs during it are handled before what comes over the WebSocket', async (t) => {
  const session = await open();
  const socket = await probed(t, session);
  await session.send('4a', '4b');
  await session.send('4c');
  socket.send('5', '4d');
  await socket.expect('4a', '4b', '4c', '4d');
  await assertUpgraded(session, socket);
});

test('engine.io v4 § Upgrade: what GETs take during it does not come again', async (t) => {
  const session = await open();
  const socket = await probed(t, session);
  await session.send('4a', '4b');
  const taken = [];
  while (taken.length === 0) {
    const answer = await session.get();
    assert.equal(answer.status, 200);
    taken.push(...answer.text.split(SEPARATOR).filter((packet) => packet[0] === '4'));
    // A server may also answer noops only, and keep the packets for the WebSocket.
    if (answer.text === '6') break;
  }
  await session.send('4c');
  socket.send('5', '4d');
  const rest = ['4a', '4b', '4c', '4d'].slice(taken.length);
  assert.deepEqual(taken, ['4a', '4b'].slice(0, taken.length));
  await socket.expect(...rest);
  await assertUpgraded(session, socket);
});

test('engine.io v4 § Upgrade: no noop is ever sent over the WebSocket, no probe answer over polling', async (t) => {
  for (let n = 0; n < 20; n++) {
    const session = await open();
    const get = n % 2 ? await session.park() : session.startGet();
    const socket = await second(t, session);
    socket.send('2probe');
    await socket.expect('3probe');
    assert.equal((await get.response).text, '6');
    if (n % 3) await assertNoop(session);
    socket.send('5', '4end');
    await socket.expect('4end');
    socket.ws.terminate();
  }
});

test('engine.io v4 § Upgrade: after it, polling is refused and the session unharmed', async (t) => {
  const session = await open();
  const socket = await probed(t, session);
  socket.send('5', '4x');
  await socket.expect('4x');
  for (const answer of [await session.get(), await session.post('4y')]) {
    assert.deepEqual([answer.status, answer.json().code], [400, 3]);
  }
  await assertUpgraded(session, socket);
});

test('engine.io v4 § WebSocket: a second one during the upgrade is closed, the first completes it', async (t) => {
  const session = await open();
  const socket = await probed(t, session);
  const other = new RawSocket(t, session.webSocketUrl);
  await within(other.ended, 'the end of the second WebSocket');
  socket.send('5');
  await assertUpgraded(session, socket);
});

test('engine.io v4 § WebSocket: a second one after the upgrade is closed, the first goes on', async (t) => {
  const session = await open();
  const socket = await probed(t, session);
  socket.send('5', '4x');
  await socket.expect('4x');
  const other = new RawSocket(t, session.webSocketUrl);
  await within(other.ended, 'the end of the second WebSocket');
  await assertUpgraded(session, socket);
});

for (const first of ['5', '4hello', '2', '2prob', '2probe!', '3probe', '0', '1', '6', 'abc', '', Buffer.from([1])]) {
  const shown = typeof first === 'string' ? JSON.stringify(first) : 'bytes';
  test(`engine.io v4 § Upgrade: a WebSocket that begins with ${shown} is closed alone`, async (t) => {
    const session = await open();
    const socket = await second(t, session);
    socket.send(first);
    await socket.closed();
    await assertStillPolling(session);
  });
}

for (const next of ['4hello', '2probe', '3', '6', 'abc', Buffer.from([1])]) {
  const shown = typeof next === 'string' ? JSON.stringify(next) : 'bytes';
  test(`engine.io v4 § Upgrade: a WebSocket that goes on with ${shown} after the probe is closed alone`, async (t) => {
    const session = await open();
    const socket = await probed(t, session);
    socket.send(next);
    await socket.closed();
    await assertStillPolling(session);
  });
}

test('engine.io v4 § Upgrade: a WebSocket that is cut half-way leaves the session to polling, which may try again', async (t) => {
  const session = await open();
  // The server may need a moment to see the end of the last one.
  const again = () => eventually(() => probed(t, session));
  for (let n = 0; n < 3; n++) {
    const socket = await again();
    socket.ws._socket.destroy();
    await socket.ended;
    await assertStillPolling(session);
  }
  const socket = await again();
  socket.send('5');
  await assertUpgraded(session, socket);
});

test('engine.io v4 § Upgrade: a session that is closed by polling during it takes the WebSocket with it', async (t) => {
  const session = await open();
  const socket = await probed(t, session);
  await session.send('1');
  await socket.closed();
  // A GET that was on its way while the session was closed may still get the noop that a parked one would have got.
  const { status, text } = await session.get();
  if (status !== 400) assert.deepEqual([status, text], [200, '6']);
  await session.assertGone('it was closed');
});

test('engine.io v4 § Upgrade: the heartbeat goes on through it, the pong may come on either transport', async (t) => {
  const beating = await startConformance('engineio');
  t.after(() => beating.stop());
  for (const over of ['polling', 'websocket']) {
    const session = await Polling.open(beating.url, PATH);
    const socket = await second(t, session, { pong: false });
    socket.send('2probe');
    await socket.expect('3probe');
    const started = performance.now();
    let pinged = false;
    while (!pinged) {
      const { text } = await session.get();
      pinged = text.split(SEPARATOR).includes('2');
      assert.ok(performance.now() - started < 10 * PING_INTERVAL_MS, 'no ping during the upgrade');
      if (!pinged) await time(10);
    }
    if (over === 'polling') await session.send('3');
    socket.send('5');
    if (over === 'websocket') socket.send('3');
    // Past the deadline of that ping: the session lives if the pong was counted.
    await socket.expect('2');
    socket.send('3');
    await time(PING_TIMEOUT_MS + 50);
    socket.send('4alive');
    let frame = await socket.next();
    if (frame === '2') frame = await socket.next();
    assert.equal(frame, '4alive', over);
  }
});
