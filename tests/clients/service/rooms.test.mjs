// Promise: a message reaches all members of its meeting, once, in one order, and nobody else.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { RELEASES, TRANSPORTS, join } from '../support/clients.mjs';
import { startService } from '../support/server.mjs';
import { ask, assertHas, eventually, once, record } from '../support/wait.mjs';

const ULID = /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/;

let service;
let last = 0;
const fresh = (name = 'meeting') => `${name}-${++last}`;
before(async () => (service = await startService()));
after(() => service.stop());

const say = (socket, meeting_id, text, more) => ask(socket, 'chat_message', { meeting_id, text, ...more });

async function refused(answer, code) {
  const ack = await answer;
  assert.deepEqual([ack.ok, ack.error?.code], [false, code], JSON.stringify(ack));
  assert.ok(typeof ack.error.message === 'string' && ack.error.message.length > 0, 'an error has a message');
  return ack.error;
}

/** After this, whatever the server had sent to `socket` has been seen by it. */
const settled = (socket) => ask(socket, 'message', 'settled');

describe('join_room', () => {
  test('is acknowledged with the position of the meeting', async (t) => {
    const socket = await join(t, service.url);
    const meeting_id = fresh();
    const ack = await ask(socket, 'join_room', { meeting_id });
    assertHas(ack, { ok: true, meeting_id, seq: 0, members: 1 });
    assert.ok(typeof ack.epoch === 'string' && ack.epoch.length >= 8 && ack.epoch.length <= 32, `epoch ${ack.epoch}`);
    assert.ok(Number.isInteger(ack.first_seq), `first_seq ${ack.first_seq}`);
    await say(socket, meeting_id, 'one');
    const other = await join(t, service.url);
    assertHas(await ask(other, 'join_room', { meeting_id }), { ok: true, seq: 1, members: 2, epoch: ack.epoch });
  });

  const forms = [
    ['an object', 'N', (id) => ({ meeting_id: id })],
    ['a bare string', 'N', (id) => id],
    ['the alias room', 'N', (id) => ({ room: id })],
    ['an integer', 4242, (id) => ({ meeting_id: id })],
    ['a bare integer', 4243, (id) => id],
    ['the largest integer', Number.MAX_SAFE_INTEGER, (id) => ({ meeting_id: id })],
    ['zero', 0, (id) => ({ room: id })],
    ['every allowed character', 'AZaz09_.:-', (id) => id],
    ['128 characters', 'x'.repeat(128), (id) => ({ meeting_id: id })],
  ];
  for (const [name, given, form] of forms) {
    test(`takes ${name}`, async (t) => {
      const id = given === 'N' ? fresh() : given;
      const [socket, observer] = await Promise.all([join(t, service.url), join(t, service.url)]);
      const ack = await ask(socket, 'join_room', form(id));
      assertHas(ack, { ok: true, meeting_id: id });
      await ask(observer, 'join_room', { meeting_id: String(id) });
      const heard = once(socket, 'chat_message');
      await say(observer, String(id), 'hi');
      assertHas((await heard)[0], { meeting_id: String(id), text: 'hi' });
      assert.deepEqual(await ask(socket, 'leave_room', form(id)), { ok: true, meeting_id: id });
    });
  }

  const wrong = [
    ['an empty object', {}],
    ['an empty string', ''],
    ['129 characters', { meeting_id: 'x'.repeat(129) }],
    ['a space', { meeting_id: 'a b' }],
    ['a slash', { meeting_id: 'a/b' }],
    ['a letter outside ASCII', { meeting_id: 'é' }],
    ['a lone surrogate', { meeting_id: '\ud800' }],
    ['a negative integer', { meeting_id: -1 }],
    ['a fraction', { meeting_id: 1.5 }],
    ['an integer above 2^53-1', { meeting_id: 2 ** 53 }],
    ['true', { meeting_id: true }],
    ['an object as id', { meeting_id: {} }],
  ];
  for (const [name, ...argument] of wrong) {
    test(`refuses ${name}`, async (t) => {
      const socket = await join(t, service.url);
      const error = await refused(ask(socket, 'join_room', ...argument), 'invalid_payload');
      assert.equal(error.details?.field, 'meeting_id', JSON.stringify(error));
    });
  }

  for (const [name, ...argument] of [['no argument'], ['null', null], ['an array', ['x']], ['true', true]]) {
    test(`refuses ${name} instead of an object`, async (t) => {
      await refused(ask(await join(t, service.url), 'join_room', ...argument), 'invalid_payload');
    });
  }

  test('again does not double what is heard', async (t) => {
    const socket = await join(t, service.url);
    const meeting_id = fresh();
    const { items } = record(socket, 'chat_message');
    assertHas(await ask(socket, 'join_room', { meeting_id }), { ok: true, members: 1 });
    assertHas(await ask(socket, 'join_room', { meeting_id }), { ok: true, members: 1 });
    await say(socket, meeting_id, 'once');
    await settled(socket);
    assert.equal(items.length, 1);
  });
});

