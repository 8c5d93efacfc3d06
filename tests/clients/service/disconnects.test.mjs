// Promise: however a client goes, nothing of it stays behind.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { TRANSPORTS, join } from '../support/clients.mjs';
import { Polling, openSocketIo } from '../support/raw.mjs';
import { startService } from '../support/server.mjs';
import { ask, assertHas, eventually, record } from '../support/wait.mjs';

let service;
before(async () => (service = await startService()));
after(() => service.stop());

async function counts() {
  const metrics = await service.metrics();
  return { sessions: metrics.sessions(), rooms: metrics.rooms() };
}
const counted = (expected) => eventually(async () => assert.deepEqual(await counts(), expected));
const NOTHING = { sessions: 0, rooms: 0 };

for (const transport of Object.keys(TRANSPORTS)) {
  test(`a client that says goodbye by ${transport} is gone at once`, async (t) => {
    const socket = await join(t, service.url, { transport });
    await ask(socket, 'join_room', 'a');
    await counted({ sessions: 1, rooms: 1 });
    socket.disconnect();
    await counted(NOTHING);
  });
}

test('a WebSocket whose TCP connection is cut is gone at once', async (t) => {
  const socket = await openSocketIo(t, service.url);
  socket.send('420["join_room","a"]');
  await socket.next();
  await counted({ sessions: 1, rooms: 1 });
  socket.ws._socket.destroy();
  await counted(NOTHING);
});

test('a WebSocket whose TCP connection is reset is gone at once', async (t) => {
  const socket = await openSocketIo(t, service.url);
  await counted({ sessions: 1, rooms: 0 });
  socket.ws._socket.resetAndDestroy();
  await counted(NOTHING);
});

test('a polling client whose parked GET is cut is gone at once', async () => {
  const session = await Polling.open(service.url, '/socket.io/');
  await session.send('40');
  await session.receive(2);
  await session.send('420["join_room","a"]');
  await session.receive(1);
  await counted({ sessions: 1, rooms: 1 });
  const get = await session.park();
  get.abort();
  await assert.rejects(get.response);
  await counted(NOTHING);
  await session.assertGone('its poll was cut');
});

test('a client that sends the close packet by polling is gone, and its parked GET is let go with a noop', async () => {
  const session = await Polling.open(service.url, '/socket.io/');
  await session.send('40');
  await session.receive(2);
  const get = await session.park();
  await session.send('1');
  const answer = await get.response;
  assert.deepEqual([answer.status, answer.text], [200, '6']);
  await counted(NOTHING);
});

test('a client that leaves its namespace leaves its rooms, its session stays', async (t) => {
  const socket = await openSocketIo(t, service.url);
  socket.send('420["join_room","a"]');
  await socket.next();
  socket.send('41');
  await counted({ sessions: 1, rooms: 0 });
  socket.send('40');
  assert.match(await socket.next(), /^40\{/);
  assert.match(await socket.next(), /^42\["ready"/);
  await counted({ sessions: 1, rooms: 0 });
  socket.ws.close();
  await counted(NOTHING);
});

test('those who stay hear each other as before, and the members are counted right', async (t) => {
  const [a, b, gone] = await Promise.all([1, 2, 3].map(() => join(t, service.url)));
  for (const socket of [a, b, gone]) await ask(socket, 'join_room', 'stay');
  gone.io.engine.transport.ws._socket.destroy();
  await eventually(async () => assertHas(await ask(a, 'join_room', 'stay'), { members: 2 }));
  const heard = record(b, 'chat_message');
  for (let n = 1; n <= 3; n++) {
    assertHas(await ask(a, 'chat_message', { meeting_id: 'stay', text: `${n}` }), { ok: true, seq: n });
  }
  await heard.count(3);
  for (const socket of [a, b]) socket.disconnect();
  await counted(NOTHING);
});

test('300 clients that come, join, talk and are cut in any state leave nothing', async (t) => {
  const rounds = Array.from({ length: 300 }, async (_, n) => {
    const socket = await openSocketIo(t, service.url);
    // Cut with the answers of joins and messages still on their way.
    for (let k = 0; k < n % 5; k++) {
      socket.send(`42${k}["join_room","churn-${k}"]`, `42["chat_message",{"meeting_id":"churn-${k}","text":"x"}]`);
    }
    if (n % 3 === 0) await socket.ws._socket.destroy();
    else if (n % 3 === 1) socket.ws.terminate();
    else socket.ws.close();
  });
  await Promise.all(rounds);
  await counted(NOTHING);
  // Only the connections of this test's own requests are left.
  await eventually(async () => assert.ok((await service.metrics()).connections() <= 64));
});
