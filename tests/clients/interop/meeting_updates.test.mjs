// Promise: what sibling services say through Redis is done once, however often, by whatever way and to however many
// instances it is said; and what they added to the stream is not lost while no instance runs.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { accepted, as, fresh, history, log, member, range, refused, said, say, settled } from '../support/chat.mjs';
import { asUser, startCluster } from '../support/interop/cluster.mjs';
import { unreadable } from '../support/interop/metrics.mjs';
import { PythonPeer } from '../support/interop/peers.mjs';
import { API, Rest } from '../support/rest.mjs';
import { ask, assertHas, eventually, once, record, time } from '../support/wait.mjs';

const CHANNEL = 'meeting_updates';
const STREAM = 'meeting_updates:stream';
/** Who reads the stream. */
const LEASE = 'chat:{cluster}:stream';
/** For what waits until others may take over what somebody who was killed had begun, in ms. */
const TAKEN_OVER_MS = 60_000;
const SETTINGS = { ROOM_CLOSE_AFTER: '1s', REMINDERS: 'off' };

let cluster;
let a;
let b;
let c;
let redis;
let python;
before(async () => {
  cluster = await startCluster({ instances: 3, settings: SETTINGS });
  [a, b, c] = cluster.services;
  redis = await cluster.redis.client();
  python = await PythonPeer.start('socketio-newest', 'emitter', 'manager', cluster.redis.url);
});
after(async () => {
  await python?.stop();
  await cluster.stop();
});

/** How an update can be said. All take the text. */
const WAYS = {
  'PUBLISH from Node': (text) => redis.publish(CHANNEL, text),
  'PUBLISH from Python': (text) => python.run('publish', { channel: CHANNEL, message: text }),
  XADD: (text) => redis.xAdd(STREAM, '*', { data: text }),
  // While an instance is about it, another one answers that it is to be asked later.
  'POST /updates': (text) =>
    eventually(async () => assert.equal((await Rest.sibling(b).post('/updates', text)).status, 202)),
};
const publish = (update) => redis.publish(CHANNEL, JSON.stringify(update));

/** A meeting with a member on each instance, somebody with two devices who is not in it, and somebody who is away. */
async function scene(t) {
  const meeting = fresh();
  const [ada, bob, cid] = [fresh('ada'), fresh('bob'), fresh('cid')];
  const members = [
    await member(t, a, meeting, ada),
    await member(t, b, meeting, bob),
    await member(t, c, meeting, cid),
  ];
  const [recipient, offline] = [fresh('recipient'), fresh('offline')];
  const devices = [await as(t, a, recipient), await as(t, c, recipient)];
  const everybody = [...members, ...devices];
  const updates = members.map((socket) => record(socket, 'meeting_update'));
  const notices = everybody.map((socket) => record(socket, 'notification'));

  /** After this, what was published before was done. */
  const fence = async () => {
    const id = fresh('fence');
    await publish({ id, type: 'fence', recipients: [ada, bob, cid, recipient], persist: false });
    for (const { some } of notices) await some((notice) => notice.id === id);
  };
  const without = (items, type) => items.filter((item) => item.kind !== type);
  return {
    meeting,
    members,
    users: { ada, bob, cid, recipient, offline },
    recipients: [recipient, offline],
    devices,
    updates,
    fence,
    /** What the sockets were told: of the meeting's members, then of the recipient's devices. */
    told: async () => {
      await fence();
      const heard = notices.map(({ items }) => without(items, 'fence'));
      return { room: updates.map(({ items }) => items), members: heard.slice(0, 3), devices: heard.slice(3) };
    },
    inbox: async (user) => {
      const { items } = (await asUser(b, user).get('/notifications')).json();
      return items;
    },
  };
}

/** That each of several lists has this many items, the same in all. */
function assertSame(lists, count) {
  for (const list of lists) {
    assert.equal(list.length, count, JSON.stringify(list));
    assert.deepEqual(list, lists[0]);
  }
}

