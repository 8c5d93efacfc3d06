// Promise: whatever instance somebody comes to, it is the same chat: presence, typing, reading, notifications, the log,
// and what is done over HTTP.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

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
import { asUser, startCluster } from '../support/interop/cluster.mjs';
import { Rest, assertStatus, messages } from '../support/rest.mjs';
import { PATIENCE_MS, ask, assertHas, eventually, once, record } from '../support/wait.mjs';

/** How long a leave is held back, and how long it may take to be heard on a machine that is busy. */
const HELD_BACK_MS = 10_000;
const LEAVE_MS = HELD_BACK_MS + PATIENCE_MS;

let cluster;
let a;
let b;
/** Nobody has joined anything here unless a test says so. */
let c;
before(async () => {
  cluster = await startCluster({ instances: 3 });
  [a, b, c] = cluster.services;
});
after(() => cluster.stop());

const nameOf = (user) => `Name of ${user}`;
const sibling = (service) => Rest.sibling(service);
const leave = (socket, meeting_id) => accepted(ask(socket, 'leave_room', { meeting_id }));

/** A meeting with an observer on each of two instances. */
async function observed(t) {
  const meeting = fresh();
  const users = [fresh('observer'), fresh('observer')];
  const first = await member(t, a, meeting, users[0]);
  const heard = record(first, 'presence_update');
  const observers = [first, await member(t, b, meeting, users[1])];
  await heard.some(({ user }) => user?.id === users[1]);
  return { meeting, users, observers, updates: observers.map((socket) => record(socket, 'presence_update')) };
}

const told = ({ event, user, count }) => [event, user?.id, count];

