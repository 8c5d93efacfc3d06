// Promise: servers of Node with @socket.io/redis-adapter and instances of the service are one cluster: each reaches the
// clients of all others, and what the service publishes never hurts them.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { accepted, as, fresh, member, refused, said, say, settled } from '../support/chat.mjs';
import { startCluster } from '../support/interop/cluster.mjs';
import { decode } from '../support/interop/msgpack.mjs';
import { NodePeer, answering } from '../support/interop/peers.mjs';
import { ask, assertHas, eventually, once, record } from '../support/wait.mjs';

/** What servers of Node give a request until all have answered: whoever stays silent makes them fail after this. */
const REQUESTS_TIMEOUT_MS = 5000;

let cluster;
let a;
let b;
let node;
let other;
/** Everything that anybody publishes in the adapter's channels. */
const published = [];
before(async () => {
  cluster = await startCluster();
  [a, b] = cluster.services;
  [node, other] = await Promise.all([NodePeer.start(cluster.redis), NodePeer.start(cluster.redis)]);
  const sniffer = await cluster.redis.client();
  await sniffer.pSubscribe('socket.io*', (bytes, channel) => published.push({ bytes, channel: `${channel}` }), true);
});
after(async () => {
  try {
    await Promise.all([node.stop(), other.stop()]);
  } finally {
    await cluster.stop();
  }
});

/** A meeting with a member on each instance and a socket on each server of Node, and others who are not in it. */
async function scene(t) {
  const meeting = fresh();
  const [ada, bob, eve] = [fresh('ada'), fresh('bob'), fresh('eve')];
  const sockets = {
    ada: await member(t, a, meeting, ada),
    bob: await member(t, b, meeting, bob),
    eve: await as(t, b, eve),
    nina: await node.client(t, meeting),
    otto: await other.client(t, meeting),
    nora: await node.client(t),
  };
  return { meeting, sockets, users: { ada, bob, eve } };
}

/** After this, what servers of Node emitted before it was heard. */
async function fence(sockets) {
  const event = fresh('fence');
  const heard = sockets.map((socket) => once(socket, event));
  const emit = (io, event, ids) => void io.to(ids).emit(event);
  await node.run(emit, event, sockets.map(({ id }) => id)); // prettier-ignore
  await Promise.all(heard);
}

/** Does something, and asserts what each of the sockets gets under `event`: the arguments if it is named, else nothing. */
async function assertReaches(sockets, event, names, args, act) {
  const heard = Object.entries(sockets).map(([name, socket]) => [name, record(socket, event)]);
  await act();
  for (const [name, { count }] of heard) if (names.includes(name)) await count(1);
  await fence(Object.values(sockets));
  const single = args.length === 1 ? args[0] : args;
  for (const [name, { items }] of heard) assert.deepEqual(items, names.includes(name) ? [single] : [], name);
}

const all = (record, ...ids) => ids.map((id) => assert.ok(record.includes(id), `${id} among ${record}`));