for (const [way, send] of Object.entries(WAYS)) {
  test(`an update by ${way} is told to the room and to the recipients on all instances, and kept once`, async (t) => {
    const { meeting, recipients, users, updates, told, inbox } = await scene(t);
    const id = fresh('update');
    const data = { title: 'Ünï\u{1f600}', list: [1, null] };
    const update = { v: 1, id, type: 'agenda.changed', meeting_id: meeting, recipients, title: 'T', body: 'B', data };
    await send(JSON.stringify(update));
    for (const { count } of updates) await count(1);
    const { room, members, devices } = await told();
    assertSame(room, 1);
    assertHas(room[0][0], { seq: 1, meeting_id: meeting, type: 'agenda.changed', event_id: id, data });
    assertSame(devices, 1);
    assertHas(devices[0][0], { id, kind: 'agenda.changed', nseq: 1, meeting_id: meeting, title: 'T', body: 'B', data });
    assert.deepEqual(members, [[], [], []]);
    const kept = await inbox(users.offline);
    assert.equal(kept.length, 1, JSON.stringify(kept));
    assertHas(kept[0], { id, kind: 'agenda.changed', nseq: 1, title: 'T', body: 'B', data, read: false });
    const joined = await member(t, b, meeting);
    const [item, ...more] = await history(joined, meeting);
    assert.deepEqual([item, more], [{ event: 'meeting_update', ...room[0][0] }, []]);
  });
}

describe('an update of type', () => {
  const types = [
    ['meeting.created', false, true],
    ['meeting.updated', true, true],
    ['meeting.rescheduled', true, true],
    ['meeting.cancelled', true, true],
    ['meeting.deleted', true, true],
    ['meeting.started', true, true],
    ['meeting.ended', true, false],
    ['meeting.reminder', true, true],
    ['participant.added', true, true],
    ['participant.invited', true, true],
    ['participant.removed', true, true],
    ['participant.responded', true, true],
    ['x.y_z-0', true, true],
  ];
  for (const [type, toRoom, toUsers] of types) {
    const whom = [toRoom && 'the room', toUsers && 'recipients'].filter(Boolean).join(' and ');
    test(`${type} is told to ${whom}`, async (t) => {
      const { meeting, recipients, users, updates, told, inbox } = await scene(t);
      const id = fresh('update');
      await publish({ id, type, meeting_id: meeting, recipients, data: { n: 1 } });
      if (toRoom) for (const { count } of updates) await count(1);
      const { room, devices } = await told();
      assertSame(room, toRoom ? 1 : 0);
      assertSame(devices, toUsers ? 1 : 0);
      if (toRoom) assertHas(room[0][0], { type, event_id: id, meeting_id: meeting, seq: 1, data: { n: 1 } });
      if (toUsers) assertHas(devices[0][0], { id, kind: type, meeting_id: meeting, data: { n: 1 } });
      const kinds = (await inbox(users.offline)).map(({ kind }) => kind);
      assert.deepEqual(kinds, toUsers ? [type] : []);
    });
  }

  for (const type of ['meeting.cancelled', 'meeting.deleted', 'meeting.ended']) {
    test(`${type} makes the room read-only on all instances`, async (t) => {
      const { meeting, members } = await scene(t);
      await said(members[0], meeting, 'before');
      const heard = members.map((socket) => once(socket, 'meeting_update'));
      await publish({ id: fresh('update'), type, meeting_id: meeting });
      await Promise.all(heard);
      for (const socket of members) {
        await eventually(async () => refused(say(socket, meeting, 'after'), 'room_closed'));
        await accepted(ask(socket, 'join_room', { meeting_id: meeting }));
        assert.equal((await history(socket, meeting))[0].text, 'before');
      }
    });
  }

  test('participant.removed takes the user out on all instances', async (t) => {
    const { meeting, members, users } = await scene(t);
    const second = await member(t, a, meeting, users.bob);
    const left = [members[1], second].map((socket) => once(socket, 'room_left'));
    const told = [members[1], second].map((socket) => once(socket, 'notification'));
    await publish({ id: fresh('update'), type: 'participant.removed', meeting_id: meeting, user_id: users.bob });
    for (const event of left) assert.deepEqual(await event, [{ meeting_id: meeting, reason: 'removed' }]);
    for (const event of told) assertHas((await event)[0], { kind: 'participant.removed', meeting_id: meeting });
    const heard = log(members[1]);
    await refused(say(members[1], meeting, 'still here'), 'not_joined');
    const next = once(members[2], 'chat_message');
    await said(members[0], meeting, 'gone');
    await next;
    await settled(members[1]);
    assert.deepEqual(heard.items, []);
  });

  test('none is meeting.updated', async (t) => {
    const { meeting, updates } = await scene(t);
    await publish({ meeting_id: meeting, data: { of: meeting } });
    for (const { count } of updates) assertHas((await count(1))[0], { type: 'meeting.updated', data: { of: meeting } });
  });
});

