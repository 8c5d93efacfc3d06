// Promise: whatever comes in on whatever channel ends nothing, is counted, is never shown in the log, and keeps nothing
// from coming through that is right.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Emitter } from '@socket.io/redis-emitter';

import { accepted, as, fresh, member, range, said, settled } from '../support/chat.mjs';
import { startCluster } from '../support/interop/cluster.mjs';
import { unreadable } from '../support/interop/metrics.mjs';
import { encode } from '../support/interop/msgpack.mjs';
import { ask, assertHas, eventually, once, record } from '../support/wait.mjs';

/** What may never be seen in a log. */
const MARK = 'CONTENT-OF-A-BAD-MESSAGE';
const MIB = 1024 * 1024;

let cluster;
let redis;
let emitter;
before(async () => {
  cluster = await startCluster();
  redis = await cluster.redis.client();
  emitter = new Emitter(redis);
});
after(() => cluster.stop());

/** A meeting with a member on each instance. */
async function scene(t) {
  const meeting = fresh();
  const sockets = [];
  for (const service of cluster.services) sockets.push(await member(t, service, meeting));
  const left = sockets.map((socket) => record(socket, 'disconnect'));
  return { meeting, sockets, left };
}

/** That everything goes on: the sockets are there, and emits and messages reach them. */
async function assertAlive({ meeting, sockets, left }) {
  const event = fresh('alive');
  const heard = sockets.flatMap((socket) => [once(socket, event), once(socket, 'chat_message')]);
  emitter.to(meeting).emit(event, 1);
  await said(sockets[0], meeting, event);
  await Promise.all(heard);
  for (const { items } of left) assert.deepEqual(items, []);
  for (const { ended, log } of cluster.services) {
    assert.equal(ended, undefined, log);
    assert.ok(!log.includes(MARK), 'what came in is in the log');
  }
}

/** A generator of the same numbers at each run. */
function random(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** What is nothing at all, neither JSON nor MessagePack of a use. */
const GARBAGE = [
  ['nothing', ''],
  ['a zero byte', Buffer.from([0])],
  ['bytes that are no text', Buffer.from([0xff, 0xfe, 0xc1, 0x80])],
  ['half of an object', `{"a":"${MARK}`],
  ['text', MARK],
  ['null', 'null'],
  ['a number', '7'],
  ['a string', `"${MARK}"`],
  ['a list', `["${MARK}"]`],
  ['an empty object', '{}'],
  ['an object and something more', `{"type":"x"} ${MARK}`],
  ['lone surrogates', '{"type":"\\ud800","method":"\\ud800"}'],
  ['deep JSON', '['.repeat(100_000)],
  ['deep objects', '{"a":'.repeat(50_000) + '1' + '}'.repeat(50_000)],
  ['deep MessagePack', Buffer.alloc(100_000, 0x91)],
  ['deep maps', Buffer.concat(Array.from({ length: 20_000 }, () => Buffer.from([0x81, 0xa1, 0x61])))],
  ['a list that says it is very long', Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0])],
  ['a map that says it is very long', Buffer.from([0xdf, 0xff, 0xff, 0xff, 0xff, 0xa1, 0x61])],
  ['bytes that say they are very long', Buffer.from([0xc6, 0xff, 0xff, 0xff, 0xff, 1])],
  ['text that says it is very long', Buffer.from([0xdb, 0x7f, 0xff, 0xff, 0xff, 0x61])],
  ['four MiB', Buffer.alloc(4 * MIB, 'x')],
  ['four MiB in JSON', JSON.stringify({ data: 'x'.repeat(4 * MIB) })],
  ['a pickle', Buffer.from(`\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x06${MARK}\x94.`, 'latin1')],
];

const opts = (rooms = [], more = {}) => ({ rooms, except: [], flags: {}, ...more });
const packet = (data, more = {}) => ({ type: 2, data, nsp: '/', ...more });
const event = [MARK, 1];

