// Promise: who is there is told per user, not per socket, and without flicker; so are who types and who has read.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { accepted, as, fresh, member, range, refused, said, settled } from '../support/chat.mjs';
import { startService } from '../support/server.mjs';
import { WITH_USERS } from '../support/token.mjs';
import { PATIENCE_MS, ask, assertHas, once, record } from '../support/wait.mjs';

/** How long a leave is held back, and how long it may take to be heard on a machine that is busy. */
const HELD_BACK_MS = 10_000;
const LEAVE_MS = HELD_BACK_MS + PATIENCE_MS;

let service;
before(async () => (service = await startService(WITH_USERS)));
after(() => service.stop());

const nameOf = (user) => `Name of ${user}`;
const who = (socket) => socket.ready.user_id;
const told = (update) => [update.event, update.user?.id, update.count];
const presence = async (socket, meeting_id, more) => accepted(ask(socket, 'get_presence', { meeting_id, ...more }));

/** Somebody who sees who comes and goes, in a meeting of their own. */
async function observed(t) {
  const meeting_id = fresh();
  const observer = await member(t, service, meeting_id, fresh('observer'));
  return { meeting_id, observer, updates: record(observer, 'presence_update') };
}

/** Tests whose length is that of the held back leaves run side by side. */
describe('who is there', { concurrency: true }, () => {
  test('is told when a user comes, once for all their devices', async (t) => {
    const { meeting_id, updates } = await observed(t);
    const [bob, cid] = [fresh('bob'), fresh('cid')];
    for (const user of [bob, bob, cid, bob]) await member(t, service, meeting_id, user);
    await updates.some(({ user }) => user?.id === cid);
    assert.deepEqual(updates.items.map(told), [
      ['join', bob, 2],
      ['join', cid, 3],
    ]);
    const [{ ts, ...update }] = updates.items;
    assert.ok(Math.abs(ts - Date.now()) < 60_000, `ts ${ts}`);
    assert.deepEqual(update, { meeting_id, event: 'join', user: { id: bob, name: nameOf(bob) }, count: 2 });
  });

  test('does not change when a joined socket joins again', async (t) => {
    const { meeting_id, updates } = await observed(t);
    const bob = await member(t, service, meeting_id);
    await accepted(ask(bob, 'join_room', { meeting_id }));
    const cid = await member(t, service, meeting_id);
    await updates.some(({ user }) => user?.id === who(cid));
    assert.deepEqual(updates.items.map(told), [
      ['join', who(bob), 2],
      ['join', who(cid), 3],
    ]);
  });

  for (const [name, go] of [
    ['leaves', (socket, meeting_id) => ask(socket, 'leave_room', { meeting_id })],
    ['says goodbye', (socket) => socket.disconnect()],
    ['is cut off', (socket) => socket.io.engine.transport.ws._socket.destroy()],
  ]) {
    test(`is told ten seconds after the last device of a user ${name}`, async (t) => {
      const { meeting_id, updates } = await observed(t);
      const user = fresh('bob');
      const devices = [await member(t, service, meeting_id, user), await member(t, service, meeting_id, user)];
      await go(devices[0], meeting_id);
      const start = performance.now();
      await go(devices[1], meeting_id);
      await updates.count(2, LEAVE_MS);
      const passed = performance.now() - start;
      assert.ok(passed > HELD_BACK_MS - 1000, `after ${passed} ms`);
      assert.deepEqual(updates.items.map(told), [
        ['join', user, 2],
        ['leave', user, 1],
      ]);
      assertHas(updates.items[1], { meeting_id, user: { id: user, name: nameOf(user) } });
    });
  }

  test('does not change while one device of a user stays', async (t) => {
    const { meeting_id, updates } = await observed(t);
    const [bob, cid] = [fresh('bob'), fresh('cid')];
    const phone = await member(t, service, meeting_id, bob);
    await member(t, service, meeting_id, bob);
    const fence = await member(t, service, meeting_id, cid);
    await accepted(ask(phone, 'leave_room', { meeting_id }));
    await accepted(ask(fence, 'leave_room', { meeting_id })); // Held back for as long, and later: heard last.
    await updates.some(({ event }) => event === 'leave', LEAVE_MS);
    assert.deepEqual(updates.items.map(told), [
      ['join', bob, 2],
      ['join', cid, 3],
      ['leave', cid, 2],
    ]);
  });

  test('does not change for a user who is back within ten seconds', async (t) => {
    const { meeting_id, updates, observer } = await observed(t);
    const [bob, cid, dan] = [fresh('bob'), fresh('cid'), fresh('dan')];
    const leaves = await member(t, service, meeting_id, bob);
    const reconnects = await member(t, service, meeting_id, cid);
    const fence = await member(t, service, meeting_id, dan);
    await accepted(ask(leaves, 'leave_room', { meeting_id }));
    await accepted(ask(leaves, 'join_room', { meeting_id }));
    reconnects.disconnect();
    await member(t, service, meeting_id, cid);
    await accepted(ask(fence, 'leave_room', { meeting_id }));
    await updates.some(({ event }) => event === 'leave', LEAVE_MS);
    assert.deepEqual(updates.items.map(told), [
      ['join', bob, 2],
      ['join', cid, 3],
      ['join', dan, 4],
      ['leave', dan, 3],
    ]);
    assertHas(await presence(observer, meeting_id), { count: 3 });
  });

  test('is told again for a user who comes back after the leave was told', async (t) => {
    const { meeting_id, updates } = await observed(t);
    const bob = await member(t, service, meeting_id);
    await accepted(ask(bob, 'leave_room', { meeting_id }));
    await updates.count(2, LEAVE_MS);
    await accepted(ask(bob, 'join_room', { meeting_id }));
    await updates.count(3);
    assert.deepEqual(
      updates.items.map(({ event }) => event),
      ['join', 'leave', 'join'],
    );
  });

  test('is not told of services, who are not counted either', async (t) => {
    const { meeting_id, observer, updates } = await observed(t);
    await member(t, service, meeting_id, fresh('robot'), { role: 'service' });
    const bob = await member(t, service, meeting_id);
    await updates.count(1);
    assert.deepEqual(updates.items.map(told), [['join', who(bob), 2]]);
    const { users, count } = await presence(observer, meeting_id);
    assert.deepEqual([count, users.map(({ id }) => id).sort()], [2, [who(bob), who(observer)].sort()]);
  });

  test('is told by counts alone in rooms of more than 200 users', async (t) => {
    const { meeting_id, updates } = await observed(t);
    const crowd = range(1, 199).map(() => fresh('crowd'));
    // A few at a time: 200 handshakes at once are no subject of this test.
    for (let n = 0; n < crowd.length; n += 20) {
      await Promise.all(crowd.slice(n, n + 20).map((user) => member(t, service, meeting_id, user)));
    }
    await updates.count(199);
    assert.deepEqual(
      updates.items.map(told),
      updates.items.map(({ user }, n) => ['join', user?.id, n + 2]),
    );
    assert.deepEqual(new Set(updates.items.map(({ user }) => user.id)), new Set(crowd));
    for (let n = 0; n < 3; n++) await member(t, service, meeting_id, fresh('crowd'));
    await updates.some(({ count }) => count === 203);
    for (const { ts, ...update } of updates.items.slice(199)) {
      assert.ok(update.count > 200 && update.count <= 203, JSON.stringify(update));
      assert.deepEqual(update, { meeting_id, event: 'count', count: update.count });
      assert.equal(typeof ts, 'number');
    }
  });
});