describe('who is told', () => {
  const cases = [
    ['only the room', { to: 'room' }, { room: 1, devices: 0, kept: 0 }],
    ['only the recipients', { to: 'users' }, { room: 0, devices: 1, kept: 1 }],
    ['both', { to: 'both' }, { room: 1, devices: 1, kept: 1 }],
    ['those who are there, if nothing is to be kept', { persist: false }, { room: 1, devices: 1, kept: 0 }],
    ['those who come in time, if it is kept for a while', { ttl_ms: 3_600_000 }, { room: 1, devices: 1, kept: 1 }],
    ['nobody who is excluded', (s) => ({ exclude: [s.recipient] }), { room: 1, devices: 0, kept: 1 }],
    ['not who did it', (s) => ({ actor_id: s.recipient }), { room: 1, devices: 0, kept: 1 }],
    ['who did it, if so wished', (s) => ({ actor_id: s.recipient, exclude: [] }), { room: 1, devices: 1, kept: 1 }],
  ];
  for (const [name, more, expected] of cases) {
    test(name, async (t) => {
      const { meeting, recipients, users, told, inbox, updates } = await scene(t);
      const fields = typeof more === 'function' ? more(users) : more;
      await publish({ id: fresh('update'), type: 'x', meeting_id: meeting, recipients, ...fields });
      if (expected.room) for (const { count } of updates) await count(1);
      const { room, devices } = await told();
      assertSame(room, expected.room);
      assertSame(devices, expected.devices);
      assert.equal((await inbox(users.offline)).length, expected.kept);
    });
  }

  test('everybody who is connected, on all instances, each once', async (t) => {
    const { members, devices, told } = await scene(t);
    const id = fresh('update');
    const heard = [...members, ...devices].map((socket) => once(socket, 'notification'));
    await publish({ id, type: 'maintenance', broadcast: true, title: 'Soon' });
    for (const event of heard) assertHas((await event)[0], { id, kind: 'maintenance', title: 'Soon' });
    const all = await told();
    for (const items of [...all.members, ...all.devices]) {
      assert.equal(items.filter((notice) => notice.id === id).length, 1);
    }
  });

  test('nobody, if neither a meeting nor a recipient is named', async (t) => {
    const { told } = await scene(t);
    await publish({ id: fresh('update'), type: 'x', title: 'to whom?' });
    const { room, members, devices } = await told();
    assert.deepEqual([room, members, devices].flat(2), []);
  });
});