// Their length is that of the held back leaves.
describe('who is there', { concurrency: true }, () => {
  test('is told on all instances, once for all devices of a user wherever they are', async (t) => {
    const { meeting, updates } = await observed(t);
    const [bob, cid] = [fresh('bob'), fresh('cid')];
    for (const service of [a, b, c, a]) await member(t, service, meeting, bob);
    await member(t, c, meeting, cid);
    for (const { some, items } of updates) {
      await some(({ user }) => user?.id === cid);
      assert.deepEqual(items.map(told), [['join', bob, 3], ['join', cid, 4]]); // prettier-ignore
      assertHas(items[0], { meeting_id: meeting, user: { id: bob, name: nameOf(bob) } });
    }
  });

  test('is the same on every instance, also where nobody is', async (t) => {
    const { meeting, users, observers } = await observed(t);
    const bob = fresh('bob');
    const devices = [
      await member(t, a, meeting, bob),
      await member(t, b, meeting, bob),
      await member(t, b, meeting, bob),
    ];
    const reader = await as(t, c, fresh('reader'));
    const seen = async () => {
      const answers = await Promise.all(
        [...observers, reader].map((socket) => accepted(ask(socket, 'get_presence', { meeting_id: meeting }))),
      );
      for (const service of [a, b, c]) {
        const answer = assertStatus(await asUser(service, fresh('reader')).get(`/meetings/${meeting}/presence`), 200);
        answers.push({ ok: true, ...answer.json() });
      }
      const lists = answers.map(({ count, users: all, truncated }) => [
        count,
        truncated,
        Object.fromEntries(all.map(({ id, devices }) => [id, devices])),
      ]);
      for (const list of lists) assert.deepEqual(list, lists[0]);
      return lists[0];
    };
    const others = { [users[0]]: 1, [users[1]]: 1 };
    await eventually(async () => assert.deepEqual(await seen(), [3, false, { ...others, [bob]: 3 }]));
    await leave(devices[0], meeting);
    devices[2].disconnect();
    // A user's last device at an instance is held back as well.
    await eventually(async () => assert.deepEqual(await seen(), [3, false, { ...others, [bob]: 1 }]), LEAVE_MS);
    const { presence, members } = await accepted(ask(reader, 'join_room', { meeting_id: meeting, presence: true }));
    assert.deepEqual([members, presence.length], [4, 4]);
  });

  test('does not change while a device stays on another instance', async (t) => {
    const { meeting, updates } = await observed(t);
    const [bob, cid] = [fresh('bob'), fresh('cid')];
    const phone = await member(t, a, meeting, bob);
    await member(t, b, meeting, bob);
    const other = await member(t, c, meeting, cid);
    await leave(phone, meeting);
    await leave(other, meeting); // Held back for as long, and later: heard last.
    for (const { some, items } of updates) {
      await some(({ event }) => event === 'leave', LEAVE_MS);
      assert.deepEqual(items.map(told), [['join', bob, 3], ['join', cid, 4], ['leave', cid, 3]]); // prettier-ignore
    }
  });

  test('does not change for a user who comes back on another instance within ten seconds', async (t) => {
    const { meeting, updates, observers } = await observed(t);
    const [bob, cid, dan] = [fresh('bob'), fresh('cid'), fresh('dan')];
    const leaves = await member(t, a, meeting, bob);
    const goes = await member(t, b, meeting, cid);
    const last = await member(t, c, meeting, dan);
    await leave(leaves, meeting);
    goes.disconnect();
    await member(t, b, meeting, bob);
    await member(t, c, meeting, cid);
    await leave(last, meeting);
    for (const { some, items } of updates) {
      await some(({ event }) => event === 'leave', LEAVE_MS);
      assert.deepEqual(items.map(told), [
        ['join', bob, 3],
        ['join', cid, 4],
        ['join', dan, 5],
        ['leave', dan, 4],
      ]);
    }
    assertHas(await accepted(ask(observers[0], 'get_presence', { meeting_id: meeting })), { count: 4 });
  });

  test('is told ten seconds after the last device left, once, on all instances', async (t) => {
    const { meeting, updates } = await observed(t);
    const bob = fresh('bob');
    const devices = [
      await member(t, a, meeting, bob),
      await member(t, b, meeting, bob),
      await member(t, c, meeting, bob),
    ];
    devices[0].disconnect();
    await leave(devices[1], meeting);
    const start = performance.now();
    devices[2].disconnect();
    const fence = fresh('fence');
    for (const { count } of updates) await count(2, LEAVE_MS);
    assert.ok(performance.now() - start > HELD_BACK_MS - 1000, `after ${performance.now() - start} ms`);
    await member(t, c, meeting, fence);
    for (const { some, items } of updates) {
      await some(({ user }) => user?.id === fence);
      assert.deepEqual(items.map(told), [['join', bob, 3], ['leave', bob, 2], ['join', fence, 3]]); // prettier-ignore
    }
  });

  test('is not told of services, who are not counted either', async (t) => {
    const { meeting, updates, observers } = await observed(t);
    await member(t, c, meeting, fresh('robot'), { role: 'service' });
    const bob = fresh('bob');
    await member(t, c, meeting, bob);
    for (const { some, items } of updates) {
      await some(({ user }) => user?.id === bob);
      assert.deepEqual(items.map(told), [['join', bob, 3]]);
    }
    assertHas(await accepted(ask(observers[1], 'get_presence', { meeting_id: meeting })), { count: 3 });
  });
});

/** A meeting with two users: the first on two instances, the second on one of them. */
async function pair(t) {
  const meeting = fresh();
  const [ada, bob] = [fresh('ada'), fresh('bob')];
  const desk = await member(t, a, meeting, ada);
  const phone = await member(t, b, meeting, ada);
  const other = await member(t, b, meeting, bob);
  return { meeting, ada, bob, desk, phone, other };
}

describe('typing', () => {
  test('is told on other instances, but not to the devices of whoever types', async (t) => {
    const { meeting, ada, desk, phone, other } = await pair(t);
    const heard = record(other, 'typing');
    const own = record(phone, 'typing');
    await accepted(ask(desk, 'typing', { meeting_id: meeting }));
    await heard.count(1);
    await accepted(ask(desk, 'typing', { meeting_id: meeting, active: false }));
    await heard.count(2);
    assertHas(heard.items[0], {
      meeting_id: meeting,
      user_id: ada,
      name: nameOf(ada),
      active: true,
      expires_in_ms: 6000,
    });
    assertHas(heard.items[1], { user_id: ada, active: false });
    const echo = once(phone, 'chat_message');
    await said(desk, meeting, 'done');
    await echo;
    await settled(phone);
    assert.deepEqual(own.items, []);
  });

  for (const [name, go] of [
    ['goes', (socket) => socket.disconnect()],
    ['leaves', (socket, meeting) => leave(socket, meeting)],
    ['is cut off', (socket) => socket.io.engine.transport.ws._socket.destroy()],
  ]) {
    test(`ends for other instances when the socket ${name}`, async (t) => {
      const { meeting, ada, desk, other } = await pair(t);
      const heard = record(other, 'typing');
      await accepted(ask(desk, 'typing', { meeting_id: meeting }));
      await heard.count(1);
      await go(desk, meeting);
      await heard.count(2);
      assertHas(heard.items[1], { user_id: ada, active: false });
    });
  }
});

