// Promise: a client that does not read is closed when its outbox is full; nobody else notices.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { join } from '../support/clients.mjs';
import { Polling, openSocketIo } from '../support/raw.mjs';
import { startService } from '../support/server.mjs';
import { ask, assertHas, eventually, record, within } from '../support/wait.mjs';

/** 16 000 bytes a message. */
const TEXT = '😀'.repeat(4000);
/** Far more than the outbox (1 MiB) and what the kernel buffers for one connection. */
const MOST = 4000;

let service;
before(async () => (service = await startService()));
after(() => service.stop());

/** Floods the meeting, a few messages at a time, until `slow_consumer` was counted once more. */
async function floodUntilClosed(talker, meeting_id) {
  const before = (await service.metrics()).closed('slow_consumer');
  let sent = 0;
  while (sent < MOST) {
    const acks = Array.from({ length: 8 }, () => ask(talker, 'chat_message', { meeting_id, text: TEXT }));
    for (const ack of await Promise.all(acks)) assert.equal(ack.ok, true, JSON.stringify(ack));
    sent += acks.length;
    if (sent % 64 === 0 && (await service.metrics()).closed('slow_consumer') > before) return sent;
  }
  assert.fail(`nothing was closed in ${sent} messages`);
}

async function othersAreUnaffected(t, meeting_id, stall) {
  const [talker, reader] = await Promise.all([join(t, service.url), join(t, service.url)]);
  for (const socket of [talker, reader]) await ask(socket, 'join_room', meeting_id);
  const heard = record(reader, 'chat_message');
  const { seq } = await ask(talker, 'join_room', meeting_id);
  await stall(meeting_id);
  assertHas(await ask(talker, 'join_room', meeting_id), { members: 3 });
  const sent = await floodUntilClosed(talker, meeting_id);
  await heard.count(sent);
  assert.deepEqual(
    heard.items.map((event) => event.seq - seq),
    Array.from({ length: sent }, (_, n) => n + 1),
  );
  await eventually(async () => assertHas(await ask(talker, 'join_room', meeting_id), { members: 2 }));
}

test('a WebSocket that stops reading is closed as slow_consumer', async (t) => {
  let slow;
  await othersAreUnaffected(t, 'websocket', async (meeting_id) => {
    slow = await openSocketIo(t, service.url);
    slow.send(`420["join_room","${meeting_id}"]`);
    await slow.next();
    slow.ws.pause();
  });
  slow.ws.resume();
  await within(slow.ended, 'the end of the slow client');
});

test('a polling client that stops polling is closed as slow_consumer', async (t) => {
  let slow;
  await othersAreUnaffected(t, 'polling', async (meeting_id) => {
    slow = await Polling.open(service.url, '/socket.io/');
    await slow.send('40');
    await slow.receive(2);
    await slow.send(`420["join_room","${meeting_id}"]`);
    await slow.receive(1);
  });
  // What was closed may hold the close packet back for the next GET, but not the flood.
  const answer = await slow.get();
  assert.ok(answer.status === 400 || answer.text === '1', `${answer.status} ${answer.text.slice(0, 80)}`);
  await slow.assertGone('it was closed');
});

test('a polling client whose answer is not read is closed as slow_consumer', async (t) => {
  await othersAreUnaffected(t, 'unread', async (meeting_id) => {
    const slow = await Polling.open(service.url, '/socket.io/');
    await slow.send('40');
    await slow.receive(2);
    await slow.send(`420["join_room","${meeting_id}"]`);
    await slow.receive(1);
    const get = await slow.park();
    get.sent.once('response', (answer) => answer.pause());
    get.response.catch(() => {});
    get.sent.socket.pause();
    t.after(() => get.abort());
  });
});