describe('a server of Node', () => {
  const targets = [
    ['to a meeting', ['ada', 'bob', 'nina', 'otto'], (io, event, { meeting }, x) => void io.to(meeting).emit(event, x)],
    ['to everybody', ['ada', 'bob', 'eve', 'nina', 'otto', 'nora'], (io, event, _, x) => void io.emit(event, x)],
    ['to a user', ['eve'], (io, event, { users }, x) => void io.to(`user:${users.eve}`).emit(event, x)],
    ['to a socket', ['bob'], (io, event, { ids }, x) => void io.to(ids.bob).emit(event, x)],
    [
      'to a meeting, from one of its sockets',
      ['ada', 'bob', 'otto'],
      (io, event, { ids, meeting }, x) => void io.sockets.sockets.get(ids.nina).to(meeting).emit(event, x),
    ],
    [
      'to everybody but for a meeting and a user',
      ['nora'],
      (io, event, { meeting, users }, x) => void io.except([meeting, `user:${users.eve}`]).emit(event, x),
    ],
    ['volatile', ['ada', 'bob', 'nina', 'otto'], (io, e, { meeting }, x) => void io.to(meeting).volatile.emit(e, x)],
    ['locally', ['nina'], (io, event, { meeting }, x) => void io.local.to(meeting).emit(event, x)],
  ];
  for (const [name, names, emit] of targets) {
    test(`that emits ${name} reaches ${names.join(', ')}`, async (t) => {
      const { meeting, sockets, users } = await scene(t);
      const ids = Object.fromEntries(Object.entries(sockets).map(([who, { id }]) => [who, id]));
      const data = { n: 1, bytes: Buffer.from([1, 2, 3]) };
      const event = fresh('event');
      await assertReaches(sockets, event, names, [data], () => node.run(emit, event, { meeting, users, ids }, data));
    });
  }

  test('hears what is said in a meeting as its members do, in their order', async (t) => {
    const { meeting, sockets } = await scene(t);
    const heard = ['ada', 'bob', 'nina', 'otto'].map((name) => record(sockets[name], 'chat_message'));
    const strayed = record(sockets.nora, 'chat_message');
    const sent = Array.from({ length: 50 }, (_, n) => n);
    const more = { meta: { é: [1, 2.5, null, { '': '\u{1f600}' }] }, mentions: ['x'] };
    await Promise.all(sent.map((n) => said(n % 2 ? sockets.ada : sockets.bob, meeting, `${n} é\u{1f600}"`, more)));
    for (const { count } of heard) await count(sent.length);
    await fence(Object.values(sockets));
    const [first, ...rest] = heard.map(({ items }) => items);
    assert.deepEqual(first.map(({ seq }) => seq), sent.map((n) => n + 1)); // prettier-ignore
    for (const items of rest) assert.deepEqual(items, first);
    assert.deepEqual(strayed.items, []);
  });

  test('hears of edits, deletions, reactions and updates, and of notifications', async (t) => {
    const { meeting, sockets, users } = await scene(t);
    const own = await node.client(t, `user:${users.bob}`);
    const pairs = ['message_edited', 'message_deleted', 'message_reaction', 'meeting_update'].map((event) => [
      once(sockets.bob, event),
      once(sockets.nina, event),
    ]);
    pairs.push([once(sockets.bob, 'notification'), once(own, 'notification')]);
    const { id } = await said(sockets.ada, meeting, 'text');
    await accepted(ask(sockets.ada, 'edit_message', { meeting_id: meeting, id, text: 'new' }));
    await accepted(ask(sockets.bob, 'react', { meeting_id: meeting, id, emoji: '+1' }));
    await accepted(ask(sockets.ada, 'delete_message', { meeting_id: meeting, id }));
    const update = { id: fresh('update'), type: 'meeting.updated', meeting_id: meeting, recipients: [users.bob] };
    await (await cluster.redis.client()).publish('meeting_updates', JSON.stringify(update));
    for (const [here, there] of pairs) assert.deepEqual(await there, await here);
  });

  test('hears who types', async (t) => {
    const { meeting, sockets, users } = await scene(t);
    const heard = [once(sockets.bob, 'typing'), once(sockets.nina, 'typing'), once(sockets.otto, 'typing')];
    await accepted(ask(sockets.ada, 'typing', { meeting_id: meeting }));
    for (const event of heard) assertHas((await event)[0], { meeting_id: meeting, user_id: users.ada, active: true });
  });

  test('finds the sockets of all instances', async (t) => {
    const { meeting, sockets, users } = await scene(t);
    const find = (room) =>
      node.run(async (io, room) => {
        const found = await (room === undefined ? io : io.in(room)).fetchSockets();
        return found.map(({ id, rooms, data, handshake }) => ({ id, rooms: [...rooms], data, handshake }));
      }, room);
    const idsOf = (found) => found.map(({ id }) => id).sort();
    const inside = await find(meeting);
    const names = ['ada', 'bob', 'nina', 'otto'];
    assert.deepEqual(idsOf(inside), names.map((name) => sockets[name].id).sort()); // prettier-ignore
    for (const name of ['ada', 'bob']) {
      const found = inside.find(({ id }) => id === sockets[name].id);
      all(found.rooms, found.id, meeting, `user:${users[name]}`);
      assertHas(found.data, { user_id: users[name] });
      assert.equal(typeof found.handshake, 'object');
    }
    all(idsOf(await find()), ...Object.values(sockets).map(({ id }) => id));
    assert.deepEqual(idsOf(await find(sockets.eve.id)), [sockets.eve.id]);
    assert.deepEqual(idsOf(await find(`user:${users.eve}`)), [sockets.eve.id]);
    assert.deepEqual(await find(fresh('nowhere')), []);
  });

  test('lists the rooms of all instances', async (t) => {
    const { meeting, sockets, users } = await scene(t);
    const rooms = await node.run(async (io) => [...(await io.of('/').adapter.allRooms())]);
    all(rooms, meeting, `user:${users.ada}`, `user:${users.bob}`, sockets.bob.id, sockets.nora.id);
  });

  test('puts sockets of the service into rooms and takes them out, but into no meeting', async (t) => {
    const { meeting, sockets, users } = await scene(t);
    const room = fresh('promo');
    const inRoom = async (expected) => {
      const find = async (io, room) => (await io.in(room).fetchSockets()).map(({ id }) => id);
      await eventually(async () => assert.deepEqual((await node.run(find, room)).sort(), [...expected].sort()));
    };
    await node.run((io, from, to) => io.in(from).socketsJoin(to), meeting, room);
    await inRoom(['ada', 'bob', 'nina', 'otto'].map((name) => sockets[name].id));
    await node.run((io, from, to) => io.in(from).socketsLeave(to), `user:${users.ada}`, room);
    await inRoom(['bob', 'nina', 'otto'].map((name) => sockets[name].id));
    await node.run((io, id, rooms) => io.in(id).socketsJoin(rooms), sockets.eve.id, [meeting, room]);
    await inRoom(['bob', 'eve', 'nina', 'otto'].map((name) => sockets[name].id));
    await refused(say(sockets.eve, meeting, 'let me in'), 'not_joined');
    const emit = (io, room, event) => void io.to(room).emit(event, 1);
    const event = fresh('event');
    await eventually(async () => {
      const heard = record(sockets.eve, event);
      await node.run(emit, room, event);
      await settled(sockets.eve);
      assert.ok(heard.items.length > 0);
    });
  });

  for (const close of [true, false]) {
    test(`ends sockets of the service, with close ${close}`, async (t) => {
      const { meeting, sockets } = await scene(t);
      const left = ['ada', 'bob', 'nina', 'otto'].map((name) => once(sockets[name], 'disconnect'));
      await node.run((io, room, close) => void io.in(room).disconnectSockets(close), meeting, close);
      await Promise.all(left);
      await settled(sockets.eve);
      assert.ok(sockets.nora.connected);
    });
  }
});