describe('reading', () => {
  test('on one instance is told to the others, and to the own devices there', async (t) => {
    const { meeting, ada, desk, phone, other } = await pair(t);
    for (const text of ['1', '2', '3']) await said(other, meeting, text);
    const receipt = once(other, 'read_receipt');
    const unread = once(phone, 'unread');
    assert.deepEqual(await accepted(ask(desk, 'mark_read', { meeting_id: meeting, seq: 2 })), { ok: true, seq: 2 });
    assertHas((await receipt)[0], { meeting_id: meeting, user_id: ada, seq: 2 });
    assertHas((await unread)[0].meetings, { [meeting]: 1 });
    assert.deepEqual(await accepted(ask(phone, 'mark_read', { meeting_id: meeting, seq: 1 })), { ok: true, seq: 2 });
  });

  test('counts what was said on other instances, wherever one asks', async (t) => {
    const { meeting, ada, desk, phone, other } = await pair(t);
    for (const text of ['1', '2', '3']) await said(other, meeting, text);
    await said(desk, meeting, 'my own');
    for (const service of [a, b, c]) {
      assert.equal((await as(t, service, ada)).ready.unread.meetings[meeting], 3);
      assert.equal((await asUser(service, ada).get('/unread')).json().meetings[meeting], 3);
    }
    assertStatus(await asUser(c, ada).put(`/meetings/${meeting}/read`, { seq: 99 }), 200);
    for (const socket of [desk, phone]) {
      const { ok, seq } = await accepted(ask(socket, 'mark_read', { meeting_id: meeting, seq: 0 }));
      assert.deepEqual([ok, seq], [true, 4]);
    }
    assert.equal((await as(t, a, ada)).ready.unread.meetings[meeting], 0);
  });

  test('notifications on one instance is told to devices on another', async (t) => {
    const { ada, desk, phone } = await pair(t);
    const heard = [once(desk, 'notification'), once(phone, 'notification')];
    await sibling(c).update({ id: fresh('update'), type: 'x', recipients: [ada] });
    const [[{ id, nseq }]] = await Promise.all(heard);
    const unread = once(phone, 'unread');
    assertHas(await accepted(ask(desk, 'notifications_read', { ids: [id] })), { unread: 0 });
    assertHas((await unread)[0], { notifications: 0 });
    const { items } = await accepted(ask(phone, 'notifications_get', {}));
    assert.deepEqual(items.map((item) => [item.nseq, item.read]), [[nseq, true]]); // prettier-ignore
  });
});

