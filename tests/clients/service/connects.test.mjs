// Promise: every stock client connects over every transport and is told `ready`.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { RELEASES, TRANSPORTS, join, open } from '../support/clients.mjs';
import { Polling, openEngine } from '../support/raw.mjs';
import { startService } from '../support/server.mjs';
import { ask, assertHas, once } from '../support/wait.mjs';

let service;
before(async () => (service = await startService()));
after(() => service.stop());

for (const release of Object.keys(RELEASES)) {
  for (const transport of Object.keys(TRANSPORTS)) {
    test(`socket.io-client ${release} connects by ${transport} and talks`, async (t) => {
      const socket = await join(t, service.url, { release, transport });
      const { engine } = socket.io;
      assert.equal(engine.transport.name, transport === 'polling' ? 'polling' : 'websocket');
      assert.notEqual(socket.id, engine.id, 'the secret session id is shown to others as the socket id');
      assert.deepEqual(await ask(socket, 'message', 'hello'), { ok: true });
    });
  }
}

test('ready carries the fields of the contract', async (t) => {
  const { ready, id } = await join(t, service.url);
  const { instance, name, server_time, ...rest } = ready;
  assert.deepEqual(rest, {
    user_id: id,
    sid: id,
    protocol: 1,
    exp: null,
    limits: { text: 4000, payload: 65_536, history_page: 100 },
    unread: { notifications: 0, meetings: {} },
  });
  assert.ok(typeof instance === 'string' && instance.length > 0, `instance ${instance}`);
  assert.ok(typeof name === 'string' && name.length <= 80, `name ${name}`);
  assert.ok(Math.abs(server_time - Date.now()) < 60_000, `server_time ${server_time}`);
});

test('all sockets of one server name the same instance and have their own ids', async (t) => {
  const sockets = await Promise.all([1, 2, 3].map(() => join(t, service.url)));
  assert.equal(new Set(sockets.map((socket) => socket.ready.instance)).size, 1);
  assert.equal(new Set(sockets.map((socket) => socket.id)).size, 3);
});

test('the handshake announces the limits of the contract', async () => {
  const { handshake } = await Polling.open(service.url, '/socket.io/');
  assertHas(handshake, { upgrades: ['websocket'], pingInterval: 25_000, pingTimeout: 20_000, maxPayload: 65_536 });
});

test('ready is the first event after the CONNECT answer', async (t) => {
  const socket = await openEngine(t, service.url, '/socket.io/');
  socket.send('40');
  assert.match(await socket.next(), /^40\{"sid":"[^"]+"\}$/);
  assert.match(await socket.next(), /^42\["ready",\{/);
});

test('a CONNECT payload is accepted and not needed in development', async (t) => {
  const socket = await join(t, service.url, { auth: { token: 'unused', client: 'test/1' } });
  assert.equal(socket.ready.user_id, socket.id);
});

test('packets right behind a CONNECT are handled after it, in order', async (t) => {
  const socket = await openEngine(t, service.url, '/socket.io/');
  socket.send('40', '420["join_room","behind"]', '421["chat_message",{"meeting_id":"behind","text":"hi"}]');
  const frames = [];
  while (frames.length < 5) frames.push(await socket.next());
  assert.match(frames[0], /^40\{/);
  assert.match(frames[1], /^42\["ready"/);
  assert.match(frames[2], /^430\[\{"ok":true/);
  assert.deepEqual(
    frames
      .slice(3)
      .map((frame) => frame.slice(0, 12))
      .sort(),
    ['42["chat_mes', '431[{"ok":tr'],
  );
});

test('a namespace nobody registered is refused', async (t) => {
  const socket = open(t, service.url, { namespace: '/nowhere' });
  const [error] = await once(socket, 'connect_error');
  assert.equal(error.message, 'Invalid namespace');
});

test('a client that disconnected connects again under a new id', async (t) => {
  const socket = await join(t, service.url);
  const first = socket.id;
  socket.disconnect();
  const ready = once(socket, 'ready');
  socket.connect();
  const [{ sid }] = await ready;
  assert.equal(sid, socket.id);
  assert.notEqual(sid, first);
});