describe('of the tolerated forms', () => {
  const forms = [
    ['event and meetingId', (m) => ({ event: 'x', meetingId: m })],
    ['event_type and room', (m) => ({ event_type: 'x', room: m })],
    ['action and meeting.id', (m) => ({ action: 'x', meeting: { id: m } })],
    ['data.meeting_id', (m) => ({ type: 'x', data: { meeting_id: m } })],
    ['user_ids', (m, user) => ({ type: 'x', meeting_id: m, user_ids: [user] })],
    ['participants with ids', (m, user) => ({ type: 'x', meeting_id: m, participants: [{ id: user }] })],
    [
      'participants with user_ids',
      (m, user) => ({ type: 'x', meeting_id: m, participants: [{ user_id: user, id: 1 }] }),
    ],
    ['user_id', (m, user) => ({ type: 'x', meeting_id: m, user_id: user })],
    [
      'payload and a timestamp in s',
      (m) => ({ type: 'x', meeting_id: m, payload: { a: 1 }, timestamp: 1_700_000_000 }),
    ],
    [
      'update and a timestamp in words',
      (m) => ({ type: 'x', meeting_id: m, update: {}, timestamp: '2024-01-01T00:00:00Z' }),
    ],
    ['unknown fields', (m) => ({ type: 'x', meeting_id: m, colour: { deep: [] }, v: 1 })],
  ];
  for (const [name, form] of forms) {
    test(name, async (t) => {
      const { meeting, users, updates, devices } = await scene(t);
      const update = form(meeting, users.recipient);
      const isNamed = JSON.stringify(update).includes(users.recipient);
      const heard = isNamed ? devices.map((socket) => once(socket, 'notification')) : [];
      await publish({ id: fresh('update'), ...update });
      for (const { count } of updates) assertHas((await count(1))[0], { type: 'x', meeting_id: meeting });
      for (const event of heard) assertHas((await event)[0], { kind: 'x', meeting_id: meeting });
    });
  }

  test('integers as ids', async (t) => {
    const [meeting, user] = [901_234, 801_234];
    const sockets = [await member(t, b, `${meeting}`), await as(t, c, `${user}`)];
    const heard = [once(sockets[0], 'meeting_update'), once(sockets[1], 'notification')];
    await publish({ id: fresh('update'), type: 'x', meeting_id: meeting, recipients: [user] });
    for (const event of heard) assertHas((await event)[0], { meeting_id: `${meeting}` });
  });
});

describe('what is said more than once', () => {
  test('by all ways at the same time is done once', async (t) => {
    const { meeting, recipients, users, updates, told, inbox } = await scene(t);
    const text = JSON.stringify({ id: fresh('update'), type: 'x', meeting_id: meeting, recipients });
    const posts = [a, b, c].map((service) => Rest.sibling(service).post('/updates', text));
    const [first, ...others] = [...Object.values(WAYS), ...Object.values(WAYS)].map((send) => send(text));
    await Promise.all([first, ...others, ...posts]);
    for (const { count } of updates) await count(1);
    const { room, devices } = await told();
    assertSame(room, 1);
    assertSame(devices, 1);
    assert.equal((await inbox(users.offline)).length, 1);
    assert.equal((await history(await member(t, a, meeting), meeting)).length, 1);
  });

  test('again later is done once as well', async (t) => {
    const { meeting, recipients, updates, told } = await scene(t);
    const text = JSON.stringify({ id: fresh('update'), type: 'x', meeting_id: meeting, recipients });
    await redis.publish(CHANNEL, text);
    for (const { count } of updates) await count(1);
    for (const send of Object.values(WAYS)) await send(text);
    const { room, devices } = await told();
    assertSame(room, 1);
    assertSame(devices, 1);
  });

  test('without an id is done once if the bytes are the same, else each time', async (t) => {
    const { meeting, recipients, updates, told } = await scene(t);
    const update = { type: 'x', meeting_id: meeting, recipients };
    for (let n = 0; n < 3; n++) await publish(update);
    for (const { count } of updates) await count(1);
    await publish({ ...update, data: {} });
    for (const { count } of updates) await count(2);
    const { room, devices } = await told();
    assertSame(room, 2);
    assertSame(devices, 2);
  });

  test('a storm of them, shuffled and by two ways, is one list in one order for everybody', async (t) => {
    const { meeting, recipients, users, updates, told, inbox } = await scene(t);
    const texts = range(1, 60).map((n) =>
      JSON.stringify({ id: fresh('u'), type: 'x', meeting_id: meeting, recipients, data: { n } }),
    );
    const twice = [...texts, ...texts]
      .map((text, n) => ({ text, key: (n * 7919) % 127 }))
      .sort((x, y) => x.key - y.key);
    const other = await cluster.redis.client();
    await Promise.all(
      twice.map(({ text }, n) =>
        n % 3 === 0 ? WAYS.XADD(text) : (n % 3 === 1 ? redis : other).publish(CHANNEL, text),
      ),
    );
    for (const { count } of updates) await count(texts.length);
    const { room, devices } = await told();
    assertSame(room, texts.length);
    assert.deepEqual(room[0].map(({ seq }) => seq), range(1, texts.length)); // prettier-ignore
    assert.deepEqual(new Set(room[0].map(({ data }) => data.n)), new Set(range(1, texts.length)));
    for (const items of devices) assert.equal(new Set(items.map(({ id }) => id)).size, items.length);
    await eventually(async () => assert.equal((await inbox(users.offline)).length, 50)); // One page.
    const unread = (await asUser(a, users.offline).get('/unread')).json();
    assert.equal(unread.notifications, texts.length);
  });
});