describe('a message', () => {
  test('that is sent again to another instance is the same message', async (t) => {
    const { meeting, desk, phone, other } = await pair(t);
    const heard = record(other, 'chat_message');
    const first = await said(desk, meeting, 'once', { client_id: 'c-1' });
    const again = await said(phone, meeting, 'once', { client_id: 'c-1' });
    const overHttp = await asUser(c, desk.ready.user_id).post(
      messages(meeting),
      { text: 'once' },
      { 'Idempotency-Key': 'c-1' },
    );
    assert.deepEqual([first.duplicate, again], [false, { ...first, duplicate: true }]);
    assert.deepEqual([overHttp.status, overHttp.json().id], [200, first.id]);
    await refused(say(phone, meeting, 'other', { client_id: 'c-1' }), 'conflict');
    await said(desk, meeting, 'two');
    await heard.count(2);
    assert.deepEqual(seqs(heard.items), [1, 2]);
  });

  test('can be changed from every instance, and everybody hears the same', async (t) => {
    const { meeting, desk, phone, other } = await pair(t);
    const heard = [desk, phone, other].map(log);
    const { id } = await said(desk, meeting, 'text');
    await accepted(ask(phone, 'edit_message', { meeting_id: meeting, id, text: 'new' }));
    await accepted(ask(other, 'react', { meeting_id: meeting, id, emoji: '+1' }));
    await accepted(ask(desk, 'react', { meeting_id: meeting, id, emoji: '+1' }));
    assertStatus(await asUser(c, desk.ready.user_id).delete(messages(meeting, id)), 204);
    for (const { count } of heard) await count(5);
    for (const { items } of heard) {
      assert.deepEqual(seqs(items), range(1, 5));
      assert.deepEqual(items, heard[0].items);
    }
    assert.equal(heard[0].items[3].count, 2);
    const items = await history(await as(t, c, fresh('reader')), meeting);
    assert.deepEqual(seqs(items), range(1, 5));
    assert.ok(!JSON.stringify(items).includes('"new"'), 'a deleted text is erased');
  });

  test('can be resumed behind on another instance', async (t) => {
    const { meeting, desk, phone, other } = await pair(t);
    const { epoch } = await said(desk, meeting, '1');
    other.disconnect();
    for (const n of [2, 3, 4]) await said(n % 2 ? desk : phone, meeting, `${n}`);
    const back = await as(t, c, other.ready.user_id);
    const ack = await accepted(ask(back, 'join_room', { meeting_id: meeting, since: { epoch, seq: 1 } }));
    assertHas(ack, { recovered: true, epoch, seq: 4 });
    assert.deepEqual(ack.events.map(({ text }) => text), ['2', '3', '4']); // prettier-ignore
    const live = once(back, 'chat_message');
    await said(desk, meeting, '5');
    assertHas((await live)[0], { seq: 5, epoch });
  });

  test('tells those who are mentioned or replied to, on other instances and offline', async (t) => {
    const { meeting, desk, bob, other } = await pair(t);
    const absent = fresh('absent');
    const mentioned = await as(t, c, fresh('mentioned'));
    const heard = once(mentioned, 'notification');
    const { id } = await said(other, meeting, 'question');
    const replied = once(other, 'notification');
    await said(desk, meeting, 'answer', { mentions: [mentioned.ready.user_id, absent], reply_to: id });
    assertHas((await heard)[0], { kind: 'chat.mention', meeting_id: meeting });
    assertHas((await replied)[0], { kind: 'chat.reply', meeting_id: meeting });
    const kinds = async (user) => (await asUser(c, user).get('/notifications')).json().items.map(({ kind }) => kind);
    await eventually(async () => assert.deepEqual(await kinds(absent), ['chat.mention']));
    assert.deepEqual(await kinds(bob), ['chat.reply']);
  });

  test('tells those who may read it by what their token says alone, once, wherever they are connected', async (t) => {
    const own = await startCluster({ instances: 3, settings: { ROOM_POLICY: 'members' } });
    t.after(() => own.stop());
    const [near, far, farther] = own.services;
    const [meeting, other] = [fresh(), fresh()];
    const author = await member(t, near, meeting, fresh('author'), { meetings: [meeting] });
    const [reader, stranger] = [fresh('reader'), fresh('stranger')];
    const mayRead = { meetings: { [meeting]: 'read' } };
    const devices = await Promise.all([far, farther, far].map((service) => as(t, service, reader, mayRead)));
    const told = devices.map((socket) => record(socket, 'notification'));
    const outside = record(await as(t, far, stranger, { meetings: [other] }), 'notification');
    const { id, seq } = await said(author, meeting, 'question', { mentions: [reader, stranger] });
    for (const { count } of told) await count(1);
    // What comes last shows that no more comes.
    const last = { id: fresh('last'), type: 'last', recipients: [reader, stranger], persist: false };
    await sibling(near).update(last);
    for (const { some } of [...told, outside]) await some((notice) => notice.id === last.id);
    for (const { items } of told) {
      assert.deepEqual(items.map(({ kind }) => kind), ['chat.mention', 'last']); // prettier-ignore
      assertHas(items[0], { id: `${id}.mention`, meeting_id: meeting, nseq: 1 });
      assertHas(items[0].data, { message_id: id, seq });
    }
    assert.deepEqual(outside.items.map(({ kind }) => kind), ['last']); // prettier-ignore
    for (const service of own.services) {
      const { items } = (await asUser(service, reader, mayRead).get('/notifications')).json();
      assert.deepEqual(items.map(({ kind }) => kind), ['chat.mention']); // prettier-ignore
    }
  });

  describe('whose mention could not be kept', () => {
    /** Two instances with a member on each, and the Redis of theirs. */
    async function scene(t) {
      const own = await startCluster();
      t.after(() => own.stop());
      const [near, far] = own.services;
      const meeting = fresh();
      const author = await member(t, near, meeting, fresh('author'));
      const device = await as(t, far, fresh('mentioned'));
      const user = device.ready.user_id;
      const send = () => said(author, meeting, 'question', { mentions: [user], client_id: 'c-1' });
      return { near, far, author, user, send, told: record(device, 'notification'), redis: await own.redis.client() };
    }

    test('tells who is mentioned when it is sent again', async (t) => {
      const { near, far, user, send, told, redis } = await scene(t);
      await redis.set(`chat:{u:${user}}:inbox`, 'x');
      const { id, duplicate } = await send();
      assert.equal(duplicate, false);
      await eventually(() => assert.match(near.log, /a notification is lost/));
      await redis.del(`chat:{u:${user}}:inbox`);
      assertHas(await send(), { id, duplicate: true });
      await told.count(1);
      assertHas(told.items[0], { kind: 'chat.mention', nseq: 1, id: `${id}.mention` });
      // And once only, however often it is sent.
      assertHas(await send(), { id, duplicate: true });
      const last = { id: fresh('last'), type: 'last', recipients: [user] };
      await sibling(near).update(last);
      await told.some((notice) => notice.id === last.id);
      const { items } = (await asUser(far, user).get('/notifications')).json();
      assert.deepEqual(items.map(({ kind }) => kind).sort(), ['chat.mention', 'last']); // prettier-ignore
      assert.equal(told.items.length, 2);
    });

    test('tells who is mentioned when Redis takes it again', async (t) => {
      const { near, far, author, user, send, told, redis } = await scene(t);
      // All that the service uses but what is kept of users.
      const keys = ['chat:{m:*', 'chat:{cluster}*', 'chat:claim:*', 'chat:revoked:*', 'meeting*', 'auth:revoked:*'];
      await redis.sendCommand(['ACL', 'SETUSER', 'default', 'resetkeys', ...keys.map((key) => `~${key}`)]);
      const { id, duplicate } = await send();
      assert.equal(duplicate, false);
      await eventually(() => assert.match(near.log, /NOPERM/));
      await settled(author);
      assert.deepEqual(told.items, []);
      await redis.sendCommand(['ACL', 'SETUSER', 'default', 'allkeys']);
      await told.count(1);
      assertHas(told.items[0], { kind: 'chat.mention', nseq: 1, id: `${id}.mention` });
      const { items } = (await asUser(far, user).get('/notifications')).json();
      assert.deepEqual(items.map((item) => item.id), [`${id}.mention`]); // prettier-ignore
    });
  });

  test('by POST on an instance where nobody is reaches the others', async (t) => {
    const { meeting, ada, desk, phone, other } = await pair(t);
    const heard = [desk, phone, other].map((socket) => once(socket, 'chat_message'));
    const answer = assertStatus(await asUser(c, ada).post(messages(meeting), { text: 'over HTTP' }), 201).json();
    for (const event of heard) assertHas((await event)[0], { id: answer.id, seq: 1, text: 'over HTTP', sender: ada });
    for (const service of [a, b, c]) {
      const { items } = (await asUser(service, ada).get(messages(meeting))).json();
      assert.deepEqual(items.map((item) => item.id), [answer.id]); // prettier-ignore
    }
  });
});