describe('get_presence', () => {
  test('lists users, since when they are there and by how many devices', async (t) => {
    const { meeting_id, observer } = await observed(t);
    const begin = Date.now();
    const bob = fresh('bob');
    for (let n = 0; n < 3; n++) await member(t, service, meeting_id, bob);
    const { ok, ...answer } = await presence(observer, meeting_id);
    assertHas(answer, { count: 2, truncated: false });
    assert.equal(answer.users.length, 2);
    const { since, ...user } = answer.users.find(({ id }) => id === bob);
    assert.deepEqual(user, { id: bob, name: nameOf(bob), devices: 3 });
    assert.ok(Math.abs(since - begin) < 60_000, `since ${since}`);
    assertHas(
      answer.users.find(({ id }) => id === who(observer)),
      { devices: 1 },
    );
  });

  test('counts the devices that are left', async (t) => {
    const { meeting_id, observer } = await observed(t);
    const phone = await member(t, service, meeting_id, who(observer));
    const desk = await member(t, service, meeting_id, who(observer));
    const devices = async () => (await presence(observer, meeting_id)).users.map((user) => user.devices);
    assert.deepEqual(await devices(), [3]);
    await accepted(ask(phone, 'leave_room', { meeting_id }));
    await accepted(ask(phone, 'leave_room', { meeting_id }));
    assert.deepEqual(await devices(), [2]);
    await accepted(ask(desk, 'leave_room', { meeting_id }));
    assert.deepEqual(await devices(), [1]);
  });

  test('gives as many as asked for, at least one, and says if that is not all', async (t) => {
    const { meeting_id, observer } = await observed(t);
    for (let n = 0; n < 2; n++) await member(t, service, meeting_id);
    const cases = [
      [1, 1, true],
      [2, 2, true],
      [3, 3, false],
      [1001, 3, false],
      [0, 1, true],
      [-1, 1, true],
    ];
    for (const [limit, length, truncated] of cases) {
      const answer = await presence(observer, meeting_id, { limit });
      assertHas(answer, { count: 3, truncated });
      assert.equal(answer.users.length, length, `limit ${limit}`);
    }
  });

  test('works without joining, and of a meeting where nobody is', async (t) => {
    const { meeting_id, observer } = await observed(t);
    const reader = await as(t, service, fresh('reader'));
    const { users, count } = await presence(reader, meeting_id);
    assert.deepEqual([users.map(({ id }) => id), count], [[who(observer)], 1]);
    assert.deepEqual(await presence(reader, fresh()), { ok: true, count: 0, users: [], truncated: false });
  });

  test('comes with a join if it is asked for', async (t) => {
    const { meeting_id, observer } = await observed(t);
    const bob = await as(t, service, fresh('bob'));
    const ack = await accepted(ask(bob, 'join_room', { meeting_id, presence: true }));
    const { users } = await presence(bob, meeting_id);
    const others = (list) => list.filter(({ id }) => id !== who(bob));
    assert.deepEqual(others(ack.presence), others(users));
    assertHas(others(users)[0], { id: who(observer), name: nameOf(who(observer)), devices: 1 });
    const without = await accepted(ask(bob, 'join_room', { meeting_id, presence: false }));
    assert.ok(!('presence' in without), JSON.stringify(without));
  });
});

