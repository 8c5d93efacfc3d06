// Promise: what @socket.io/redis-emitter sends reaches the clients of all instances as it does those of Node's servers,
// and gives nobody a right.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Emitter } from '@socket.io/redis-emitter';

import { accepted, as, fresh, history, log, member, refused, said, say, settled } from '../support/chat.mjs';
import { startCluster } from '../support/interop/cluster.mjs';
import { decode, encode } from '../support/interop/msgpack.mjs';
import { eventually, once, record } from '../support/wait.mjs';

let cluster;
let a;
let b;
let publisher;
let emitter;
before(async () => {
  cluster = await startCluster();
  [a, b] = cluster.services;
  publisher = await cluster.redis.client();
  emitter = new Emitter(publisher);
});
after(() => cluster.stop());

/** Two users in a meeting, one of them with a second device outside of it, and somebody who is nowhere. */
async function scene(t) {
  const meeting = fresh();
  const [ada, bob, eve] = [fresh('ada'), fresh('bob'), fresh('eve')];
  const sockets = {
    ada: await member(t, a, meeting, ada),
    bob: await member(t, b, meeting, bob, {}, { transport: 'polling' }),
    phone: await as(t, a, bob, {}, { release: '4.0' }),
    eve: await as(t, b, eve),
  };
  return { meeting, sockets, users: { ada, bob, eve } };
}

/** After this, what was emitted before it was heard. */
async function fence(sockets) {
  const event = fresh('fence');
  const heard = sockets.map((socket) => once(socket, event));
  emitter.to(sockets.map((socket) => socket.id)).emit(event);
  await Promise.all(heard);
}

/** Emits, and asserts what each of the sockets gets under `event`: the arguments if it is named, else nothing. */
async function assertReaches(sockets, event, names, args, emit) {
  const heard = Object.entries(sockets).map(([name, socket]) => [name, record(socket, event)]);
  emit(event);
  for (const [name, { count }] of heard) if (names.includes(name)) await count(1);
  await fence(Object.values(sockets));
  const got = Object.fromEntries(heard.map(([name, { items }]) => [name, items]));
  const single = args.length === 1 ? args[0] : args;
  assert.deepEqual(got, Object.fromEntries(heard.map(([name]) => [name, names.includes(name) ? [single] : []])));
}

/** What is answered to the request with that id. */
async function answers(requestId) {
  const subscriber = await cluster.redis.client();
  const heard = [];
  const take = (bytes) => {
    const answer = bytes[0] === 0x7b ? JSON.parse(bytes) : decode(bytes);
    if (answer.requestId === requestId) heard.push(answer);
  };
  await subscriber.subscribe('socket.io-response#/#', take, true);
  return (count) => eventually(() => (assert.equal(heard.length, count, JSON.stringify(heard)), heard));
}