test('the inbox of somebody who is away is there on whatever instance they come to', async (t) => {
  const { meeting, users } = await scene(t);
  for (const n of [1, 2, 3]) {
    await publish({
      id: fresh('update'),
      type: 'x',
      meeting_id: meeting,
      to: 'users',
      recipients: [users.offline],
      data: { n },
    });
  }
  for (const service of [a, b, c]) {
    await eventually(async () => {
      const socket = await as(t, service, users.offline);
      assert.equal(socket.ready.unread.notifications, 3);
      const { items } = await accepted(ask(socket, 'notifications_get', {}));
      assert.deepEqual(items.map(({ nseq }) => nseq).sort(), [1, 2, 3]);
      socket.disconnect();
    });
  }
});

test('the stream is read from where it was left, whether there was an instance or not', async (t) => {
  const own = await startCluster({ instances: 0, settings: SETTINGS });
  t.after(() => own.stop());
  const client = await own.redis.client();
  const [meeting, user] = [fresh(), fresh('user')];
  const add = (id) =>
    client.xAdd(STREAM, '*', { data: JSON.stringify({ id, type: 'x', meeting_id: meeting, recipients: [user] }) });
  const ids = (items) => items.map((item) => item.event_id ?? item.id);
  /** What is kept, as soon as it is this much: whoever was killed while it read is waited for. */
  const kept = async (service, count) => {
    const socket = await member(t, service, meeting);
    await eventually(async () => assert.ok((await history(socket, meeting)).length >= count), TAKEN_OVER_MS);
    const { items } = (await asUser(service, user).get('/notifications')).json();
    assert.deepEqual(ids(items).sort(), ids(await history(socket, meeting)).sort());
    return ids(await history(socket, meeting));
  };
  await add('before the first instance');
  assert.deepEqual(await kept(await own.add(), 1), ['before the first instance']);
  await own.add();
  for (const signal of ['SIGKILL', 'SIGTERM']) {
    const before = await kept(own.services[0], 0);
    await Promise.all(own.services.splice(0).map((service) => (service.signal(signal), service.exited)));
    if (signal === 'SIGTERM') assert.equal(await client.exists(LEASE), 0, 'nobody has to wait for those that end');
    const added = range(1, 5).map(() => fresh('while away'));
    for (const id of added) await add(id);
    await add(before[0]);
    await Promise.all([own.add(), own.add(), own.add()]);
    for (const service of own.services) assert.deepEqual(await kept(service, before.length + 5), [...before, ...added]);
  }
  await eventually(async () => assert.equal((await client.xPending(STREAM, 'chat')).pending, 0));
  assert.equal((await client.xInfoConsumers(STREAM, 'chat')).length, 1, 'however many instances there were');
  // What was applied is dropped, by and by, as long as nobody else reads.
  const all = client.multi();
  for (let n = 0; n < 500; n++) all.xAdd(STREAM, '*', { data: '{}' });
  await all.exec();
  await eventually(async () => assert.ok((await client.xLen(STREAM)) < 300));
  await client.xGroupCreate(STREAM, 'another', '0');
  const length = await client.xLen(STREAM);
  await add('while another group reads');
  const [service] = own.services;
  await eventually(async () => assert.ok((await kept(service, 0)).includes('while another group reads')));
  await eventually(async () => assert.equal((await client.xPending(STREAM, 'chat')).pending, 0));
  assert.equal(await client.xLen(STREAM), length + 1);
});