describe('typing', () => {
  const type = (socket, meeting_id, more) => accepted(ask(socket, 'typing', { meeting_id, ...more }));
  const states = ({ items }) => items.map(({ user_id, active }) => [user_id, active]);

  test('is told to the other users, not to the own devices', async (t) => {
    const { meeting_id, observer } = await observed(t);
    const bob = await member(t, service, meeting_id);
    const other = await member(t, service, meeting_id, who(bob));
    const own = [record(bob, 'typing'), record(other, 'typing')];
    const heard = record(observer, 'typing');
    assert.deepEqual(await type(bob, meeting_id), { ok: true });
    await type(bob, meeting_id, { active: false });
    await heard.count(2);
    const { active, ...rest } = heard.items[0];
    assert.deepEqual(rest, { meeting_id, user_id: who(bob), name: nameOf(who(bob)), expires_in_ms: 6000 });
    assert.deepEqual(states(heard), [
      [who(bob), true],
      [who(bob), false],
    ]);
    for (const socket of [bob, other]) await settled(socket);
    assert.deepEqual(own.map(states), [[], []]);
  });

  for (const [name, go] of [
    ['leaves', (socket, meeting_id) => accepted(ask(socket, 'leave_room', { meeting_id }))],
    ['disconnects', (socket) => socket.disconnect()],
    ['is cut off', (socket) => socket.io.engine.transport.ws._socket.destroy()],
  ]) {
    test(`ends when the typist ${name}`, async (t) => {
      const { meeting_id, observer } = await observed(t);
      const bob = await member(t, service, meeting_id);
      const heard = record(observer, 'typing');
      await type(bob, meeting_id);
      await heard.count(1);
      await go(bob, meeting_id);
      await heard.count(2);
      assert.deepEqual(states(heard)[1], [who(bob), false]);
    });
  }

  test('ends with the message, without a further event', async (t) => {
    const { meeting_id, observer } = await observed(t);
    const bob = await member(t, service, meeting_id);
    const heard = record(observer, 'typing');
    await type(bob, meeting_id);
    await said(bob, meeting_id, 'done');
    await accepted(ask(bob, 'leave_room', { meeting_id }));
    await settled(observer);
    assert.deepEqual(states(heard), [[who(bob), true]]);
  });

  test('needs a joined meeting and the right to write', async (t) => {
    const { meeting_id, observer } = await observed(t);
    const heard = record(observer, 'typing');
    await refused(ask(await as(t, service, fresh('outside')), 'typing', { meeting_id }), 'not_joined');
    const reader = await member(t, service, meeting_id, fresh('reader'), { meetings: { [meeting_id]: 'read' } });
    await refused(ask(reader, 'typing', { meeting_id }), 'forbidden');
    await settled(observer);
    assert.deepEqual(states(heard), []);
  });
});