describe('POST /publish on one instance reaches the sockets of all', () => {
  const targets = [
    ['of a meeting', ({ meeting }) => ({ meeting_id: meeting }), ['desk', 'phone', 'other']],
    ['of users', ({ ada }) => ({ user_ids: [ada] }), ['desk', 'phone']],
    ['of everybody', () => ({ broadcast: true }), ['desk', 'phone', 'other', 'outside']],
  ];
  for (const [name, target, names] of targets) {
    test(name, async (t) => {
      const scene = await pair(t);
      const sockets = { ...scene, outside: await as(t, c, fresh('outside')) };
      const [event, data] = [fresh('event'), { n: 1, s: '\u{1f600}' }];
      const heard = ['desk', 'phone', 'other', 'outside'].map((who) => [who, record(sockets[who], event)]);
      const body = { ...target(scene), event, data, idempotency_key: fresh('key') };
      for (const service of [a, a, c]) {
        const answer = assertStatus(await sibling(service).post('/publish', body), 202).json();
        assert.equal(answer.id, body.idempotency_key);
      }
      for (const [who, { count }] of heard) if (names.includes(who)) await count(1);
      const fence = ['desk', 'phone', 'other', 'outside'].map((who) => once(sockets[who], `${event}-end`));
      await sibling(a).post('/publish', { broadcast: true, event: `${event}-end`, data: null });
      await Promise.all(fence);
      for (const [who, { items }] of heard) assert.deepEqual(items, names.includes(who) ? [data] : [], who);
    });
  }

  test('and what is to be kept is kept once', async (t) => {
    const { meeting, bob, desk, phone, other } = await pair(t);
    const heard = [desk, phone, other].map((socket) => once(socket, 'meeting_update'));
    const body = { event: 'poll.closed', data: { a: 1 }, persist: true };
    const { seq } = (await sibling(c).post('/publish', { ...body, meeting_id: meeting })).json();
    for (const event of heard) assertHas((await event)[0], { seq, type: 'poll.closed', data: { a: 1 } });
    const notice = once(other, 'notification');
    await sibling(c).post('/publish', { ...body, user_ids: [bob] });
    assertHas((await notice)[0], { kind: 'poll.closed', nseq: 1 });
    assert.equal((await asUser(a, bob).get('/notifications')).json().items.length, 1);
  });
});