test("entries that are too large stand in nobody's way", async (t) => {
  const own = await startCluster({ instances: 1, settings: SETTINGS });
  t.after(() => own.stop());
  const [service] = own.services;
  const client = await own.redis.client();
  const meeting = fresh();
  const socket = await member(t, service, meeting);
  const updates = record(socket, 'meeting_update');
  const data = JSON.stringify({ type: 'x', meeting_id: meeting, data: 'x'.repeat(1_100_000) });
  // All at once: more than one answer of Redis may hold.
  const all = client.multi();
  for (let n = 0; n < 64; n++) all.xAdd(STREAM, '*', { data });
  await all.exec();
  await client.xAdd(STREAM, '*', { data: JSON.stringify({ type: 'last', meeting_id: meeting }) });
  await updates.some(({ type }) => type === 'last');
  assert.deepEqual(updates.items.map(({ type }) => type), ['last']); // prettier-ignore
  assert.ok((await unreadable(service)) >= 64);
  await eventually(async () => assert.equal((await client.xPending(STREAM, 'chat')).pending, 0));
});

test("entries of what is kept as something else stand in nobody's way", async (t) => {
  const own = await startCluster({ settings: SETTINGS });
  t.after(() => own.stop());
  const client = await own.redis.client();
  const [meeting, spoilt, user, spoiltUser] = [fresh(), fresh('spoilt'), fresh('user'), fresh('spoilt')];
  await client.set(`chat:{m:${spoilt}}:log`, 'x');
  await client.hSet(`chat:{m:${spoilt}}:meta`, { e: 'abc', s: 1, t: 1, n: 1 });
  await client.set(`chat:{u:${spoiltUser}}:inbox`, 'x');
  const sockets = await Promise.all(own.services.map((service) => member(t, service, meeting)));
  const updates = sockets.map((socket) => record(socket, 'meeting_update'));
  const device = record(await as(t, own.services[0], user), 'notification');
  const add = (update) => client.xAdd(STREAM, '*', { data: JSON.stringify({ id: fresh('update'), ...update }) });
  await add({ type: 'first', meeting_id: meeting });
  for (let n = 0; n < 3; n++) {
    await add({ type: 'spoilt', meeting_id: spoilt, recipients: [user] });
    await add({ type: 'told', meeting_id: meeting, recipients: [spoiltUser, user] });
  }
  await add({ type: 'last', meeting_id: meeting });
  for (const { some } of updates) await some(({ type }) => type === 'last');
  const types = ['first', 'told', 'told', 'told', 'last'];
  for (const { items } of updates) assert.deepEqual(items.map(({ type }) => type), types); // prettier-ignore
  await device.count(3);
  assert.deepEqual(device.items.map(({ kind }) => kind), ['told', 'told', 'told']); // prettier-ignore
  const counts = await Promise.all(own.services.map((service) => unreadable(service)));
  assert.ok(counts[0] + counts[1] >= 6, `${counts}`);
  await eventually(async () => assert.equal((await client.xPending(STREAM, 'chat')).pending, 0));
});