describe('chat_message', () => {
  test('reaches all members, the sender included, with the fields of the contract', async (t) => {
    const meeting_id = fresh();
    const members = [];
    for (const transport of Object.keys(TRANSPORTS)) {
      const socket = await join(t, service.url, { transport });
      await ask(socket, 'join_room', { meeting_id });
      members.push({ socket, heard: record(socket, 'chat_message') });
    }
    const sender = members[0].socket;
    const before = Date.now();
    const ack = await say(sender, meeting_id, 'hello', { client_id: 'c-1', mentions: ['u1', 2], meta: { a: [1.5] } });
    assert.deepEqual(Object.keys(ack).sort(), ['duplicate', 'epoch', 'id', 'ok', 'seq', 'ts']);
    assertHas(ack, { ok: true, seq: 1, duplicate: false });
    assert.match(ack.id, ULID);
    assert.ok(Math.abs(ack.ts - before) < 60_000, `ts ${ack.ts}`);
    for (const { heard } of members) {
      await heard.count(1);
      const { sender_name, mentions, ...event } = heard.items[0];
      assert.deepEqual(event, {
        id: ack.id,
        seq: 1,
        epoch: ack.epoch,
        meeting_id,
        text: 'hello',
        sender: sender.id,
        ts: ack.ts,
        client_id: 'c-1',
        meta: { a: [1.5] },
      });
      assert.equal(typeof sender_name, 'string');
      assert.deepEqual(mentions, ['u1', '2']);
    }
  });

  test('has the same epoch in ack, event and join', async (t) => {
    const socket = await join(t, service.url);
    const meeting_id = fresh();
    const { epoch } = await ask(socket, 'join_room', { meeting_id });
    const heard = once(socket, 'chat_message');
    assert.equal((await say(socket, meeting_id, 'x')).epoch, epoch);
    assert.equal((await heard)[0].epoch, epoch);
  });

  test('of many senders is seen by all members in one order, seq 1.. without holes', async (t) => {
    const meeting_id = fresh();
    const members = [];
    for (const release of Object.keys(RELEASES)) {
      for (const transport of Object.keys(TRANSPORTS)) {
        const socket = await join(t, service.url, { release, transport });
        await ask(socket, 'join_room', { meeting_id });
        members.push({ socket, heard: record(socket, 'chat_message') });
      }
    }
    const each = 100;
    const total = each * members.length;
    const acks = members.flatMap(({ socket }, m) =>
      Array.from({ length: each }, (_, n) => say(socket, meeting_id, `${m}/${n}`)),
    );
    const seqs = (await Promise.all(acks)).map((ack) => ack.seq);
    assert.deepEqual(
      seqs.toSorted((a, b) => a - b),
      Array.from({ length: total }, (_, n) => n + 1),
    );
    for (const { heard } of members) {
      await heard.count(total);
      assert.deepEqual(
        heard.items.map((event) => event.seq),
        Array.from({ length: total }, (_, n) => n + 1),
      );
      assert.deepEqual(heard.items, members[0].heard.items);
    }
    assert.equal(new Set(members[0].heard.items.map((event) => event.id)).size, total);
    for (const m of members.keys()) {
      const own = members[0].heard.items.filter((event) => event.text.startsWith(`${m}/`));
      assert.deepEqual(
        own.map((event) => event.text),
        Array.from({ length: each }, (_, n) => `${m}/${n}`),
      );
    }
  });

  test('of one meeting is not heard in another, and each counts its own seq', async (t) => {
    const [here, there] = [fresh('here'), fresh('there')];
    const [a, b] = await Promise.all([join(t, service.url), join(t, service.url)]);
    await ask(a, 'join_room', { meeting_id: here });
    await ask(b, 'join_room', { meeting_id: there });
    const { items } = record(b, 'chat_message');
    for (let n = 1; n <= 5; n++) assert.equal((await say(a, here, 'x')).seq, n);
    assert.equal((await say(b, there, 'own')).seq, 1);
    await settled(b);
    assert.deepEqual(
      items.map((event) => event.text),
      ['own'],
    );
  });

  test('to a meeting named like a socket id does not reach that socket', async (t) => {
    const [a, victim] = await Promise.all([join(t, service.url), join(t, service.url)]);
    const heard = [];
    victim.onAny((event) => heard.push(event));
    for (const meeting_id of [victim.id, `user:${victim.id}`]) {
      const ack = await ask(a, 'join_room', { meeting_id });
      // A name that the id rules exclude may be refused; what matters is that nothing arrives.
      if (ack.ok) {
        assert.equal(ack.members, 1);
        assertHas(await say(a, meeting_id, 'boo'), { ok: true });
      }
    }
    await settled(victim);
    assert.deepEqual(heard, ['response']);
  });

  test('takes message for text, and room for meeting_id', async (t) => {
    const socket = await join(t, service.url);
    const room = fresh();
    await ask(socket, 'join_room', { room });
    const heard = once(socket, 'chat_message');
    assertHas(await ask(socket, 'chat_message', { room, message: 'alias' }), { ok: true });
    const [event] = await heard;
    assertHas(event, { meeting_id: room, text: 'alias' });
    assert.ok(!('message' in event) && !('room' in event), JSON.stringify(event));
  });

  test('forwards no unknown field', async (t) => {
    const socket = await join(t, service.url);
    const meeting_id = fresh();
    await ask(socket, 'join_room', { meeting_id });
    const heard = once(socket, 'chat_message');
    await say(socket, meeting_id, 'x', { sender: 'somebody', seq: 99, ts: 1, id: 'forged', html: '<b>' });
    const [event] = await heard;
    assertHas(event, { sender: socket.id, seq: 1 });
    assert.match(event.id, ULID);
    assert.ok(!('html' in event) && event.ts !== 1, JSON.stringify(event));
    assert.ok(!('client_id' in event) && !('reply_to' in event) && !('meta' in event), JSON.stringify(event));
  });

  const texts = [
    ['one character', 'x', true],
    ['4 000 characters', 'x'.repeat(4000), true],
    ['4 001 characters', 'x'.repeat(4001), false],
    ['4 000 characters of four bytes', '😀'.repeat(4000), true],
    ['4 001 characters of four bytes', '😀'.repeat(4001), false],
    ['markup, verbatim', '<script>alert("x")</script>&lt;', true],
    ['line feed and tab', 'a\n\tb', true],
    ['DEL', '\x7f', true],
    ['nothing', '', false],
    ['a NUL', 'a\0b', false],
    ['an escape character', '\x1b[0m', false],
    ['a carriage return', 'a\r\nb', false],
    ['a lone surrogate', 'a\ud800', false],
    ['a number', 5, false],
    ['null', null, false],
    ['an object', { a: 1 }, false],
  ];
  for (const [name, text, fine] of texts) {
    test(`text: ${name} is ${fine ? 'delivered as it is' : 'refused'}`, async (t) => {
      const socket = await join(t, service.url);
      const meeting_id = fresh();
      await ask(socket, 'join_room', { meeting_id });
      const { items } = record(socket, 'chat_message');
      if (fine) {
        assertHas(await say(socket, meeting_id, text), { ok: true });
      } else {
        const error = await refused(say(socket, meeting_id, text), 'invalid_payload');
        assert.equal(error.details?.field, 'text', JSON.stringify(error));
      }
      await settled(socket);
      assert.deepEqual(
        items.map((event) => event.text),
        fine ? [text] : [],
      );
    });
  }

  const nested = (depth) => (depth === 1 ? {} : { a: nested(depth - 1) });
  const sized = (bytes) => ({ a: 'x'.repeat(bytes - '{"a":""}'.length) });
  const fields = [
    ['client_id', 'x'.repeat(64), true],
    ['client_id', 'x'.repeat(65), false],
    ['client_id', '', false],
    ['client_id', 'a b', false],
    ['mentions', Array(50).fill('u'), true],
    ['mentions', Array(51).fill('u'), false],
    ['mentions', 'u', false],
    ['meta', sized(2048), true],
    ['meta', sized(2049), false],
    ['meta', nested(4), true],
    ['meta', nested(5), false],
    ['meta', 'text', false],
    ['meta', [1], false],
  ];
  for (const [field, value, fine] of fields) {
    const shown = JSON.stringify(value).length > 40 ? `${JSON.stringify(value).length} bytes` : JSON.stringify(value);
    test(`${field}: ${shown} is ${fine ? 'accepted' : 'refused'}`, async (t) => {
      const socket = await join(t, service.url);
      const meeting_id = fresh();
      await ask(socket, 'join_room', { meeting_id });
      const ack = say(socket, meeting_id, 'x', { [field]: value });
      if (fine) return assertHas(await ack, { ok: true, seq: 1 });
      const error = await refused(ack, 'invalid_payload');
      assert.equal(error.details?.field, field, JSON.stringify(error));
      assert.equal((await say(socket, meeting_id, 'next')).seq, 1, 'a refused message takes no seq');
    });
  }
});