describe('an emit', () => {
  const targets = [
    ['to a meeting', ['ada', 'bob'], ({ meeting }) => emitter.to(meeting)],
    ['in a meeting', ['ada', 'bob'], ({ meeting }) => emitter.in(meeting)],
    ['to a user', ['bob', 'phone'], ({ users }) => emitter.to(`user:${users.bob}`)],
    ['to a socket', ['phone'], ({ sockets }) => emitter.to(sockets.phone.id)],
    ['to rooms that share sockets', ['ada', 'bob', 'phone'], (s) => emitter.to([s.meeting, `user:${s.users.bob}`])],
    ['to two users', ['ada', 'eve'], ({ users }) => emitter.to(`user:${users.ada}`).to(`user:${users.eve}`)],
    ['to everybody', ['ada', 'bob', 'phone', 'eve'], () => emitter],
    ['to a meeting but for a user', ['ada'], (s) => emitter.to(s.meeting).except(`user:${s.users.bob}`)],
    ['to a user but for a socket', ['bob'], (s) => emitter.to(`user:${s.users.bob}`).except(s.sockets.phone.id)],
    ['to everybody but for a meeting', ['phone', 'eve'], ({ meeting }) => emitter.except(meeting)],
    ['to everybody but for several', ['phone'], (s) => emitter.except([s.meeting, `user:${s.users.eve}`])],
    ['to a room where nobody is', [], () => emitter.to(fresh('nowhere'))],
    ['to a meeting but for that meeting', [], ({ meeting }) => emitter.to(meeting).except(meeting)],
    ['that is volatile', ['ada', 'bob'], ({ meeting }) => emitter.volatile.to(meeting)],
    ['that may be compressed', ['ada', 'bob'], ({ meeting }) => emitter.compress(true).to(meeting)],
    ['to another namespace', [], () => emitter.of('/other')],
    ['under another key', [], () => new Emitter(publisher, { key: 'other' })],
  ];
  for (const [name, names, target] of targets) {
    test(`${name} reaches ${names.join(', ') || 'nobody'}`, async (t) => {
      const all = await scene(t);
      await assertReaches(all.sockets, fresh('event'), names, [{ n: 1 }], (event) => target(all).emit(event, { n: 1 }));
    });
  }

  test('to a number reaches the meeting of that name', async (t) => {
    const sockets = { member: await member(t, b, '4242'), other: await as(t, a, fresh('user')) };
    await assertReaches(sockets, fresh('event'), ['member'], [1], (event) => emitter.to(4242).emit(event, 1));
  });

  test('to a room whose name has the separator of channels reaches the user', async (t) => {
    const user = 'a#b#';
    const sockets = { named: await as(t, b, user), other: await as(t, b, 'a') };
    await assertReaches(sockets, fresh('event'), ['named'], [1], (event) => emitter.to(`user:${user}`).emit(event, 1));
  });

  const large = 'x'.repeat(100_000);
  const date = new Date('2023-11-14T22:13:20.123Z');
  const values = [
    ['no argument', [], []],
    ['one string', ['text']],
    ['several', [1, 'two', null, true, { four: 4 }]],
    ['null and undefined', [null, undefined], [null, null]],
    ['integers', [0, -1, 127, 128, -129, 65_536, 2 ** 32, 2 ** 53 - 1, -(2 ** 31) - 1, -(2 ** 53) + 1]],
    ['other numbers', [0.5, -1e-7, 1e-300, 3.141592653589793, 123_456_789.25]],
    ['numbers that JSON has not', [NaN, Infinity], [null, null]],
    ['dates', [date, { at: new Date(0) }], [date.toJSON(), { at: '1970-01-01T00:00:00.000Z' }]],
    ['what is nested', [{ a: [{ b: [[], {}, [null, { c: '' }]] }], '': { ' ': 0 } }]],
    ['fields that are undefined', [{ a: undefined, b: 1 }], [{ b: 1 }]],
    ['text of all kinds', ['\u0000\u001f"\\/\u2028\u{1f600}é<b>&', { é: '\u{1f600}' }]],
    ['what is large', [large, [large]]],
    ['many', Array.from({ length: 40 }, (_, n) => n)],
    ['bytes', [Buffer.from([1, 2, 3])]],
    ['no bytes', [Buffer.alloc(0)]],
    [
      'bytes in several places',
      [{ a: Buffer.from('a'), list: [Buffer.from('b'), { c: Buffer.from('c') }] }, Buffer.from('d')],
    ],
    [
      'views of bytes',
      [new Uint8Array([255, 0]), new Uint8Array([7]).buffer],
      [Buffer.from([255, 0]), Buffer.from([7])],
    ],
    ['what looks like a placeholder', [{ placeholder: true, num: 0 }, Buffer.from('x')]],
    ['many bytes', [Buffer.alloc(300_000, 7)]],
    ['bytes in as many places as clients take', [Array.from({ length: 10 }, (_, n) => Buffer.from([n]))]],
    ['what is deep', [JSON.parse('['.repeat(25) + ']'.repeat(25))]],
  ];
  for (const [name, args, expected = args] of values) {
    test(`brings ${name} as a Socket.IO server of Node would`, async (t) => {
      const { meeting, sockets } = await scene(t);
      await assertReaches(sockets, fresh('event'), ['ada', 'bob'], expected, (event) =>
        emitter.to(meeting).emit(event, ...args),
      );
    });
  }

  test('reaches those who have only just come', async (t) => {
    for (let n = 0; n < 20; n++) {
      const user = fresh('user');
      const socket = await as(t, b, user);
      const heard = [once(socket, 'to-user'), once(socket, 'to-socket'), once(socket, 'to-meeting')];
      emitter.to(`user:${user}`).emit('to-user');
      emitter.to(socket.id).emit('to-socket');
      const meeting_id = fresh();
      await accepted(new Promise((ack) => socket.emit('join_room', { meeting_id }, ack)));
      emitter.to(meeting_id).emit('to-meeting');
      await Promise.all(heard);
    }
  });

  test('comes in the order in which it was sent', async (t) => {
    const { meeting, sockets } = await scene(t);
    const event = fresh('event');
    const heard = [record(sockets.ada, event), record(sockets.bob, event)];
    const sent = Array.from({ length: 500 }, (_, n) => n);
    for (const n of sent) emitter.to(meeting).emit(event, n);
    for (const { count, items } of heard) assert.deepEqual(await count(sent.length).then(() => items), sent);
  });

  test('is not logged, and disturbs no log', async (t) => {
    const { meeting, sockets } = await scene(t);
    const heard = log(sockets.bob);
    await said(sockets.ada, meeting, 'one');
    const foreign = once(sockets.bob, 'poll');
    emitter.to(meeting).emit('poll', {});
    await foreign;
    await said(sockets.ada, meeting, 'two');
    await heard.count(2);
    const texts = (events) => events.map(({ seq, text }) => [seq, text]);
    assert.deepEqual(texts(heard.items), [[1, 'one'], [2, 'two']]); // prettier-ignore
    assert.deepEqual(texts(await history(sockets.bob, meeting)), texts(heard.items));
  });

  test('reaches no one any more who has left', async (t) => {
    const { meeting, sockets } = await scene(t);
    await accepted(new Promise((ack) => sockets.bob.emit('leave_room', { meeting_id: meeting }, ack)));
    await assertReaches(sockets, fresh('event'), ['ada'], [1], (event) => emitter.to(meeting).emit(event, 1));
  });
});

