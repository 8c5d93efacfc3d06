// Promise: a client that upgrades from polling to WebSocket amid traffic loses nothing, gets nothing twice, sees no swap.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { join, open } from '../support/clients.mjs';
import { startService } from '../support/server.mjs';
import { ask, eventually, record, within } from '../support/wait.mjs';

const UPGRADES = 1000;
const AT_ONCE = 20;
const IN_FLIGHT = 8;
const MESSAGES = 60;
/** What all of it may take on a slow machine; a single stalled poll (25 s) in a chain of groups exceeds it. */
const BOUND_MS = 150_000;

let service;
before(async () => (service = await startService()));
after(() => service.stop());

/** One client: numbered messages in flight both ways from before its upgrade until well after it. */
async function upgradeAmidTraffic(t, meeting_id, release) {
  const socket = open(t, service.url, { release, transport: 'upgrade' });
  const responses = record(socket, 'response');
  const room = record(socket, 'chat_message');
  let upgraded = false;
  let sent = 0;
  let inFlight;
  socket.io.engine.once('upgrade', () => {
    upgraded = true;
    inFlight = sent - responses.items.length;
  });
  await within(new Promise((done) => socket.once('connect', done)), 'connect');
  const { seq } = await ask(socket, 'join_room', { meeting_id });
  const more = () => socket.emit('message', sent++);
  socket.on('response', () => {
    if (sent < MESSAGES || !upgraded) more();
  });
  for (let n = 0; n < IN_FLIGHT; n++) more();
  await eventually(() => assert.ok(upgraded, 'upgraded'));
  await eventually(() => assert.ok(sent >= MESSAGES, `${sent} sent`));
  await responses.count(sent);
  // The talker's messages up to here must have come, from the join on, without a hole.
  const { seq: now } = await ask(socket, 'join_room', { meeting_id });
  const missing = () => room.items.length < now - seq;
  if (missing()) await room.count(now - seq);
  assert.deepEqual(responses.items.map(({ data }) => data), Array.from({ length: sent }, (_, n) => n));
  assert.deepEqual(
    room.items.map((event) => event.seq),
    Array.from({ length: room.items.length }, (_, n) => seq + 1 + n),
  );
  socket.disconnect();
  return { inFlight, heard: room.items.length };
}

for (const release of ['4.0', '4.8']) {
  test(`${UPGRADES / 2} upgrades of socket.io-client ${release} amid traffic`, { timeout: BOUND_MS }, async (t) => {
    const meeting_id = `load-${release}`;
    const talker = await join(t, service.url);
    await ask(talker, 'join_room', { meeting_id });
    let talking = true;
    const talk = (async () => {
      while (talking) {
        const ack = await ask(talker, 'chat_message', { meeting_id, text: 'news' });
        assert.equal(ack.ok, true, JSON.stringify(ack));
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    })();
    const started = performance.now();
    let midway = 0;
    let heard = 0;
    for (let done = 0; done < UPGRADES / 2; done += AT_ONCE) {
      const group = Array.from({ length: AT_ONCE }, () => upgradeAmidTraffic(t, meeting_id, release));
      for (const client of await Promise.all(group)) {
        if (client.inFlight > 0) midway += 1;
        heard += client.heard;
      }
    }
    talking = false;
    await talk;
    const took = performance.now() - started;
    t.diagnostic(`${Math.round(took)} ms, ${midway} upgrades with messages in flight, ${heard} room messages`);
    // Otherwise the test would show nothing.
    assert.ok(midway > UPGRADES / 8, `only ${midway} upgrades had messages in flight`);
    assert.ok(heard > UPGRADES / 2, `only ${heard} room messages were heard`);
  });
}
