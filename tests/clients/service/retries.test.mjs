// Promise: a client that got no answer may send again with the same client_id, and the message is there once.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import {
  accepted,
  as,
  fresh,
  history,
  log,
  member,
  range,
  refused,
  said,
  say,
  seqs,
  settled,
} from '../support/chat.mjs';
import { startService } from '../support/server.mjs';
import { WITH_USERS } from '../support/token.mjs';
import { ask, assertHas, once, record } from '../support/wait.mjs';

/** Fewer events than client_ids are kept, so that these tests see that one does not stand for the other. */
const HISTORY_SIZE = 100;

let service;
before(async () => (service = await startService({ ...WITH_USERS, HISTORY_SIZE })));
after(() => service.stop());

const client_id = 'c-1';
const again = (ack) => ({ ...ack, duplicate: true });

test('a repeat is answered as the first time, and nobody hears it twice', async (t) => {
  const meeting_id = fresh();
  const ann = await member(t, service, meeting_id);
  const bob = await member(t, service, meeting_id);
  const heard = [log(ann), log(bob)];
  const first = await said(ann, meeting_id, 'once', { client_id });
  assertHas(first, { seq: 1, duplicate: false });
  for (let n = 0; n < 3; n++) assert.deepEqual(await say(ann, meeting_id, 'once', { client_id }), again(first));
  assertHas(await said(ann, meeting_id, 'next'), { seq: 2 });
  for (const { count, items } of heard) {
    await count(2);
    assert.deepEqual(seqs(items), [1, 2]);
  }
  assert.deepEqual(seqs(await history(ann, meeting_id)), [1, 2]);
});

test('the same client_id with another text is a conflict, and what stands stays', async (t) => {
  const meeting_id = fresh();
  const ann = await member(t, service, meeting_id);
  const { items } = log(ann);
  const first = await said(ann, meeting_id, 'this', { client_id });
  await refused(say(ann, meeting_id, 'that', { client_id }), 'conflict');
  await refused(say(ann, meeting_id, 'this ', { client_id }), 'conflict');
  assert.deepEqual(await say(ann, meeting_id, 'this', { client_id }), again(first));
  await settled(ann);
  assert.deepEqual(
    items.map(({ text }) => text),
    ['this'],
  );
});

test('another user may use the same client_id', async (t) => {
  const meeting_id = fresh();
  const ann = await member(t, service, meeting_id);
  const bob = await member(t, service, meeting_id);
  const [a, b] = [
    await said(ann, meeting_id, 'mine', { client_id }),
    await said(bob, meeting_id, 'mine', { client_id }),
  ];
  assertHas(a, { seq: 1, duplicate: false });
  assertHas(b, { seq: 2, duplicate: false });
  assert.notEqual(a.id, b.id);
  assert.deepEqual(await say(ann, meeting_id, 'mine', { client_id }), again(a));
  assert.deepEqual(await say(bob, meeting_id, 'mine', { client_id }), again(b));
});

test('in another meeting the same client_id is free', async (t) => {
  const [here, there] = [fresh(), fresh()];
  const ann = await member(t, service, here);
  await accepted(ask(ann, 'join_room', { meeting_id: there }));
  await said(ann, here, 'here', { client_id });
  assertHas(await said(ann, there, 'there', { client_id }), { seq: 1, duplicate: false });
});

test('without client_id every message is a new one', async (t) => {
  const meeting_id = fresh();
  const ann = await member(t, service, meeting_id);
  for (const seq of range(1, 3)) assertHas(await said(ann, meeting_id, 'same'), { seq, duplicate: false });
});

test('a repeat works from another device, and after a reconnect', async (t) => {
  const meeting_id = fresh();
  const one = await member(t, service, meeting_id);
  const user = one.ready.user_id;
  const two = await member(t, service, meeting_id, user);
  const first = await said(one, meeting_id, 'x', { client_id });
  assert.deepEqual(await say(two, meeting_id, 'x', { client_id }), again(first));
  for (const socket of [one, two]) socket.disconnect();
  const back = await member(t, service, meeting_id, user);
  assert.deepEqual(await say(back, meeting_id, 'x', { client_id }), again(first));
  await refused(say(back, meeting_id, 'y', { client_id }), 'conflict');
});

test('an answer that was never heard: what was sent before the cut is not sent twice', async (t) => {
  const meeting_id = fresh();
  const bob = await member(t, service, meeting_id);
  const heard = log(bob);
  const user = fresh('user');
  for (const n of range(1, 10)) {
    const ann = await member(t, service, meeting_id, user);
    const arrived = once(bob, 'chat_message');
    ann.emit('chat_message', { meeting_id, text: `${n}`, client_id: `cut-${n}` }, () => {});
    await arrived;
    ann.io.engine.transport.ws._socket.destroy();
    const back = await member(t, service, meeting_id, user);
    assertHas(await said(back, meeting_id, `${n}`, { client_id: `cut-${n}` }), { seq: n, duplicate: true });
    back.disconnect();
  }
  await settled(bob);
  assert.deepEqual(seqs(heard.items), range(1, 10));
});