describe('a meeting that has the name', () => {
  /** Puts somebody on each instance into the meeting of this name, if that can be joined at all. */
  async function listeners(t, meeting_id) {
    const sockets = [];
    for (const service of [a, b]) {
      const socket = await as(t, service, fresh('listener'));
      await new Promise((ack) => socket.emit('join_room', { meeting_id }, ack));
      sockets.push(socket);
    }
    return sockets;
  }

  test('of a user hears nothing that is for the user', async (t) => {
    const { sockets, users } = await scene(t);
    const room = `user:${users.bob}`;
    const [one, two] = await listeners(t, room);
    const all = { bob: sockets.bob, phone: sockets.phone, one, two };
    await assertReaches(all, fresh('event'), ['bob', 'phone'], [1], (event) => emitter.to(room).emit(event, 1));
    await assertReaches(all, fresh('event'), ['bob', 'phone'], [1], (event) => emitter.to([room, 'x']).emit(event, 1));
    await assertReaches(all, fresh('event'), ['one', 'two'], [1], (event) => emitter.except(room).to([one.id, two.id]).emit(event, 1)); // prettier-ignore
    // Its own room has another name among servers.
    await assertReaches(all, fresh('event'), ['one', 'two'], [1], (event) =>
      emitter.to(`meeting:${room}`).emit(event, 1),
    );
  });

  for (const [name, rooms] of [
    ['a socket', (id) => id],
    ['a socket and others', (id) => [id, 'x']],
  ]) {
    test(`of a socket hears nothing that is for ${name}`, async (t) => {
      const { sockets } = await scene(t);
      for (const who of ['bob', 'phone']) {
        const { id } = sockets[who];
        const [one, two] = await listeners(t, id);
        const all = { [who]: sockets[who], one, two };
        await assertReaches(all, fresh('event'), [who], [1], (event) => emitter.to(rooms(id)).emit(event, 1));
      }
    });
  }

  test('of an instance, or begins with it, hears everything once', async (t) => {
    const [{ ready }] = await listeners(t, fresh());
    for (const room of [ready.instance, `${ready.instance}AAAAAAAAAAAAAA`, `${ready.instance}-x`]) {
      const [one, two] = await listeners(t, room);
      await assertReaches({ one, two }, fresh('event'), ['one', 'two'], [1], (event) =>
        emitter.to(room).emit(event, 1),
      );
      const heard = [one, two].map((socket) => record(socket, 'chat_message'));
      await said(one, room, 'once');
      await said(two, room, 'and once');
      for (const { count } of heard) await count(2);
      await fence([one, two]);
      for (const { items } of heard) assert.deepEqual(items.map(({ seq }) => seq), [1, 2]); // prettier-ignore
    }
  });

  test('of the room of a meeting is another meeting', async (t) => {
    const { meeting, sockets } = await scene(t);
    const [one, two] = await listeners(t, `meeting:${meeting}`);
    const all = { ada: sockets.ada, bob: sockets.bob, one, two };
    await assertReaches(all, fresh('event'), ['ada', 'bob'], [1], (event) => emitter.to(meeting).emit(event, 1));
  });
});

