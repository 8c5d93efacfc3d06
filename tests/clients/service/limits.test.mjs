// Promise: nobody takes more than their share; whoever is over it is told when to come again, and then it works.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { accepted, as, fresh, member, range, refused, said, say, settled, tryToConnect } from '../support/chat.mjs';
import { startService } from '../support/server.mjs';
import { WITH_USERS } from '../support/token.mjs';
import { PATIENCE_MS, ask, assertHas, eventually, once, record, time } from '../support/wait.mjs';

/** An empty setting counts as unset, so the limits are those that a server has by itself. */
const LIMITED = { ...WITH_USERS, RATE_LIMITS: '' };

/** Sends `count` requests at once, and answers their acks and how long that took. */
async function flood(count, request) {
  const start = performance.now();
  const acks = await Promise.all(range(1, count).map(request));
  return { acks, seconds: (performance.now() - start) / 1000 };
}

/**
 * Asserts that a bucket of `burst`, of which `spent` was gone, and which fills by `rate` a second, has decided: it gave
 * what it held and at most what flowed in meanwhile, and told the others to wait for the next drop. Answers the wait.
 */
function assertBucket({ acks, seconds }, { rate, burst, spent = 0 }) {
  const taken = acks.filter(({ ok }) => ok).length;
  const most = burst + rate * seconds + 1;
  assert.ok(taken >= burst - spent, `only ${taken} of a burst of ${burst}, of which ${spent} was spent`);
  assert.ok(taken <= most, `${taken} taken, at most ${most} in ${seconds} s`);
  const drop_ms = 1000 / rate;
  const waits = acks
    .filter(({ ok }) => !ok)
    .map((ack) => {
      assert.equal(ack.error?.code, 'rate_limited', JSON.stringify(ack));
      const { retry_after_ms } = ack.error;
      assert.ok(Number.isInteger(retry_after_ms) && retry_after_ms > 0, `retry_after_ms ${retry_after_ms}`);
      assert.ok(retry_after_ms <= Math.ceil(drop_ms * 1.1), `${retry_after_ms} ms for a drop of ${drop_ms} ms`);
      return retry_after_ms;
    });
  assert.ok(waits.length > 0, 'nothing was refused; the flood was too slow to show anything');
  return waits.at(-1);
}