// Side by side, as what somebody else has begun is taken over only after a while.
describe('what is in the stream is done once', { concurrency: true }, () => {
  /** Two instances, with somebody to whom each update goes, and a crowd so that each takes long enough to be interrupted. */
  async function scene(t) {
    const own = await startCluster({ settings: SETTINGS });
    t.after(() => own.stop());
    const client = await own.redis.client();
    const [meeting, user] = [fresh(), fresh('user')];
    const recipients = [...range(1, 80).map((n) => `crowd-${n}`), user];
    const ids = [];
    return {
      own,
      user,
      meeting,
      ids,
      /** Adds this many updates, and waits until some of them are done. */
      begin: async (service, count, { isAdded = true, isPublished = false } = {}) => {
        const reader = await as(t, service, fresh('reader'));
        const begun = (await history(reader, meeting)).length;
        for (const id of range(1, count).map(() => fresh('update'))) {
          ids.push(id);
          const data = JSON.stringify({ id, type: 'x', meeting_id: meeting, recipients });
          if (isPublished) client.publish(CHANNEL, data);
          if (isAdded) client.xAdd(STREAM, '*', { data });
        }
        await eventually(async () => assert.ok((await history(reader, meeting)).length > begun), TAKEN_OVER_MS);
        reader.disconnect();
      },
      /** In the end each has been logged once, and notified once. */
      assertDone: async (service) => {
        const reader = await as(t, service, fresh('reader'));
        const done = async () => (await history(reader, meeting)).map(({ event_id }) => event_id).sort();
        const unread = async () => (await asUser(service, user).get('/unread')).json().notifications;
        await eventually(async () => {
          assert.equal((await done()).length, ids.length, 'in the log');
          assert.equal(await unread(), ids.length, 'in the inbox');
        }, TAKEN_OVER_MS);
        assert.deepEqual(await done(), [...ids].sort());
      },
    };
  }

  for (const [name, ways] of [
    ['although instances are killed while they work', {}],
    ['although instances are killed while they work, and it was published as well', { isPublished: true }],
  ]) {
    test(name, async (t) => {
      const { own, begin, assertDone } = await scene(t);
      for (let round = 0; round < 6; round++) {
        await begin(own.services[1], 20, ways);
        await own.killOne(own.services[0]);
        await own.add();
      }
      await assertDone(own.services[0]);
    });
  }

  test('and so is what was only published, if the instance that works is killed and others have heard it', async (t) => {
    const { own, begin, assertDone } = await scene(t);
    const [killed, other] = own.services;
    await begin(other, 60, { isAdded: false, isPublished: true });
    await own.killOne(killed);
    await assertDone(other);
  });

  test('and so is what was posted, if the instance is killed and another one is asked again', async (t) => {
    const { own, user, meeting } = await scene(t);
    const [killed, other] = own.services;
    const recipients = [...range(1, 900).map((n) => `crowd-${n}`), user];
    const reader = await as(t, other, fresh('reader'));
    let update;
    let posted;
    /** Posts the `nth` update; the instance stands still as soon as it is logged: was it not answered yet? */
    const isCaught = async (nth) => {
      update = { id: fresh('update'), type: 'x', meeting_id: meeting, recipients };
      let isAnswered = false;
      posted = Rest.sibling(killed).post('/updates', update);
      posted.then(
        () => (isAnswered = true),
        () => {},
      );
      await eventually(async () => assert.equal((await history(reader, meeting)).length, nth));
      killed.signal('SIGSTOP');
      // Its answer may be on its way.
      await time(300);
      if (isAnswered) killed.signal('SIGCONT');
      return !isAnswered;
    };
    let count = 1;
    while (!(await isCaught(count))) assert.ok(++count < 20, 'it is always too late to kill it');
    await own.killOne(killed);
    assert.equal(await posted.catch(() => 'cut off'), 'cut off', 'it was to be interrupted');
    // As a service does that got no answer.
    await eventually(
      async () => assert.equal((await Rest.sibling(other).post('/updates', update)).status, 202),
      30_000,
    );
    await eventually(async () => {
      assert.equal((await asUser(other, user).get('/unread')).json().notifications, count);
    });
    assert.equal((await history(reader, meeting)).length, count);
  });

  test('although an instance stands still while it works, and goes on later', async (t) => {
    const { own, user, ids, begin, assertDone } = await scene(t);
    const [stopped, other] = own.services;
    const device = record(await as(t, other, user), 'notification');
    await begin(other, 100);
    stopped.signal('SIGSTOP');
    try {
      await assertDone(other);
    } finally {
      stopped.signal('SIGCONT');
    }
    await eventually(async () => assert.equal((await stopped.get(`${API}/ready`)).status, 200));
    await begin(stopped, 20);
    await assertDone(stopped);
    await device.count(ids.length);
    assert.equal(new Set(device.items.map(({ id }) => id)).size, ids.length, 'each came to the device');
    assert.equal(device.items.length, ids.length, 'none came twice');
  });
});

test('nothing was written but keys of the service', async () => {
  const foreign = /^(meeting_updates:stream|auth:revoked:.*|meeting:.*:participants)$/;
  const keys = (await redis.keys('*')).filter((key) => !foreign.test(key));
  assert.ok(keys.length > 0);
  assert.deepEqual(keys.filter((key) => !key.startsWith('chat:')), []); // prettier-ignore
});