describe('what somebody has read', () => {
  const mark = async (socket, meeting_id, seq) => (await accepted(ask(socket, 'mark_read', { meeting_id, seq }))).seq;
  const talk = async (socket, meeting_id, count) => {
    for (const n of range(1, count)) await said(socket, meeting_id, `${n}`);
  };

  test('only goes forward, and at most to the top', async (t) => {
    const { meeting_id, observer } = await observed(t);
    const bob = await member(t, service, meeting_id);
    await talk(observer, meeting_id, 5);
    for (const [seq, highest] of [
      [2, 2],
      [1, 2],
      [0, 2],
      [3, 3],
      [3, 3],
      [999, 5],
      [4, 5],
      [Number.MAX_SAFE_INTEGER, 5],
    ]) {
      assert.equal(await mark(bob, meeting_id, seq), highest, `after ${seq}`);
    }
    await said(observer, meeting_id, 'six');
    assert.equal(await mark(bob, meeting_id, 5), 5, 'what was claimed above the top does not count later');
  });

  test('is told to the others, once a second', async (t) => {
    const { meeting_id, observer } = await observed(t);
    const bob = await member(t, service, meeting_id);
    const top = 30;
    await talk(observer, meeting_id, top);
    const receipts = record(observer, 'read_receipt');
    const start = performance.now();
    for (const seq of range(1, top)) await mark(bob, meeting_id, seq);
    await receipts.some(({ seq }) => seq === top);
    const seconds = (performance.now() - start) / 1000;
    const { items } = receipts;
    assert.ok(items.length <= seconds + 2, `${items.length} receipts in ${seconds} s`);
    assert.ok(
      items.every(({ seq }, n) => n === 0 || seq > items[n - 1].seq),
      JSON.stringify(items),
    );
    const { ts, ...receipt } = items.at(-1);
    assert.deepEqual(receipt, { meeting_id, user_id: who(bob), seq: top });
    assert.ok(Math.abs(ts - Date.now()) < 60_000, `ts ${ts}`);
  });

  test('is not told again when the mark does not move', async (t) => {
    const { meeting_id, observer } = await observed(t);
    const [bob, cid] = [await member(t, service, meeting_id), await member(t, service, meeting_id)];
    await talk(observer, meeting_id, 2);
    const receipts = record(observer, 'read_receipt');
    await mark(bob, meeting_id, 2);
    await receipts.count(1);
    for (const seq of [2, 1, 5]) await mark(bob, meeting_id, seq);
    await mark(cid, meeting_id, 1); // Held back for as long, and later: heard last.
    await receipts.some(({ user_id }) => user_id === who(cid));
    assert.deepEqual(
      receipts.items.map(({ user_id, seq }) => [user_id, seq]),
      [
        [who(bob), 2],
        [who(cid), 1],
      ],
    );
  });

  test('may be marked without joining', async (t) => {
    const { meeting_id, observer } = await observed(t);
    await talk(observer, meeting_id, 3);
    const reader = await as(t, service, fresh('reader'));
    const receipts = record(observer, 'read_receipt');
    assert.equal(await mark(reader, meeting_id, 3), 3);
    await receipts.count(1);
    assertHas(receipts.items[0], { user_id: who(reader), seq: 3 });
  });

  test('is told to 50 users, and of more only to the own devices', async (t) => {
    const { meeting_id, observer } = await observed(t);
    const bob = await member(t, service, meeting_id);
    const phone = await member(t, service, meeting_id, who(bob));
    const desk = await as(t, service, who(observer));
    await Promise.all(range(3, 50).map(() => member(t, service, meeting_id)));
    await talk(observer, meeting_id, 2);
    const [others, own] = [record(observer, 'read_receipt'), record(phone, 'read_receipt')];
    await mark(bob, meeting_id, 1);
    await others.count(1);
    await own.count(1);
    await member(t, service, meeting_id);
    await mark(bob, meeting_id, 2);
    await mark(desk, meeting_id, 2);
    await own.count(2);
    assertHas(own.items[1], { user_id: who(bob), seq: 2 });
    await others.count(2);
    assertHas(others.items[1], { user_id: who(observer), seq: 2 });
    await settled(phone);
    assert.equal(own.items.length, 2, JSON.stringify(own.items));
  });
});
