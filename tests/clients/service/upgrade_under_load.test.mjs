// Promise: a client that upgrades from polling to WebSocket amid traffic loses nothing, gets nothing twice, sees no swap.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { join, open } from '../support/clients.mjs';
import { Polling, RawSocket, SEPARATOR } from '../support/raw.mjs';
import { startService } from '../support/server.mjs';
import { ask, eventually, record, within } from '../support/wait.mjs';

const AT_ONCE = 20;
/** What 1 000 upgrades may take on a slow machine; a single poll that stalls until the next ping (25 s) shows. */
const BOUND_MS = 120_000;

let service;
before(async () => (service = await startService()));
after(() => service.stop());

const numbers = (from, count) => Array.from({ length: count }, (_, n) => from + n);

/** Runs `upgrade` for `total` clients of a meeting in which somebody talks all the time; answers what each returned. */
async function amidTalk(t, meeting_id, total, upgrade) {
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
  const results = [];
  try {
    while (results.length < total) {
      results.push(...(await Promise.all(numbers(0, AT_ONCE).map(upgrade))));
    }
  } finally {
    talking = false;
    await talk;
  }
  const heard = results.reduce((sum, result) => sum + result.heard, 0);
  assert.ok(heard > total, `only ${heard} messages of the meeting were heard: this shows nothing`);
  return results;
}

/** What comes beside the messages. */
const BESIDE = ['ready', 'presence_update', 'unread'];

/** A client of our own, which does not wait for its traffic to calm down before it upgrades, as stock clients do. */
class Upgrading {
  sent = 0;
  responses = [];
  seqs = [];

  take(packet) {
    const [, event, data] = /^42\["(\w+)",(.*)\]$/s.exec(packet) ?? [];
    if (event === 'response') this.responses.push(JSON.parse(data).data);
    else if (event === 'chat_message') this.seqs.push(JSON.parse(data).seq);
    else if (packet.startsWith('430')) this.joined = JSON.parse(packet.slice(3))[0].seq;
    else if (packet.startsWith('431')) this.position = JSON.parse(packet.slice(3))[0].seq;
    else if (packet === '2') return '3';
    else assert.ok(packet === '6' || packet.startsWith('40{') || BESIDE.includes(event), packet);
  }

  messages(count) {
    return numbers(this.sent, count).map(() => `42["message",${this.sent++}]`);
  }

  async poll() {
    const { status, text } = await this.session.get();
    assert.equal(status, 200, text);
    // Heartbeats are 25 s apart: none is due in the life of this client.
    for (const packet of text.split(SEPARATOR)) assert.equal(this.take(packet), undefined);
  }

  async run(t, meeting_id) {
    this.session = await Polling.open(service.url, '/socket.io/');
    await this.session.send('40');
    await this.session.send(`420["join_room","${meeting_id}"]`);

    let polling = true;
    const gets = (async () => {
      while (polling) await this.poll();
    })();
    while (this.responses.length < 5) await this.session.send(...this.messages(3));
    const socket = await RawSocket.open(t, this.session.webSocketUrl);
    socket.send('2probe');
    const probed = socket.expect('3probe');
    await this.session.send(...this.messages(3));
    await probed;
    polling = false;
    await within(gets, 'the parked poll');
    // The answers to these find no poll to go by.
    await this.session.send(...this.messages(3));
    const inFlight = this.sent - this.responses.length;
    socket.send('5', ...this.messages(10), `421["join_room","${meeting_id}"]`);
    while (this.responses.length < this.sent || this.position === undefined || this.seqs.at(-1) < this.position) {
      const pong = this.take(await socket.next());
      if (pong) socket.send(pong);
    }
    assert.deepEqual(this.responses, numbers(0, this.sent));
    assert.deepEqual(this.seqs, numbers(this.joined + 1, this.seqs.length));
    socket.ws.close();
    return { inFlight, heard: this.seqs.length };
  }
}

test('1 000 upgrades with messages in flight both ways', { timeout: BOUND_MS }, async (t) => {
  const results = await amidTalk(t, 'raw', 1000, () => new Upgrading().run(t, 'raw'));
  const midway = results.filter(({ inFlight }) => inFlight > 0).length;
  t.diagnostic(`${midway} of ${results.length} had answers waiting at the moment of the upgrade`);
  assert.ok(midway > results.length / 2, `only ${midway} had something in flight: this shows nothing`);
});

for (const release of ['4.0', '4.8']) {
  test(
    `200 upgrades of socket.io-client ${release}, which talks from its first moment on`,
    { timeout: BOUND_MS },
    async (t) => {
      const meeting_id = `stock-${release}`;
      await amidTalk(t, meeting_id, 200, async () => {
        const socket = open(t, service.url, { release, transport: 'upgrade' });
        const responses = record(socket, 'response');
        const room = record(socket, 'chat_message');
        let upgraded = false;
        socket.io.engine.once('upgrade', () => (upgraded = true));
        let sent = 0;
        const timer = setInterval(() => socket.emit('message', sent++), 1);
        t.after(() => clearInterval(timer));
        const { seq } = await ask(socket, 'join_room', { meeting_id });
        await eventually(() => assert.ok(upgraded && sent > 50, 'upgraded'));
        clearInterval(timer);
        await responses.count(sent);
        const { seq: now } = await ask(socket, 'join_room', { meeting_id });
        await room.count(now - seq);
        assert.deepEqual(
          responses.items.map(({ data }) => data),
          numbers(0, sent),
        );
        assert.deepEqual(
          room.items.map((event) => event.seq),
          numbers(seq + 1, room.items.length),
        );
        socket.disconnect();
        return { heard: room.items.length };
      });
    },
  );
}
