// Promise: Socket.IO v5, how namespaces are entered and left.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Polling, RawSocket, openEngine, openSocketIo } from '../support/raw.mjs';
import { nextPacket } from '../support/socketio.mjs';
import { PING_INTERVAL_MS, PING_TIMEOUT_MS, startConformance } from '../support/server.mjs';
import { time } from '../support/wait.mjs';

const PATH = '/socket.io/';
/** Longer than any test here needs to send its CONNECT, short enough to wait for. */
const CONNECT_TIMEOUT_MS = 2000;

let server;
before(async () => (server = await startConformance('socketio', '--connect-timeout-ms', CONNECT_TIMEOUT_MS)));
after(() => server.stop());

const engine = (t, options) => openEngine(t, server.url, PATH, options);
const connected = (t) => openSocketIo(t, server.url);

/** The answer to a CONNECT and the `auth` event behind it. */
async function assertConnected(socket, namespace, auth = {}) {
  const answer = await nextPacket(socket);
  assert.deepEqual([answer.type, answer.namespace, Object.keys(answer.data)], [0, namespace, ['sid']]);
  assert.equal(typeof answer.data.sid, 'string');
  assert.deepEqual(await nextPacket(socket), { type: 2, namespace, id: undefined, data: ['auth', auth] });
  return answer.data.sid;
}

async function assertAlive(socket) {
  socket.send('42["message","alive"]');
  assert.deepEqual((await nextPacket(socket)).data, ['message-back', 'alive']);
}

test('socket.io v5 § Connection to a namespace: the main one', async (t) => {
  const socket = await engine(t);
  socket.send('40');
  await assertConnected(socket, '/');
  await assertAlive(socket);
});

test('socket.io v5 § Connection to a namespace: with a payload', async (t) => {
  const socket = await engine(t);
  socket.send('40{"token":"123","deep":{"é":[1,null]}}');
  await assertConnected(socket, '/', { token: '123', deep: { é: [1, null] } });
});

test('socket.io v5 § Connection to a namespace: an empty payload', async (t) => {
  const socket = await engine(t);
  socket.send('40{}');
  await assertConnected(socket, '/');
});

for (const [form, packet, auth] of [
  ['with its comma', '40/custom,', {}],
  ['without a comma', '40/custom', {}],
  ['with a payload', '40/custom,{"token":"abc"}', { token: 'abc' }],
]) {
  test(`socket.io v5 § Connection to a namespace: a custom one ${form}`, async (t) => {
    const socket = await engine(t);
    socket.send(packet);
    await assertConnected(socket, '/custom', auth);
  });
}

test('socket.io v5 § Connection to a namespace: the main one by its name', async (t) => {
  const socket = await engine(t);
  socket.send('40/,');
  await assertConnected(socket, '/');
});

test('socket.io v5 § Connection to a namespace: several on one connection, each under its own id', async (t) => {
  const socket = await engine(t);
  socket.send('40');
  const main = await assertConnected(socket, '/');
  socket.send('40/custom,');
  const custom = await assertConnected(socket, '/custom');
  assert.equal(new Set([main, custom, socket.handshake.sid]).size, 3);
  await assertAlive(socket);
});