describe('socketsJoin', () => {
  /** Emits to the room again and again until all of `sockets` have heard one. Requests are not answered. */
  async function untilReached(room, sockets) {
    const event = fresh('event');
    const heard = sockets.map((socket) => record(socket, event));
    await eventually(async () => {
      emitter.to(room).emit(event);
      for (const socket of sockets) await settled(socket);
      for (const { items } of heard) assert.ok(items.length > 0, `nobody is reached in ${room}`);
    });
  }

  /** Emits to the room again and again until none of `sockets` hears it. */
  async function untilLeft(room, sockets) {
    await eventually(async () => {
      const event = fresh('event');
      const heard = sockets.map((socket) => record(socket, event));
      emitter.to(room).emit(event);
      await fence(sockets);
      for (const { items } of heard) assert.deepEqual(items, []);
    });
  }

  for (const [name, target] of [
    ['a socket', ({ sockets }) => sockets.phone.id],
    ['a user', ({ users }) => `user:${users.bob}`],
    ['a meeting', ({ meeting }) => meeting],
  ]) {
    test(`puts the sockets of ${name} into a room, and socketsLeave takes them out`, async (t) => {
      const all = await scene(t);
      const { sockets } = all;
      const inside = { 'a socket': ['phone'], 'a user': ['bob', 'phone'], 'a meeting': ['ada', 'bob'] }[name];
      const room = fresh('promo');
      emitter.in(target(all)).socketsJoin([room, `${room}-2`]);
      const entered = inside.map((socket) => sockets[socket]);
      await untilReached(room, entered);
      await untilReached(`${room}-2`, entered);
      await assertReaches(sockets, fresh('event'), inside, [1], (event) => emitter.to(room).emit(event, 1));
      emitter.in(target(all)).socketsLeave(room);
      await untilLeft(room, entered);
      await assertReaches(sockets, fresh('event'), inside, [1], (event) => emitter.to(`${room}-2`).emit(event, 1));
    });
  }

  test('makes nobody a member of a meeting', async (t) => {
    const { meeting, sockets } = await scene(t);
    const heard = log(sockets.eve);
    const count = async () =>
      (await accepted(new Promise((ack) => sockets.ada.emit('get_presence', { meeting_id: meeting }, ack)))).count;
    const before = await count();
    const room = fresh('promo');
    emitter.in(sockets.eve.id).socketsJoin([meeting, room]);
    await untilReached(room, [sockets.eve]);
    await refused(say(sockets.eve, meeting, 'let me in'), 'not_joined');
    const delivered = once(sockets.bob, 'chat_message');
    await said(sockets.ada, meeting, 'for members');
    await delivered;
    await settled(sockets.eve);
    assert.deepEqual(heard.items, []);
    assert.equal(await count(), before);
  });

  test('does not outlive the socket, and neither does the room', async (t) => {
    const { sockets, users } = await scene(t);
    const room = fresh('promo');
    const rooms = async () => {
      const requestId = fresh('request');
      const heard = await answers(requestId);
      await publisher.publish('socket.io-request#/#', JSON.stringify({ type: 1, uid: 'x', requestId }));
      return (await heard(2)).flatMap((answer) => answer.rooms);
    };
    emitter.in(`user:${users.eve}`).socketsJoin(room);
    await untilReached(room, [sockets.eve]);
    assert.ok((await rooms()).includes(room));
    sockets.eve.disconnect();
    const again = await as(t, b, users.eve);
    await untilLeft(room, [again]);
    await eventually(async () => assert.ok(!(await rooms()).includes(room)));
  });
});