describe('a request to all servers', () => {
  /** The value of a request, which must come before a silent server would make it fail. */
  async function quick(action, ...args) {
    const begin = performance.now();
    const value = await node.run(action, ...args);
    const passed = performance.now() - begin;
    assert.ok(passed < REQUESTS_TIMEOUT_MS * 0.9, `after ${passed} ms: ${JSON.stringify(value)}`);
    return value;
  }

  test('is answered by every instance: serverSideEmit with an acknowledgement', async () => {
    await other.run((io) => void io.on('asked', (_, ack) => ack('pong')));
    const answers = await quick((io) => io.serverSideEmitWithAck('asked', { n: 1 }));
    assert.equal(answers.length, 3);
    assert.equal(answers.filter((answer) => answer === 'pong').length, 1);
  });

  test('is not passed on to clients: serverSideEmit without one', async (t) => {
    const { sockets } = await scene(t);
    await assertReaches(sockets, 'told', [], [], () => node.run((io) => void io.serverSideEmit('told', 1, { n: 2 })));
  });

  const question = (io, room, answer_ms) =>
    new Promise((resolve) => {
      const to = room === undefined ? io : io.to(room);
      to.timeout(answer_ms).emit('question', 7, (error, answers) => resolve({ error: error?.message, answers }));
    });

  test('collects the answers of the clients of the service', async (t) => {
    const { meeting, sockets } = await scene(t);
    const asked = [];
    for (const [name, socket] of Object.entries(sockets)) {
      socket.on('question', (n, ack) => {
        asked.push([name, n]);
        ack({ name });
      });
    }
    const { error, answers } = await quick(question, meeting, 5000);
    const names = ['ada', 'bob', 'nina', 'otto'];
    assert.equal(error, undefined);
    assert.deepEqual(answers.map(({ name }) => name).sort(), names); // prettier-ignore
    assert.deepEqual(asked.sort(), names.map((name) => [name, 7])); // prettier-ignore
  });

  const answers = [
    ['a string', 'yes'],
    ['null', null],
    ['a list', [1, [2]]],
    ['bytes', Buffer.from([1, 2, 3])],
    ['an object', { a: { b: [Buffer.from([4]), 1.5, '\u{1f600}'] } }],
  ];
  for (const [name, answer] of answers) {
    test(`brings back ${name} as a client answered`, async (t) => {
      const meeting = fresh();
      const socket = await member(t, b, meeting);
      answering(socket, 'question', answer);
      assert.deepEqual(await quick(question, meeting, 5000), { error: undefined, answers: [answer] });
    });
  }

  test('waits for nobody where nobody is', async () => {
    assert.deepEqual(await quick(question, fresh('nowhere'), 5000), { error: undefined, answers: [] });
  });

  test('ends in time with the answers that came, if a client gives none', async (t) => {
    const { meeting, sockets } = await scene(t);
    for (const name of ['ada', 'nina', 'otto']) answering(sockets[name], 'question', name);
    const { error, answers } = await node.run(question, meeting, 3000);
    assert.match(error, /timed out/);
    assert.deepEqual(answers.sort(), ['ada', 'nina', 'otto']);
  });

  test('takes the first of the answers of a client that gives several at once', async (t) => {
    const meeting = fresh();
    const socket = await member(t, b, meeting);
    socket.on('question', (_, ack) => ack('first', 'second'));
    assert.deepEqual(await quick(question, meeting, 5000), { error: undefined, answers: ['first'] });
  });

  test('is answered by those that are left when an instance ended', async (t) => {
    const redis = await cluster.redis.client();
    const listeners = async () => (await redis.sendCommand(['PUBSUB', 'NUMSUB', 'socket.io-request#/#']))[1];
    const third = await cluster.add();
    const meeting = fresh();
    const [stays, goes] = [await member(t, a, meeting), await member(t, third, meeting)];
    const find = async (io, room) => (await io.in(room).fetchSockets()).map(({ id }) => id);
    assert.deepEqual((await quick(find, meeting)).sort(), [goes.id, stays.id].sort());
    const before = await listeners();
    await cluster.killOne(third);
    // Servers of Node wait for as many as Redis knows, and it may still know of the one that is gone.
    await eventually(async () => assert.equal(await listeners(), before - 1));
    assert.deepEqual(await quick(find, meeting), [stays.id]);
    answering(stays, 'question', 'here');
    assert.deepEqual(await quick(question, meeting, 5000), { error: undefined, answers: ['here'] });
  });
});