describe('leave_room', () => {
  test('stops the delivery, also of own messages', async (t) => {
    const [stays, leaves] = await Promise.all([join(t, service.url), join(t, service.url)]);
    const meeting_id = fresh();
    for (const socket of [stays, leaves]) await ask(socket, 'join_room', { meeting_id });
    const { items, count } = record(leaves, 'chat_message');
    await say(stays, meeting_id, 'before');
    await count(1);
    assert.deepEqual(await ask(leaves, 'leave_room', { meeting_id }), { ok: true, meeting_id });
    await say(stays, meeting_id, 'after');
    await refused(say(leaves, meeting_id, 'from outside'), 'not_joined');
    await settled(leaves);
    assert.deepEqual(
      items.map((event) => event.text),
      ['before'],
    );
    assertHas(await ask(leaves, 'join_room', { meeting_id }), { ok: true, seq: 2, members: 2 });
  });

  test('of a meeting never joined is fine', async (t) => {
    const socket = await join(t, service.url);
    const meeting_id = fresh();
    for (const form of [{ meeting_id }, meeting_id]) {
      assert.deepEqual(await ask(socket, 'leave_room', form), { ok: true, meeting_id });
    }
  });
});

describe('a failure', () => {
  test('without joining is not_joined', async (t) => {
    const socket = await join(t, service.url);
    await refused(say(socket, fresh(), 'x'), 'not_joined');
  });

  test('that nobody asked an ack for becomes chat_error', async (t) => {
    const socket = await join(t, service.url);
    const errors = record(socket, 'chat_error');
    const meeting_id = fresh();
    socket.emit('chat_message', { meeting_id, text: 'x' });
    socket.emit('chat_message', { meeting_id, text: 'x', client_id: 'mine' });
    socket.emit('join_room', {});
    await errors.count(3);
    assert.deepEqual(
      errors.items.map(({ event, ref, error }) => [event, ref, error.code]),
      [
        ['chat_message', null, 'not_joined'],
        ['chat_message', 'mine', 'not_joined'],
        ['join_room', null, 'invalid_payload'],
      ],
    );
  });

  test('with an ack is not told twice', async (t) => {
    const socket = await join(t, service.url);
    const { items } = record(socket, 'chat_error');
    await refused(say(socket, fresh(), 'x'), 'not_joined');
    await settled(socket);
    assert.deepEqual(items, []);
  });

  test('of an unknown event is acknowledged if asked, else ignored', async (t) => {
    const socket = await join(t, service.url);
    const heard = [];
    socket.onAny((event) => heard.push(event));
    await refused(ask(socket, 'no_such_event', { a: 1 }), 'unknown_event');
    await refused(ask(socket, 'ready'), 'unknown_event');
    socket.emit('no_such_event', 'x');
    await settled(socket);
    assert.deepEqual(heard, ['response']);
    assert.ok(socket.connected);
  });
});

test('a room is gone with its last member', async (t) => {
  const socket = await join(t, service.url);
  await eventually(async () => assert.equal((await service.metrics()).rooms(), 0));
  await ask(socket, 'join_room', { meeting_id: fresh() });
  await eventually(async () => assert.equal((await service.metrics()).rooms(), 1));
  socket.disconnect();
  await eventually(async () => assert.equal((await service.metrics()).rooms(), 0));
});