/** Broadcasts of the adapter that are none. */
const BROADCASTS = [
  ['another byte behind it', Buffer.concat([encode(['x', packet(event), opts()]), Buffer.from([0])])],
  ['no options', encode(['x', packet(event)])],
  ['no packet', encode(['x'])],
  ['an empty list', encode([])],
  ['a packet that is a list', encode(['x', [2, event, '/'], opts()])],
  ['a packet that is nothing', encode(['x', null, opts()])],
  ['options that are text', encode(['x', packet(event), MARK])],
  ['rooms that are text', encode(['x', packet(event), opts(MARK)])],
  ['rooms that are objects', encode(['x', packet(event), opts([{ a: MARK }])])],
  ['no data', encode(['x', { type: 2, nsp: '/' }, opts()])],
  ['data without an event', encode(['x', packet([]), opts()])],
  ['data that is text', encode(['x', packet(MARK), opts()])],
  ...['connect', 'connect_error', 'disconnect', 'disconnecting', 'newListener', 'removeListener'].map((name) => [
    `the reserved event ${name}`,
    encode(['x', packet([name, MARK]), opts()]),
  ]),
  [
    'more attachments than clients take',
    encode(['x', packet([MARK, Array.from({ length: 11 }, () => Buffer.alloc(1))]), opts()]),
  ],
  ['a map for a list', encode({ uid: 'x', packet: packet(event), opts: opts() })],
];

/** Of a packet of another kind, and what else may be ignored without being wrong: it must only do no harm. */
const STRANGE = [
  ['a type that is text', encode(['x', packet(event, { type: '2' }), opts()])],
  ['a CONNECT', encode(['x', packet(event, { type: 0 }), opts()])],
  ['a DISCONNECT', encode(['x', packet(event, { type: 1 }), opts()])],
  ['a binary event', encode(['x', packet([MARK, Buffer.from('x')], { type: 5 }), opts()])],
  ['a CONNECT_ERROR', encode(['x', packet({ message: MARK }, { type: 4 }), opts()])],
  ['an event that is a number', encode(['x', packet([7]), opts()])],
  ['another namespace', encode(['x', packet(event, { nsp: '/none' }), opts()])],
  ['a namespace that is a number', encode(['x', packet(event, { nsp: 7 }), opts()])],
  ['an excepted that is a number', encode(['x', packet(event), opts(['nowhere'], { except: 7 })])],
  ['flags that are a list', encode(['x', packet(event), opts(['nowhere'], { flags: [1] })])],
];

/** As fourth elements: what only the service itself adds. */
const METADATA = (meeting, epoch) => [
  null,
  7,
  MARK,
  [],
  {},
  { s: 1 },
  { s: 'x', e: 7, k: 'x', j: 7 },
  { s: -1, e: epoch, k: 0, j: '{}' },
  { s: 1.5, e: epoch, k: 0, j: '{}' },
  { s: 2 ** 53, e: epoch, k: 0, j: '{}' },
  { s: 2, e: epoch, k: 99, j: '{}' },
  { s: 2, e: epoch, k: 0, j: `not JSON ${MARK}` },
  { s: 2, e: epoch, k: 0, j: '' },
  { s: 0, e: epoch, k: 0, j: '{}' },
  { s: 1, e: epoch, k: 0, j: JSON.stringify({ seq: 1, epoch, meeting_id: meeting, text: MARK }) },
  { s: 2, e: '', k: 0, j: '{}' },
  { s: 2, e: MARK.repeat(100), k: 0, j: '{}' },
  { j: `not JSON ${MARK}` },
];