describe('rates', () => {
  let service;
  before(async () => (service = await startService(LIMITED)));
  after(() => service.stop());

  test('messages: 5 a second and 20 at once, for a user', async (t) => {
    const meeting_id = fresh();
    const one = await member(t, service, meeting_id);
    const two = await member(t, service, meeting_id, one.ready.user_id);
    const heard = record(one, 'chat_message');
    const result = await flood(80, (n) => say(n % 2 ? one : two, meeting_id, `${n}`));
    assertBucket(result, { rate: 5, burst: 20 });
    await settled(one);
    assert.equal(heard.items.length, result.acks.filter(({ ok }) => ok).length, 'what was refused is not heard');
    const other = await member(t, service, meeting_id);
    await said(other, meeting_id, 'another user has another bucket');
  });

  test('messages: what is tried again after retry_after_ms is taken', async (t) => {
    const meeting_id = fresh();
    const ann = await member(t, service, meeting_id);
    const wait = assertBucket(await flood(60, (n) => say(ann, meeting_id, `${n}`)), { rate: 5, burst: 20 });
    await time(Math.ceil(wait * 1.1) + 1);
    await said(ann, meeting_id, 'in time');
  });

  test('edits, deletions and reactions are out of the same bucket', async (t) => {
    const meeting_id = fresh();
    const ann = await member(t, service, meeting_id);
    const { id } = await said(ann, meeting_id, 'to be edited');
    const { id: gone } = await said(ann, meeting_id, 'to be deleted');
    const acts = [
      () => say(ann, meeting_id, 'x'),
      () => ask(ann, 'edit_message', { meeting_id, id, text: 'y' }),
      () => ask(ann, 'react', { meeting_id, id, emoji: '👍' }),
      () => ask(ann, 'delete_message', { meeting_id, id: gone }),
    ];
    const result = await flood(80, (n) => acts[n % 4]());
    assertBucket(result, { rate: 5, burst: 20, spent: 2 });
    for (const kind of acts.keys()) {
      const own = result.acks.filter((_, n) => (n + 1) % 4 === kind);
      assert.ok(
        own.some(({ ok }) => !ok),
        `request ${kind} of ${acts.length} is limited`,
      );
    }
  });

  test('typing over 2 a second and 5 at once is dropped without a word', async (t) => {
    const meeting_id = fresh();
    const [ann, bob] = [await member(t, service, meeting_id), await member(t, service, meeting_id)];
    const heard = record(bob, 'typing');
    const errors = record(ann, 'chat_error');
    const { acks, seconds } = await flood(60, (n) => ask(ann, 'typing', { meeting_id, active: n % 2 === 1 }));
    for (const ack of acks) assert.deepEqual(ack, { ok: true });
    await settled(bob);
    await settled(ann);
    const most = 5 + 2 * seconds + 1;
    assert.ok(heard.items.length >= 1 && heard.items.length <= most, `${heard.items.length} heard, of ${most}`);
    assert.deepEqual(errors.items, []);
  });

  test('read marks over 2 a second and 5 at once are refused', async (t) => {
    const meeting_id = fresh();
    const ann = await member(t, service, meeting_id);
    const result = await flood(60, () => ask(ann, 'mark_read', { meeting_id, seq: 0 }));
    assertBucket(result, { rate: 2, burst: 5 });
  });

  test('joins: 10 a second and 50 at once', async (t) => {
    const ann = await as(t, service, fresh('ann'));
    const meeting_id = fresh();
    const join = (n) => ask(ann, n % 2 ? 'join_room' : 'leave_room', { meeting_id });
    const wait = assertBucket(await flood(90, join), { rate: 10, burst: 50 });
    await time(Math.ceil(wait * 1.1) + 1);
    await accepted(join(1));
  });

  test('history, presence and inbox: 5 a second and 20 at once', async (t) => {
    const meeting_id = fresh();
    const ann = await member(t, service, meeting_id);
    const asks = ['get_history', 'get_presence', 'notifications_get'];
    const result = await flood(90, (n) => ask(ann, asks[n % 3], { meeting_id }));
    const wait = assertBucket(result, { rate: 5, burst: 20 });
    await time(Math.ceil(wait * 1.1) + 1);
    await accepted(ask(ann, 'get_history', { meeting_id }));
  });

  test('everything: 50 a second and 100 at once', async (t) => {
    const ann = await as(t, service, fresh('ann'));
    const wait = assertBucket(await flood(280, () => ask(ann, 'message', 'x')), { rate: 50, burst: 100 });
    await time(Math.ceil(wait * 1.1) + 1);
    await settled(ann);
  });

  test('a room: 50 messages a second and 200 at once, whoever sends them', async (t) => {
    const meeting_id = fresh();
    const users = await Promise.all(range(1, 20).map(() => member(t, service, meeting_id)));
    // 20 of each, which is what one user may send at once: only the room's own bucket says no.
    const result = await flood(400, (n) => say(users[n % 20], meeting_id, `${n}`));
    assertBucket(result, { rate: 50, burst: 200 });
    const elsewhere = await member(t, service, fresh());
    await said(elsewhere, elsewhere.joined.meeting_id, 'another room has another bucket');
  });

  test('a refusal that nobody asked an ack for comes as chat_error', async (t) => {
    const meeting_id = fresh();
    const ann = await member(t, service, meeting_id);
    const errors = record(ann, 'chat_error');
    for (const n of range(1, 60)) ann.emit('chat_message', { meeting_id, text: 'x', client_id: `c-${n}` });
    await errors.some(({ ref }) => ref === 'c-60');
    const { event, error } = errors.items.at(-1);
    assert.deepEqual([event, error.code], ['chat_message', 'rate_limited']);
    assert.ok(error.retry_after_ms > 0, JSON.stringify(error));
  });
});