test('of sends that race, from two devices, exactly one is the message', async (t) => {
  const meeting_id = fresh();
  const one = await member(t, service, meeting_id);
  const two = await member(t, service, meeting_id, one.ready.user_id);
  const heard = log(two);
  const races = 50;
  for (const n of range(1, races)) {
    const more = { client_id: `race-${n}` };
    const acks = await Promise.all([one, two, one, two].map((socket) => said(socket, meeting_id, 'x', more)));
    assert.equal(new Set(acks.map(({ id }) => id)).size, 1, JSON.stringify(acks));
    assert.deepEqual(new Set(seqs(acks)), new Set([n]));
    assert.equal(acks.filter(({ duplicate }) => !duplicate).length, 1, JSON.stringify(acks));
  }
  await settled(two);
  assert.deepEqual(seqs(heard.items), range(1, races));
});

test('of two texts that race under one client_id, one is the message and the other a conflict', async (t) => {
  const meeting_id = fresh();
  const one = await member(t, service, meeting_id);
  const two = await member(t, service, meeting_id, one.ready.user_id);
  for (const n of range(1, 20)) {
    const more = { client_id: `race-${n}` };
    const acks = await Promise.all([say(one, meeting_id, 'a', more), say(two, meeting_id, 'b', more)]);
    const [bad, good] = acks.toSorted((a, b) => a.ok - b.ok);
    assertHas(good, { ok: true, seq: n, duplicate: false });
    assert.equal(bad.error?.code, 'conflict', JSON.stringify(acks));
  }
});

test('a message that was refused leaves its client_id free', async (t) => {
  const meeting_id = fresh();
  const ann = await as(t, service, fresh('user'));
  await refused(say(ann, meeting_id, 'x', { client_id }), 'not_joined');
  await accepted(ask(ann, 'join_room', { meeting_id }));
  await refused(say(ann, meeting_id, 'bad \0', { client_id }), 'invalid_payload');
  assertHas(await said(ann, meeting_id, 'good', { client_id }), { seq: 1, duplicate: false });
});

test('a repeat after an edit and after a deletion is still the same message', async (t) => {
  const meeting_id = fresh();
  const ann = await member(t, service, meeting_id);
  const first = await said(ann, meeting_id, 'before', { client_id });
  const { id } = first;
  await accepted(ask(ann, 'edit_message', { meeting_id, id, text: 'after' }));
  assert.deepEqual(await say(ann, meeting_id, 'before', { client_id }), again(first));
  await accepted(ask(ann, 'delete_message', { meeting_id, id }));
  assert.deepEqual(await say(ann, meeting_id, 'before', { client_id }), again(first));
  assertHas(await said(ann, meeting_id, 'next'), { seq: 4 });
});

test('a repeat does not notify again', async (t) => {
  const meeting_id = fresh();
  const ann = await member(t, service, meeting_id);
  const bob = await as(t, service, fresh('bob'));
  const { items, count } = record(bob, 'notification');
  const mentions = [bob.ready.user_id];
  for (let n = 0; n < 3; n++) await said(ann, meeting_id, 'hey', { client_id, mentions });
  await said(ann, meeting_id, 'the last', { mentions });
  await count(2);
  await settled(bob);
  assert.deepEqual(
    items.map(({ nseq }) => nseq),
    [1, 2],
  );
  assertHas(await accepted(ask(bob, 'notifications_get', {})), { unread: 2 });
});

test('the last 1 000 are remembered, also those whose events are no longer kept', async (t) => {
  const meeting_id = fresh();
  const ann = await member(t, service, meeting_id);
  const bob = await member(t, service, meeting_id);
  const acks = await Promise.all(range(1, 1000).map((n) => said(ann, meeting_id, `${n}`, { client_id: `n-${n}` })));
  await said(bob, meeting_id, 'what others send does not count', { client_id });
  assert.deepEqual(seqs(acks), range(1, 1000));
  const heard = log(bob);
  const repeats = await Promise.all(range(1, 1000).map((n) => say(ann, meeting_id, `${n}`, { client_id: `n-${n}` })));
  assert.deepEqual(repeats, acks.map(again));
  assert.ok((await history(ann, meeting_id))[0].seq > 1, 'the first events should be trimmed by now');
  await settled(bob);
  assert.deepEqual(heard.items, []);
});