const REQUESTS = [
  ...[0, 1, 2, 3, 4, 5, 6, 7].map((type) => [`type ${type} and no more`, JSON.stringify({ type, note: MARK })]),
  ...[0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map((type) => [`type ${type} in MessagePack`, encode({ type, note: MARK })]),
  ['an unknown type', JSON.stringify({ type: 99, uid: 'x', requestId: 'q' })],
  ['a type that is text', JSON.stringify({ type: 'five', uid: 'x', requestId: 'q' })],
  ['options that are text', JSON.stringify({ type: 5, uid: 'x', requestId: 'q', opts: MARK })],
  ['rooms that are numbers', JSON.stringify({ type: 2, opts: { rooms: 7, except: [] }, rooms: 7 })],
  ['rooms that are lists', JSON.stringify({ type: 3, opts: { rooms: [['a']], except: [] }, rooms: [['a']] })],
  ['a request id that is an object', JSON.stringify({ type: 1, uid: 'x', requestId: { a: MARK } })],
  ['an emit without an event', JSON.stringify({ type: 6, uid: 'x', data: [] })],
  ['an ack broadcast without a packet', encode({ type: 7, uid: 'x', requestId: 'q', opts: opts(['nowhere']) })],
  [
    'an ack broadcast in JSON',
    JSON.stringify({ type: 7, uid: 'x', requestId: 'q', packet: 1, opts: opts(['nowhere']) }),
  ],
  ['a socket that is a number', JSON.stringify({ type: 2, sid: 7, room: 7, requestId: 'q' })],
];

const python = (more) =>
  JSON.stringify({ method: 'emit', event: MARK, data: [1], namespace: '/', room: 'nowhere', host_id: 'x', ...more });
const PYTHON = [
  ['an unknown method', python({ method: MARK })],
  ['a method that is a number', python({ method: 7 })],
  ['an event that is a number', python({ event: 7 })],
  ['a reserved event', python({ event: 'disconnect', room: null })],
  ['a room that is an object', python({ room: { a: MARK } })],
  ['rooms that are numbers', python({ room: [[1], {}] })],
  ['a skip_sid that is an object', python({ skip_sid: { a: 1 } })],
  ['binary without attachments', python({ binary: true, data: [[{ _placeholder: true, num: 0 }]] })],
  ['a placeholder beyond the attachments', python({ binary: true, data: [[{ _placeholder: true, num: 9 }], 'AQ=='] })],
  ['a placeholder below the attachments', python({ binary: true, data: [[{ _placeholder: true, num: -1 }], 'AQ=='] })],
  ['an attachment that is no base64', python({ binary: true, data: [[{ _placeholder: true, num: 0 }], MARK] })],
  ['an attachment that is a number', python({ binary: true, data: [[{ _placeholder: true, num: 0 }], 7] })],
  ['many attachments', python({ binary: true, data: [[], ...Array.from({ length: 20_000 }, () => 'AQ==')] })],
  ['binary data that is text', python({ binary: true, data: MARK })],
  ['NaN', python({}).replace('[1]', '[NaN]')],
];
const STRANGE_PYTHON = [
  ['a callback that is text', python({ callback: MARK })],
  ['a callback that is short', python({ callback: ['a'] })],
  ['an answer that nobody waits for', python({ method: 'callback', sid: 'x', id: 1, args: [MARK] })],
  ['a disconnect of nobody', python({ method: 'disconnect', sid: MARK })],
  ['a disconnect without a socket', python({ method: 'disconnect' })],
  ['an enter_room without a room', python({ method: 'enter_room', room: undefined, sid: 'x' })],
  ['a close_room without a room', python({ method: 'close_room', room: null })],
  ['no data', python({ data: undefined })],
  ['another namespace', python({ namespace: '/none', room: null })],
];

const update = (more) =>
  JSON.stringify({ id: fresh('update'), type: 'x', recipients: ['nobody'], title: MARK, ...more });
const UPDATES = [
  ['a type with other characters', update({ type: `${MARK} !` })],
  ['a meeting id that is none', update({ meeting_id: `${MARK} !` })],
  ['recipients that are objects', update({ recipients: [{ a: MARK }] })],
  ['1 001 recipients', update({ recipients: range(1, 1001) })],
  ['a title of 201 characters', update({ title: MARK.padEnd(201) })],
  ['a time that is none', update({ starts_at: MARK })],
  ['an id of 65 characters', update({ id: MARK.padEnd(65) })],
  ['another version', update({ v: 2 })],
  ['data that is text', update({ data: MARK })],
  ['more than 64 KiB', update({ data: { x: MARK.padEnd(66_000) } })],
  ['nobody to be told', update({ recipients: [] })],
  ['a field twice', '{"type":"x","type":"y","recipients":["nobody"]}'],
];

const REVOCATIONS = [
  ['no type', JSON.stringify({ user_id: MARK })],
  ['no subject', JSON.stringify({ type: 'revoke', note: MARK })],
  ['two subjects', JSON.stringify({ type: 'revoke', user_id: MARK, jti: MARK })],
  ['another type', JSON.stringify({ type: MARK, user_id: 'x' })],
  ['a subject that is an object', JSON.stringify({ type: 'revoke', jti: { a: MARK } })],
  ['a time that is text', JSON.stringify({ type: 'revoke', user_id: 'x', before: MARK })],
];

/** Channel, what is refused and counted there, what is only to do no harm. */
const CHANNELS = [
  ['socket.io#/#', [...GARBAGE, ...BROADCASTS], STRANGE],
  ['socket.io#/#<meeting>#', [...GARBAGE, ...BROADCASTS], STRANGE],
  ['socket.io-request#/#', GARBAGE, REQUESTS],
  ['socket.io-response#/#', [], [...GARBAGE, ...REQUESTS]],
  ['socketio', [...GARBAGE, ...PYTHON], STRANGE_PYTHON],
  ['flask-socketio', [...GARBAGE, ...PYTHON], STRANGE_PYTHON],
  ['meeting_updates', [...GARBAGE, ...UPDATES], []],
  ['auth_events', [...GARBAGE, ...REVOCATIONS], []],
];

for (const [channel, refused, strange] of CHANNELS) {
  describe(`on ${channel}`, () => {
    for (const [name, message] of [...refused, ...strange]) {
      const isCounted = refused.some(([other]) => other === name);
      test(`${name} is ${isCounted ? 'counted, and ' : ''}dropped`, async (t) => {
        const all = await scene(t);
        const before = await Promise.all(cluster.services.map((service) => unreadable(service)));
        await redis.publish(channel.replace('<meeting>', all.meeting), message);
        await assertAlive(all);
        if (!isCounted) return;
        for (const [n, service] of cluster.services.entries()) {
          await eventually(async () => assert.ok((await unreadable(service)) > before[n], 'nothing was counted'));
        }
      });
    }
  });
}

test('an object without a type revokes nothing on auth_events', async (t) => {
  const all = await scene(t);
  const before = await Promise.all(cluster.services.map((service) => unreadable(service)));
  for (const { ready } of all.sockets) {
    await redis.publish('auth_events', JSON.stringify({ user_id: ready.user_id }));
  }
  for (const [n, service] of cluster.services.entries()) {
    const count = before[n] + all.sockets.length;
    await eventually(async () => assert.ok((await unreadable(service)) >= count, 'not all were counted'));
  }
  await assertAlive(all);
  // Nor are their tokens refused from now on.
  for (const { ready } of all.sockets) {
    for (const service of cluster.services) (await as(t, service, ready.user_id)).disconnect();
  }
});

test('metadata that is not of the service leaves the log as it is', async (t) => {
  const all = await scene(t);
  const { meeting, sockets } = all;
  const { epoch } = await said(sockets[0], meeting, 'one');
  const forged = sockets.map((socket) => record(socket, 'chat_message'));
  for (const meta of METADATA(meeting, epoch)) {
    const data = ['chat_message', { seq: 7, epoch, meeting_id: meeting, text: MARK }];
    await redis.publish(`socket.io#/#${meeting}#`, encode(['forger', packet(data), opts([meeting]), meta]));
  }
  const user = `user:${sockets[1].ready.user_id}`;
  for (const j of [MARK, '', '[]', 7]) {
    await redis.publish(`socket.io#/#${user}#`, encode(['forger', packet(['notification', {}]), opts([user]), { j }]));
  }
  await assertAlive(all);
  await said(sockets[1], meeting, 'two');
  for (const { some } of forged) await some(({ text }) => text === 'two');
  const { items } = await accepted(ask(sockets[0], 'get_history', { meeting_id: meeting }));
  assert.ok(!JSON.stringify(items).includes(MARK));
});

test('a seq far ahead, said by somebody else, does not end the meeting', async (t) => {
  const all = await scene(t);
  const { meeting, sockets } = all;
  const { epoch } = await said(sockets[0], meeting, 'one');
  for (const s of [1000, 3]) {
    const meta = { s, e: epoch, k: 0, j: JSON.stringify({ seq: s, epoch, meeting_id: meeting, text: MARK }) };
    const data = ['chat_message', { seq: s }];
    await redis.publish(`socket.io#/#${meeting}#`, encode(['forger', packet(data), opts([meeting]), meta]));
  }
  const heard = sockets.map((socket) => record(socket, 'chat_message'));
  await eventually(async () => {
    const text = fresh('text');
    await said(sockets[1], meeting, text);
    for (const socket of sockets) await settled(socket);
    for (const { some } of heard) await some((message) => message.text === text, 3000);
  });
  await assertAlive(all);
});

describe('on meeting_updates:stream', () => {
  const STREAM = 'meeting_updates:stream';
  const valid = (all) => JSON.stringify({ id: fresh('update'), type: 'x', meeting_id: all.meeting });
  async function assertRead(all) {
    const heard = all.sockets.map((socket) => once(socket, 'meeting_update'));
    await redis.xAdd(STREAM, '*', { data: valid(all) });
    for (const event of heard) assertHas((await event)[0], { type: 'x' });
    await assertAlive(all);
  }

  for (const [name, message] of [...GARBAGE, ...UPDATES]) {
    test(`${name} is counted, and what comes behind it is read`, async (t) => {
      const all = await scene(t);
      const count = async () => {
        const counts = await Promise.all(cluster.services.map((service) => unreadable(service)));
        return counts.reduce((sum, n) => sum + n);
      };
      const before = await count();
      await redis.xAdd(STREAM, '*', { data: message });
      await assertRead(all);
      await eventually(async () => assert.ok((await count()) > before, 'nothing was counted'));
    });
  }

  test('an entry without data, or with more, holds nothing up', async (t) => {
    const all = await scene(t);
    await redis.xAdd(STREAM, '*', { other: MARK });
    await redis.xAdd(STREAM, '*', { a: '1', data: valid(all), b: '2' });
    await assertRead(all);
  });

  test('entries that are trimmed or deleted before they are read hold nothing up', async (t) => {
    const all = await scene(t);
    const ids = await Promise.all(range(1, 200).map(() => redis.xAdd(STREAM, '*', { data: update({}) })));
    await redis.xDel(STREAM, ids);
    await redis.xTrim(STREAM, 'MAXLEN', 0);
    await assertRead(all);
  });

  test('a key that is no stream for a while, or is gone, is read again once it is one', async (t) => {
    const all = await scene(t);
    for (const spoil of [() => redis.set(STREAM, MARK), () => Promise.resolve()]) {
      await redis.del(STREAM);
      await spoil();
      await assertAlive(all);
      await redis.del(STREAM);
      await assertRead(all);
    }
  });
});

test('changed bytes of what is right do no harm', async (t) => {
  const all = await scene(t);
  const below = random(7);
  const samples = [
    ['socket.io#/#', encode(['x', packet([MARK, { a: [1, 'b', Buffer.from('c')] }]), opts(['nowhere'])])],
    [
      'socket.io-request#/#',
      Buffer.from(JSON.stringify({ type: 5, uid: 'x', requestId: 'q', opts: opts(['nowhere']) })),
    ],
    [
      'socket.io-request#/#',
      encode({ type: 7, uid: 'x', requestId: 'q', packet: packet(['q']), opts: opts(['nowhere']) }),
    ],
    [
      'socket.io-response#/#',
      Buffer.from(JSON.stringify({ requestId: 'q', sockets: [{ id: 'x', rooms: [], data: {} }] })),
    ],
    ['socketio', Buffer.from(python({}))],
    ['meeting_updates', Buffer.from(update({ recipients: ['nobody'] }))],
    ['auth_events', Buffer.from(JSON.stringify({ type: 'revoke', jti: 'nobody' }))],
  ];
  for (let n = 0; n < 4000; n++) {
    const [channel, sample] = samples[n % samples.length];
    const changed = Buffer.from(sample);
    for (let m = 0; m <= below(3); m++) changed[below(changed.length)] = below(256);
    redis.publish(channel, below(4) === 0 ? changed.subarray(0, below(changed.length)) : changed);
  }
  await redis.ping();
  await assertAlive(all);
});

test('a flood of it is counted, but told in a few lines, and clients are served meanwhile', async (t) => {
  const all = await scene(t);
  const lines = () => cluster.services.map(({ log }) => log.split('\n').length);
  const [before, linesBefore] = [await Promise.all(cluster.services.map((service) => unreadable(service))), lines()];
  const COUNT = 3000;
  for (let n = 0; n < COUNT; n++) {
    for (const channel of ['socket.io#/#', 'socketio', 'meeting_updates', 'auth_events'])
      redis.publish(channel, `{${MARK}`);
  }
  await assertAlive(all);
  for (const [n, service] of cluster.services.entries()) {
    await eventually(async () => assert.ok((await unreadable(service)) >= before[n] + 4 * COUNT));
    assert.ok(lines()[n] - linesBefore[n] < 100, `${lines()[n] - linesBefore[n]} lines`);
  }
});