describe('the end of things on one instance', () => {
  test('POST meetings/{id}/close closes the meeting everywhere', async (t) => {
    const { meeting, desk, phone, other } = await pair(t);
    const left = [desk, phone, other].map((socket) => once(socket, 'room_left'));
    assertStatus(await sibling(c).post(`/meetings/${meeting}/close`, {}), 200);
    for (const event of left) assert.deepEqual(await event, [{ meeting_id: meeting, reason: 'closed' }]);
    for (const socket of [desk, other]) {
      await accepted(ask(socket, 'join_room', { meeting_id: meeting }));
      await refused(say(socket, meeting, 'too late'), 'room_closed');
    }
  });

  test('DELETE meetings/{id} begins a new epoch everywhere', async (t) => {
    const { meeting, desk, phone, other } = await pair(t);
    const { epoch } = await said(desk, meeting, 'secret');
    const left = [desk, phone, other].map((socket) => once(socket, 'room_left'));
    assert.deepEqual(assertStatus(await sibling(c).delete(`/meetings/${meeting}`), 200).json(), { count: 1 });
    for (const event of left) assertHas((await event)[0], { meeting_id: meeting });
    const epochs = new Set();
    for (const socket of [desk, other]) {
      const ack = await accepted(ask(socket, 'join_room', { meeting_id: meeting, since: { epoch, seq: 1 } }));
      assertHas(ack, { recovered: false, reason: 'epoch', events: [] });
      epochs.add(ack.epoch);
    }
    assert.equal(epochs.size, 1);
    assert.ok(!epochs.has(epoch));
    const heard = once(other, 'chat_message');
    await said(desk, meeting, 'a new life');
    assertHas((await heard)[0], { seq: 1, epoch: [...epochs][0] });
  });

  test('DELETE users/{id} takes the inbox and the marks everywhere', async (t) => {
    const { meeting, ada, desk, other } = await pair(t);
    await said(other, meeting, 'text');
    await sibling(a).update({ id: fresh('update'), type: 'x', recipients: [ada] });
    desk.disconnect();
    assertStatus(await sibling(c).delete(`/users/${ada}`), 200);
    for (const service of [a, b, c]) {
      assert.deepEqual((await asUser(service, ada).get('/unread')).json(), { notifications: 0, meetings: {} });
      assertHas((await asUser(service, ada).get('/notifications')).json(), { items: [] });
    }
  });

  for (const [name, subject] of [
    ['user_id', ({ ada }) => ({ user_id: ada })],
    ['sid', ({ phone }) => ({ sid: phone.id })],
  ]) {
    test(`POST /disconnect by ${name} closes transports on all`, async (t) => {
      const scene = await pair(t);
      const { desk, phone, other } = scene;
      const left = (name === 'sid' ? [phone] : [desk, phone]).map((socket) => once(socket, 'disconnect'));
      assertStatus(await sibling(c).post('/disconnect', subject(scene)), 200);
      for (const event of left) assert.equal((await event)[0], 'transport close');
      await settled(other);
      if (name === 'sid') await settled(desk);
    });
  }
});