describe('disconnectSockets', () => {
  for (const close of [false, true]) {
    test(`with close ${close} ends the sockets of a user on all instances, and no others`, async (t) => {
      const { sockets, users } = await scene(t);
      const left = [once(sockets.bob, 'disconnect'), once(sockets.phone, 'disconnect')];
      emitter.in(`user:${users.bob}`).disconnectSockets(close);
      await Promise.all(left);
      await fence([sockets.ada, sockets.eve]);
      assert.deepEqual([sockets.ada.connected, sockets.eve.connected], [true, true]);
    });
  }

  test('ends those of a meeting but for some', async (t) => {
    const { meeting, sockets, users } = await scene(t);
    const left = once(sockets.bob, 'disconnect');
    emitter.in(meeting).except(`user:${users.ada}`).disconnectSockets(true);
    await left;
    await fence([sockets.ada, sockets.phone, sockets.eve]);
    assert.ok(sockets.ada.connected);
  });
});

test('serverSideEmit is for servers: no client hears of it, and nothing ends', async (t) => {
  const { sockets } = await scene(t);
  const heard = Object.values(sockets).map((socket) => record(socket, 'ping'));
  emitter.serverSideEmit('ping', 1, { two: [2] });
  await fence(Object.values(sockets));
  for (const { items } of heard) assert.deepEqual(items, []);
});

/** The double of a small integer, which no encoder for JavaScript writes. */
const TWO_AS_DOUBLE = Buffer.from([0xcb, 0x40, 0, 0, 0, 0, 0, 0, 0]);