test('a storm in both directions loses nothing and hurts nobody', async (t) => {
  const meetings = [fresh(), fresh()];
  const [one, two] = meetings;
  const talkers = [];
  for (const [n, service] of [a, b, a, b].entries()) talkers.push(await member(t, service, meetings[n % 2]));
  for (const socket of talkers)
    await accepted(ask(socket, 'join_room', { meeting_id: socket === talkers[0] ? two : one }));
  const listeners = [await node.client(t, one, two), await other.client(t, one, two)];
  const members = talkers.filter((socket, n) => n < 2);
  const foreign = [...members, ...listeners].map((socket) => record(socket, 'foreign'));
  const spoken = [...members, ...listeners].map((socket) => record(socket, 'chat_message'));
  await accepted(ask(talkers[1], 'join_room', { meeting_id: one }));
  await accepted(ask(talkers[0], 'join_room', { meeting_id: two }));

  const COUNT = 300;
  const storm = (io, meetings, from, count) => {
    const values = [
      null,
      1.5,
      2 ** 40,
      -1,
      'é\u{1f600}',
      [],
      {},
      Buffer.from([0, 255]),
      new Date(0),
      [[{ a: Buffer.alloc(9) }]],
    ];
    for (let n = 0; n < count; n++) {
      const value = values[n % values.length];
      const to = io.to(meetings[n % 2]);
      if (n % 7 === 0) to.volatile.emit('foreign', from, n, value);
      else to.emit('foreign', from, n, value);
      if (n % 50 === 0) io.serverSideEmit('tick', n);
      if (n % 100 === 0) io.in(meetings[0]).fetchSockets();
    }
  };
  const talk = async (socket, meeting) => {
    for (let n = 0; n < COUNT / 4; n++) {
      await said(socket, meeting, `${n}`.repeat(1 + (n % 40)), { client_id: `${n}`, meta: { n, list: [n / 3] } });
      if (n % 5 === 0) socket.emit('typing', { meeting_id: meeting });
    }
  };
  await Promise.all([
    node.run(storm, meetings, 'node', COUNT),
    other.run(storm, meetings, 'other', COUNT),
    ...talkers.map((socket, n) => talk(socket, meetings[n % 2])),
  ]);
  // Volatile ones may be dropped where a client is slow.
  const kept = (items, from, meeting) =>
    items.filter((item) => item[0] === from && item[1] % 2 === meeting && item[1] % 7 !== 0).map((item) => item[1]);
  const sent = (meeting) => Array.from({ length: COUNT }, (_, n) => n).filter((n) => n % 2 === meeting && n % 7 !== 0);
  for (const { items } of foreign) {
    for (const from of ['node', 'other']) {
      for (const meeting of [0, 1]) {
        await eventually(() => assert.equal(kept(items, from, meeting).length, sent(meeting).length));
        assert.deepEqual(kept(items, from, meeting), sent(meeting));
      }
    }
    assert.equal(new Set(items.map(([from, n]) => `${from} ${n}`)).size, items.length, 'each came once');
  }
  for (const { count } of spoken) await count(COUNT);
  for (const { items } of spoken) {
    for (const meeting of meetings) {
      const seqs = items.filter((message) => message.meeting_id === meeting).map(({ seq }) => seq);
      assert.deepEqual(
        seqs,
        Array.from({ length: COUNT / 2 }, (_, n) => n + 1),
      );
    }
  }
  assert.deepEqual([await node.faults(), await other.faults()], [[], []]);
});

test('all that was published so far is what servers of Node can read', () => {
  assert.ok(published.length > 1000, `${published.length} messages`);
  for (const { bytes, channel } of published) {
    const shown = `${channel}: ${bytes.subarray(0, 300).toString('latin1')}`;
    if (channel.startsWith('socket.io#')) {
      const [, packet, opts] = decode(bytes);
      assert.ok(packet.type === 2 && packet.nsp.startsWith('/') && Array.isArray(packet.data), shown);
      assert.ok(typeof packet.data[0] === 'string' && Array.isArray(opts.rooms), shown);
      // The channel chooses the servers, the payload the sockets.
      const room = channel.slice('socket.io#/#'.length, -1);
      assert.deepEqual(opts.rooms.length === 1 ? opts.rooms.map(String) : [''], [room], shown);
    } else {
      const request = bytes[0] === 0x7b ? JSON.parse(bytes) : decode(bytes);
      assert.equal(typeof request, 'object', shown);
    }
  }
});