describe('RATE_LIMITS=off', () => {
  let service;
  const settings = { ...WITH_USERS, MAX_SOCKETS_PER_USER: '3', MAX_USERS_PER_ROOM: '3' };
  before(async () => (service = await startService(settings)));
  after(() => service.stop());

  test('lifts the buckets and the strikes', async (t) => {
    const meeting_id = fresh();
    const ann = await member(t, service, meeting_id);
    const { acks } = await flood(400, (n) => say(ann, meeting_id, `${n}`));
    assert.ok(acks.every(({ ok }) => ok));
    const errors = await flood(400, () => say(ann, meeting_id, ''));
    assert.ok(errors.acks.every(({ error }) => error?.code === 'invalid_payload'));
    await settled(ann);
  });

  test('leaves the cap of 100 rooms a socket', async (t) => {
    const user = fresh('ann');
    const ann = await as(t, service, user);
    const rooms = range(1, 101).map(() => fresh());
    for (const room of rooms.slice(0, 100)) await accepted(ask(ann, 'join_room', room));
    await refused(ask(ann, 'join_room', rooms[100]), 'limit_reached');
    await accepted(ask(ann, 'join_room', rooms[3]));
    const phone = await as(t, service, user);
    await accepted(ask(phone, 'join_room', rooms[100]));
    await accepted(ask(ann, 'leave_room', rooms[3]));
    await accepted(ask(ann, 'join_room', rooms[100]));
    await refused(ask(ann, 'join_room', rooms[3]), 'limit_reached');
  });

  test('leaves MAX_SOCKETS_PER_USER', async (t) => {
    const user = fresh('ann');
    const sockets = [];
    for (let n = 0; n < 3; n++) sockets.push(await as(t, service, user));
    const { error } = await tryToConnect(t, service, user);
    assertHas(error, { code: 'limit_reached' });
    await as(t, service, fresh('bob'));
    for (const socket of sockets) await settled(socket);
    sockets[1].disconnect();
    await eventually(async () => assert.ok((await tryToConnect(t, service, user)).ready));
  });

  test('leaves MAX_USERS_PER_ROOM, which counts users and not sockets', async (t) => {
    const meeting_id = fresh();
    const [users, devices] = [[], []];
    for (let n = 0; n < 3; n++) {
      users.push(await member(t, service, meeting_id));
      devices.push(await member(t, service, meeting_id, users[n].ready.user_id));
    }
    const late = await as(t, service, fresh('late'));
    await refused(ask(late, 'join_room', { meeting_id }), 'room_full');
    await refused(say(late, meeting_id, 'x'), 'not_joined');
    await accepted(ask(late, 'join_room', { meeting_id: fresh() }));
    await accepted(ask(users[0], 'leave_room', { meeting_id }));
    await refused(ask(late, 'join_room', { meeting_id }), 'room_full');
    await accepted(ask(devices[0], 'leave_room', { meeting_id }));
    // Free at the latest when the leave is told, after ten seconds.
    await eventually(() => accepted(ask(late, 'join_room', { meeting_id })), 2 * PATIENCE_MS);
  });
});

describe('strikes', () => {
  let service;
  before(async () => (service = await startService({ ...LIMITED, STRIKES: '20', PENALTY: '5s' })));
  after(() => service.stop());

  test('20 refusals are borne; one more closes, and keeps the user out for the penalty', async (t) => {
    const user = fresh('ann');
    const meeting_id = fresh();
    const ann = await member(t, service, meeting_id, user);
    const bob = await member(t, service, meeting_id);
    let refusals = 0;
    // One after the other, so that it is known what the server has counted.
    for (let n = 0; refusals < 20; n++) {
      assert.ok(n < 1000, 'messages have a limit');
      const ack = await say(ann, meeting_id, 'x');
      if (ack.ok) continue;
      assert.equal(ack.error.code, 'rate_limited', JSON.stringify(ack));
      refusals++;
    }
    await settled(ann);
    assert.ok(ann.connected, 'exactly at the limit');
    const gone = once(ann, 'disconnect');
    const more = setInterval(() => ann.emit('chat_message', { meeting_id, text: 'x' }), 5);
    t.after(() => clearInterval(more));
    await gone;
    clearInterval(more);
    const { error } = await tryToConnect(t, service, user);
    assertHas(error, { code: 'rate_limited' });
    assert.ok(error.retry_after_ms > 0 && error.retry_after_ms <= 5500, `retry_after_ms ${error.retry_after_ms}`);
    await said(bob, meeting_id, 'others do not notice');
    await as(t, service, fresh('cid'));
    await time(Math.ceil(error.retry_after_ms * 1.1) + 1);
    await settled(await as(t, service, user));
  });
});