describe('a hand-made broadcast that servers of Node accept is accepted:', () => {
  const packet = (event) => ({ type: 2, data: [event, 1], nsp: '/' });
  const forms = [
    ['without a namespace', (event, rooms) => ['x', { type: 2, data: [event, 1] }, { rooms, except: [], flags: {} }]],
    ['without except and flags', (event, rooms) => ['x', packet(event), { rooms }]],
    ['with null for these', (event, rooms) => ['x', packet(event), { rooms, except: null, flags: null }]],
    ['with a uid that is a number', (event, rooms) => [7, packet(event), { rooms, except: [], flags: {} }]],
    ['with a uid that is nothing', (event, rooms) => [null, packet(event), { rooms, except: [], flags: {} }]],
    ['with more fields', (event, rooms) => ['x', { ...packet(event), a: 1 }, { rooms, except: [], flags: {}, b: [1] }]],
    [
      'with more elements',
      (event, rooms) => ['x', packet(event), { rooms, except: [], flags: {} }, { o: 5, e: 'a' }, 6],
    ],
    [
      'with unknown flags',
      (event, rooms) => ['x', packet(event), { rooms, except: [], flags: { local: true, x: [] } }],
    ],
  ];
  for (const [name, form] of forms) {
    test(name, async (t) => {
      const { meeting, sockets } = await scene(t);
      const publish = (event) => publisher.publish(`socket.io#/#${meeting}#`, encode(form(event, [meeting])));
      await assertReaches(sockets, fresh('event'), ['ada', 'bob'], [1], publish);
    });
  }

  test('with a type that is a double', async (t) => {
    const { meeting, sockets } = await scene(t);
    await assertReaches(sockets, fresh('event'), ['ada', 'bob'], [1], (event) => {
      const bytes = encode(['x', packet(event), { rooms: [meeting], except: [], flags: {} }]);
      const at = bytes.indexOf('type') + 'type'.length;
      const changed = Buffer.concat([bytes.subarray(0, at), TWO_AS_DOUBLE, bytes.subarray(at + 1)]);
      publisher.publish(`socket.io#/#${meeting}#`, changed);
    });
  });

  test('with rooms on the channel of all', async (t) => {
    const { meeting, sockets } = await scene(t);
    await assertReaches(sockets, fresh('event'), ['ada', 'bob'], [1], (event) =>
      publisher.publish('socket.io#/#', encode(['x', packet(event), { rooms: [meeting], except: [], flags: {} }])),
    );
  });

  test('without rooms on the channel of one: the payload decides who hears it', async (t) => {
    const { meeting, sockets } = await scene(t);
    await assertReaches(sockets, fresh('event'), ['ada', 'bob', 'phone', 'eve'], [1], (event) =>
      publisher.publish(`socket.io#/#${meeting}#`, encode(['x', packet(event), { rooms: [], except: [], flags: {} }])),
    );
  });
});

describe('a hand-made request', () => {
  for (const [form, write] of [
    ['JSON', JSON.stringify],
    ['MessagePack', encode],
  ]) {
    test(`for the sockets of a room, in ${form}, is answered by each instance`, async (t) => {
      const { meeting, sockets } = await scene(t);
      const requestId = fresh('request');
      const heard = await answers(requestId);
      await publisher.publish('socket.io-request#/#', write({ type: 0, uid: 'x', requestId, rooms: [meeting] }));
      const found = (await heard(2)).flatMap((answer) => answer.sockets);
      assert.deepEqual(found.sort(), [sockets.ada.id, sockets.bob.id].sort());
    });
  }

  test('for one socket, as old servers write it, is done and answered by its instance', async (t) => {
    const { sockets } = await scene(t);
    const room = fresh('promo');
    const [sid, emit] = [sockets.phone.id, (event) => emitter.to(room).emit(event)];
    const request = async (type, more) => {
      const requestId = fresh('request');
      const heard = await answers(requestId);
      await publisher.publish('socket.io-request#/#', JSON.stringify({ type, sid, requestId, ...more }));
      await heard(1);
    };
    await request(2, { room });
    await eventually(async () => {
      const heard = record(sockets.phone, 'inside');
      emit('inside');
      await settled(sockets.phone);
      assert.ok(heard.items.length > 0);
    });
    await request(3, { room });
    await assertReaches(sockets, fresh('event'), [], [], emit);
    const left = once(sockets.phone, 'disconnect');
    await request(4, { close: true });
    await left;
  });
});

test('with another REDIS_PREFIX the emitter needs that key', async (t) => {
  const prefix = 'other.key';
  const service = await cluster.add({ REDIS_PREFIX: prefix });
  const user = fresh('user');
  const socket = await as(t, service, user);
  const heard = record(socket, 'event');
  emitter.to(`user:${user}`).emit('event', 'usual key');
  new Emitter(publisher, { key: prefix }).to(`user:${user}`).emit('event', 'own key');
  await heard.count(1);
  await settled(socket);
  assert.deepEqual(heard.items, ['own key']);
});