test('socket.io v5 § Connection to a namespace: by polling', async () => {
  const session = await Polling.open(server.url, PATH);
  await session.send('40{"token":"1"}');
  const [connect, auth] = await session.receive(2);
  assert.match(connect, /^40\{"sid":"[^"]+"\}$/);
  assert.equal(auth, '42["auth",{"token":"1"}]');
});

for (const name of ['/random', '/Custom', '/custom/', '/custom?x=1', '/' + 'x'.repeat(200), '/é', '/__proto__']) {
  test(`socket.io v5 § Connection to a namespace: ${name.slice(0, 20)} is not one, CONNECT_ERROR, the connection stays`, async (t) => {
    const socket = await engine(t);
    socket.send(`40${name},`);
    await socket.expect(`44${name},{"message":"Invalid namespace"}`);
    socket.send('40');
    await assertConnected(socket, '/');
  });
}

test('socket.io v5 § Connection to a namespace: an unknown one without a comma', async (t) => {
  const socket = await engine(t);
  socket.send('40/random');
  await socket.expect('44/random,{"message":"Invalid namespace"}');
});

for (const packet of [
  '42["message","x"]',
  '431[]',
  '41',
  '44{"message":"x"}',
  '42/custom,["x"]',
  '451-["message",{"_placeholder":true,"num":0}]',
  '4abc',
]) {
  test(`socket.io v5 § Connection to a namespace: ${packet} before a CONNECT closes the connection`, async (t) => {
    const socket = await engine(t);
    socket.send(packet);
    if (packet.startsWith('45')) socket.send(Buffer.from([1]));
    await socket.closed();
  });
}

for (const packet of ['40[]', '40"text"', '40null', '40{', '40{}x', '40true', '40/custom,[1]']) {
  test(`socket.io v5 § Connection to a namespace: ${packet} has no object for a payload and closes the connection`, async (t) => {
    const socket = await engine(t);
    socket.send(packet);
    await socket.closed();
  });
}

test('socket.io v5 § Connection to a namespace: a second CONNECT to one that is joined closes the connection', async (t) => {
  const socket = await connected(t);
  socket.send('40');
  await socket.closed();
});

test('socket.io v5 § Connection to a namespace: an event for one that is not joined closes the connection', async (t) => {
  const socket = await connected(t);
  socket.send('42/custom,["message","x"]');
  await socket.closed();
});

test('socket.io v5 § Connection to a namespace: without a CONNECT in time the connection is closed', async (t) => {
  const started = performance.now();
  const sockets = [await engine(t), await engine(t)];
  // A refused CONNECT is none.
  sockets[1].send('40/random,');
  await sockets[1].next();
  for (const socket of sockets) await socket.closed();
  const took = performance.now() - started;
  assert.ok(took > CONNECT_TIMEOUT_MS - 100 && took < CONNECT_TIMEOUT_MS + 3000, `${took} ms`);
});

test('socket.io v5 § Connection to a namespace: without a CONNECT in time a polling session is gone', async () => {
  const session = await Polling.open(server.url, PATH);
  const started = performance.now();
  for (;;) {
    const answer = await session.get();
    if (answer.text === '2') await session.send('3');
    else break;
    assert.ok(performance.now() - started < CONNECT_TIMEOUT_MS + 3000, 'still there');
  }
  await session.assertGone('no CONNECT');
});

test('socket.io v5 § Connection to a namespace: who connected in time stays', async (t) => {
  const sockets = [await connected(t), await engine(t), await connected(t)];
  sockets[1].send('40/custom,');
  await assertConnected(sockets[1], '/custom');
  sockets[2].send('41');
  await time(CONNECT_TIMEOUT_MS + 500);
  await assertAlive(sockets[0]);
  for (const socket of sockets.slice(1)) {
    socket.send('40');
    await assertConnected(socket, '/');
  }
});

test('socket.io v5 § Disconnection from a namespace: gets no answer, the connection stays', async (t) => {
  const socket = await openSocketIo(t, server.url, { pong: false });
  socket.send('41');
  // The next thing is a heartbeat.
  await socket.expect('2');
  socket.send('3');
  await time(PING_INTERVAL_MS / 2);
  await socket.expect('2');
});

test('socket.io v5 § Disconnection from a namespace: then it can be entered again under another id', async (t) => {
  const socket = await connected(t);
  socket.send('41', '40');
  assert.notEqual(await assertConnected(socket, '/'), socket.id);
  await assertAlive(socket);
});

for (const packet of ['41/custom,', '41/custom']) {
  test(`socket.io v5 § Disconnection from a namespace: ${packet} leaves the main one alone`, async (t) => {
    const socket = await connected(t);
    socket.send('40/custom,');
    await assertConnected(socket, '/custom');
    socket.send(packet);
    await assertAlive(socket);
    socket.send('40/custom,');
    await assertConnected(socket, '/custom');
  });
}

test('socket.io v5 § Disconnection from a namespace: after it, an event for it closes the connection', async (t) => {
  const socket = await connected(t);
  socket.send('41', '42["message","late"]');
  await socket.closed();
});

test('socket.io v5 § Disconnection from a namespace: answers on their way to it are not sent', async (t) => {
  const socket = await connected(t);
  socket.send('42["emit-with-ack","x"]');
  const { id } = await nextPacket(socket);
  socket.send('41', '40');
  await assertConnected(socket, '/');
  // Its ack was asked of the socket before; this one never was.
  socket.send(`43${id}["late"]`);
  await assertAlive(socket);
});

test('socket.io v5 § Difference between v5 and v4: no namespace is entered by itself', async (t) => {
  const socket = await engine(t, { pong: false });
  await socket.expect('2');
  socket.send('3', '40/custom,');
  await assertConnected(socket, '/custom');
  socket.send('42["message","main"]');
  await socket.closed();
});

test('socket.io v5 § Difference between v5 and v4: the socket id is not the session id, CONNECT_ERROR is an object', async (t) => {
  const socket = await connected(t);
  assert.notEqual(socket.id, socket.handshake.sid);
  socket.send('40/random,');
  assert.deepEqual((await nextPacket(socket)).data, { message: 'Invalid namespace' });
});

test('socket.io v5 § Sample session', async (t) => {
  const session = await Polling.open(server.url, PATH, '&t=N8hyd6w');
  await session.send('40');
  const [connect, auth] = await session.receive(2);
  assert.match(connect, /^40\{"sid"/);
  assert.equal(auth, '42["auth",{}]');
  await session.send('42["message","hello"]', '42["message","world"]');
  assert.deepEqual(await session.receive(2), ['42["message-back","hello"]', '42["message-back","world"]']);
  const socket = await openUpgrade(t, session);
  socket.send('42["message","hello"]', '42["message","world"]', '40/custom,');
  await socket.expect('42["message-back","hello"]', '42["message-back","world"]');
  await assertConnected(socket, '/custom');
  socket.send('451-1["message-with-ack",{"_placeholder":true,"num":0}]', Buffer.from([1, 2, 3]));
  await socket.expect('461-1[{"_placeholder":true,"num":0}]', Buffer.from([1, 2, 3]));
  await time(PING_INTERVAL_MS + PING_TIMEOUT_MS);
  await assertAlive(socket);
  socket.send('1');
  await socket.closed();
});

async function openUpgrade(t, session) {
  const socket = await RawSocket.open(t, session.webSocketUrl);
  socket.send('2probe');
  await socket.expect('3probe');
  socket.send('5');
  return socket;
}
