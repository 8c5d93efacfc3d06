// Promise: what python-socketio and Flask-SocketIO send through Redis reaches the clients of all instances, whatever
// version of the last year it is; the pickles of older ones are refused and do no harm.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { accepted, as, fresh, log, member, refused, said, say, settled } from '../support/chat.mjs';
import { startCluster } from '../support/interop/cluster.mjs';
import { pickles } from '../support/interop/metrics.mjs';
import { PythonPeer, answering, bytes, tuple } from '../support/interop/peers.mjs';
import { ask, eventually, once, record } from '../support/wait.mjs';

let cluster;
let a;
let b;
before(async () => {
  cluster = await startCluster();
  [a, b] = cluster.services;
});
after(() => cluster.stop());

/** Two users in a meeting, one of them with a second device outside of it, and somebody who is nowhere. */
async function scene(t) {
  const meeting = fresh();
  const [ada, bob, eve] = [fresh('ada'), fresh('bob'), fresh('eve')];
  const sockets = {
    ada: await member(t, a, meeting, ada),
    bob: await member(t, b, meeting, bob),
    phone: await as(t, a, bob, {}, { transport: 'polling' }),
    eve: await as(t, b, eve),
  };
  return { meeting, sockets, users: { ada, bob, eve } };
}

const EMITTERS = [
  { name: 'python-socketio 5.14.0', venv: 'socketio-5.14.0', kind: 'manager', wraps: false, sendsBytes: false },
  { name: 'python-socketio 5.15.1', venv: 'socketio-5.15.1', kind: 'manager', wraps: true, sendsBytes: true },
  { name: 'the newest python-socketio', venv: 'socketio-newest', kind: 'manager', wraps: true, sendsBytes: true },
  { name: 'the newest Flask-SocketIO', venv: 'socketio-newest', kind: 'flask', wraps: true, sendsBytes: true },
];

for (const { name, venv, kind, wraps, sendsBytes } of EMITTERS) {
  describe(name, () => {
    let emitter;
    before(async () => (emitter = await PythonPeer.start(venv, 'emitter', kind, cluster.redis.url)));
    after(() => emitter.stop());

    /** After this, what was emitted before it was heard. */
    async function fence(sockets) {
      const event = fresh('fence');
      const heard = sockets.map((socket) => once(socket, event));
      for (const socket of sockets) await emitter.run('emit', { event, room: socket.id });
      await Promise.all(heard);
    }

    /** Emits, and asserts what each of the sockets gets under `event`: the arguments if it is named, else nothing. */
    async function assertReaches(sockets, names, args, command) {
      const event = fresh('event');
      const heard = Object.entries(sockets).map(([socket, { id }]) => [socket, record(sockets[socket], event), id]);
      await emitter.run('emit', { event, ...command });
      for (const [socket, { count }] of heard) if (names.includes(socket)) await count(1);
      await fence(Object.values(sockets));
      const single = args.length === 1 ? args[0] : args;
      for (const [socket, { items }] of heard) assert.deepEqual(items, names.includes(socket) ? [single] : [], socket);
    }

    const targets = [
      ['to a meeting', ['ada', 'bob'], ({ meeting }) => ({ room: meeting })],
      ['to a user', ['bob', 'phone'], ({ users }) => ({ room: `user:${users.bob}` })],
      ['to a socket', ['phone'], ({ sockets }) => ({ room: sockets.phone.id })],
      ['to rooms', ['ada', 'bob', 'phone'], (s) => ({ room: [s.meeting, `user:${s.users.bob}`] })],
      ['to everybody', ['ada', 'bob', 'phone', 'eve'], () => ({})],
      ['to a meeting, skipping a socket', ['ada'], (s) => ({ room: s.meeting, skip_sid: s.sockets.bob.id })],
      ['to everybody, skipping two', ['bob', 'eve'], (s) => ({ skip_sid: [s.sockets.ada.id, s.sockets.phone.id] })],
      ['to a room where nobody is', [], () => ({ room: fresh('nowhere') })],
      ['to another namespace', [], ({ meeting }) => ({ room: meeting, namespace: '/other' })],
    ];
    for (const [target, names, command] of targets) {
      test(`${target} reaches ${names.join(', ') || 'nobody'}`, async (t) => {
        const all = await scene(t);
        await assertReaches(all.sockets, names, [{ id: 7 }], { data: { id: 7 }, ...command(all) });
      });
    }

    const values = [
      ['a string', 'text', ['text']],
      ['a number', 1.5, [1.5]],
      ['a large integer', 9007199254740991, [9007199254740991]],
      ['None, which is no argument to servers in Python,', null, []],
      ['True', true, [true]],
      ['an object', { a: { b: [1, null] } }, [{ a: { b: [1, null] } }]],
      ['text of all kinds', { é: '\u0000"\\\u2028\u{1f600}<b>' }, [{ é: '\u0000"\\\u2028\u{1f600}<b>' }]],
      ['a tuple', tuple(1, 'two', { three: 3 }), [1, 'two', { three: 3 }]],
      // Versions that do not wrap send a list and a tuple as the same text.
      ['a list', [1, 2], wraps ? [[1, 2]] : [1, 2]],
      ['a list in a tuple', tuple([1, 2], [3]), [[1, 2], [3]]],
    ];
    const binary = [
      ['bytes', bytes(1, 2, 255), [Buffer.from([1, 2, 255])]],
      ['no bytes', { none: bytes() }, [{ none: Buffer.alloc(0) }]],
      ['bytes in an object', { f: bytes(1, 2), n: 1 }, [{ f: Buffer.from([1, 2]), n: 1 }]],
      ['bytes in several places', tuple(bytes(1), { a: [bytes(2)] }), [Buffer.from([1]), { a: [Buffer.from([2])] }]],
    ];
    for (const [what, data, expected] of [...values, ...(sendsBytes ? binary : [])]) {
      test(`brings ${what}`, async (t) => {
        const { meeting, sockets } = await scene(t);
        await assertReaches(sockets, ['ada', 'bob'], expected, { data, room: meeting });
      });
    }

    test('comes in the order in which it was sent', async (t) => {
      const { meeting, sockets } = await scene(t);
      const event = fresh('event');
      const heard = [record(sockets.ada, event), record(sockets.bob, event)];
      const sent = Array.from({ length: 100 }, (_, n) => n);
      await Promise.all(sent.map((n) => emitter.run('emit', { event, data: { n }, room: meeting })));
      for (const { count } of heard) assert.deepEqual(await count(sent.length), sent.map((n) => ({ n }))); // prettier-ignore
    });

    if (kind === 'flask') {
      test('send becomes the event message, or json', async (t) => {
        const { meeting, sockets } = await scene(t);
        const heard = [once(sockets.bob, 'message'), once(sockets.bob, 'json')];
        await emitter.run('send', { data: 'text', room: meeting });
        await emitter.run('send', { data: { a: 1 }, room: meeting, as_json: true });
        assert.deepEqual(await Promise.all(heard), [['text'], [{ a: 1 }]]);
      });
    } else {
      test('enter_room puts a socket into a room, leave_room and close_room take it out', async (t) => {
        const { sockets } = await scene(t);
        const room = fresh('promo');
        for (const [leave, command] of [
          ['leave_room', { sid: sockets.phone.id, room }],
          ['close_room', { room }],
        ]) {
          for (const socket of [sockets.phone, sockets.eve]) await emitter.run('enter_room', { sid: socket.id, room });
          await assertReaches(sockets, ['phone', 'eve'], [1], { data: 1, room });
          await emitter.run(leave, command);
          await assertReaches(sockets, leave === 'leave_room' ? ['eve'] : [], [1], { data: 1, room });
        }
      });

      test('enter_room makes nobody a member of a meeting', async (t) => {
        const { meeting, sockets } = await scene(t);
        const heard = log(sockets.eve);
        await emitter.run('enter_room', { sid: sockets.eve.id, room: meeting });
        await fence([sockets.eve]);
        await refused(say(sockets.eve, meeting, 'let me in'), 'not_joined');
        const delivered = once(sockets.bob, 'chat_message');
        await said(sockets.ada, meeting, 'for members');
        await delivered;
        await settled(sockets.eve);
        assert.deepEqual(heard.items, []);
      });
    }
  });
}

test('another channel is heard if PYTHON_CHANNELS names it, and then the usual ones are not', async (t) => {
  const service = await cluster.add({ PYTHON_CHANNELS: 'own-channel' });
  const url = cluster.redis.url;
  const [own, usual] = await Promise.all([
    PythonPeer.start('socketio-newest', 'emitter', 'manager', url, 'own-channel'),
    PythonPeer.start('socketio-newest', 'emitter', 'manager', url),
  ]);
  t.after(() => Promise.all([own.stop(), usual.stop()]));
  const socket = await as(t, service, fresh('user'));
  const elsewhere = await as(t, a, socket.ready.user_id);
  const heard = [record(socket, 'event'), record(elsewhere, 'event')];
  const room = `user:${socket.ready.user_id}`;
  await usual.run('emit', { event: 'event', data: 'usual', room });
  await own.run('emit', { event: 'event', data: 'own', room });
  for (const { count } of heard) await count(1);
  await settled(socket);
  assert.deepEqual([heard[0].items, heard[1].items], [['own'], ['usual']]); // prettier-ignore
});

describe('a hand-made message that servers in Python accept is accepted:', () => {
  const forms = [
    ['without a host', { data: ['v'], namespace: '/' }, ['v']],
    ['without a namespace', { data: ['v'], host_id: 'x' }, ['v']],
    ['with an argument that is in no list', { data: 'v', namespace: '/' }, ['v']],
    ['with an empty list', { data: [], namespace: '/' }, []],
    ['with more fields', { data: ['v'], namespace: '/', flags: {}, ignore_queue: true }, ['v']],
    ['with an empty list of those to skip', { data: ['v'], namespace: '/', skip_sid: [] }, ['v']],
  ];
  for (const [name, fields, expected] of forms) {
    test(name, async (t) => {
      const { sockets } = await scene(t);
      const event = fresh('event');
      const heard = record(sockets.phone, event);
      const client = await cluster.redis.client();
      for (const channel of ['socketio', 'flask-socketio']) {
        await client.publish(channel, JSON.stringify({ method: 'emit', event, room: sockets.phone.id, ...fields }));
      }
      const single = expected.length === 1 ? expected[0] : expected;
      assert.deepEqual(await heard.count(2), [single, single]);
    });
  }
});

describe('pickles of python-socketio 5.13', () => {
  test('are refused, counted, and said in the log with what to do; what comes after them is heard', async (t) => {
    const [old, current] = await Promise.all([
      PythonPeer.start('socketio-5.13.0', 'emitter', 'manager', cluster.redis.url),
      PythonPeer.start('socketio-newest', 'emitter', 'manager', cluster.redis.url),
    ]);
    t.after(() => Promise.all([old.stop(), current.stop()]));
    const socket = await as(t, a, fresh('user'));
    const heard = record(socket, 'event');
    const before = await Promise.all(cluster.services.slice(0, 2).map((service) => pickles(service)));
    for (let n = 0; n < 3; n++) await old.run('emit', { event: 'event', data: 'pickled', room: socket.id });
    await current.run('emit', { event: 'event', data: 'plain', room: socket.id });
    await heard.count(1);
    assert.deepEqual(heard.items, ['plain']);
    for (const [n, service] of [a, b].entries()) {
      await eventually(async () => assert.equal(await pickles(service), before[n] + 3));
      assert.match(service.log, /pickle/i);
      assert.match(service.log, /5\.15\.1/);
    }
  });
});

describe('a server of python-socketio', () => {
  let server;
  before(async () => (server = await PythonPeer.start('socketio-newest', 'server', cluster.redis.url)));
  after(() => server.stop());

  test('reaches the clients of the service once, and its own as well', async (t) => {
    const { meeting, sockets } = await scene(t);
    const own = await server.client(t, meeting);
    const event = fresh('event');
    const heard = [sockets.ada, sockets.bob, own].map((socket) => record(socket, event));
    await server.run('emit', { event, data: { n: 1 }, room: meeting });
    await server.run('emit', { event, data: { n: 2 }, room: meeting, skip_sid: sockets.ada.id });
    await server.run('emit', { event, data: { n: 3 } });
    const all = [{ n: 1 }, { n: 2 }, { n: 3 }];
    const expected = [all.filter(({ n }) => n !== 2), all, all];
    for (const [n, { count, items }] of heard.entries()) {
      await count(expected[n].length);
      assert.deepEqual(items, expected[n]);
    }
  });

  test('gets the answer of a client that is asked, by its instance', async (t) => {
    await server.client(t); // It listens only since somebody came.
    for (const service of [a, b]) {
      const socket = await as(t, service, fresh('user'));
      const asked = once(socket, 'question');
      answering(socket, 'question', { answer: 42 });
      const answer = server.run('call', { event: 'question', data: { n: 1 }, sid: socket.id, timeout: 10 });
      assert.deepEqual((await asked)[0], { n: 1 });
      assert.deepEqual(await answer, [{ answer: 42 }]);
    }
  });

  test('moves sockets of the service between rooms, and ends them', async (t) => {
    const { sockets } = await scene(t);
    const room = fresh('promo');
    const event = fresh('event');
    const heard = record(sockets.eve, event);
    await server.run('enter_room', { sid: sockets.eve.id, room });
    await server.run('emit', { event, data: 1, room });
    await heard.count(1);
    await server.run('leave_room', { sid: sockets.eve.id, room });
    await server.run('emit', { event, data: 2, room });
    await server.run('emit', { event, data: 3, room: sockets.eve.id });
    await heard.count(2);
    assert.deepEqual(heard.items, [1, 3]);
    const left = once(sockets.eve, 'disconnect');
    await server.run('disconnect', { sid: sockets.eve.id });
    await left;
    await settled(sockets.ada);
  });

  test('is not disturbed by what the service publishes', async (t) => {
    const { meeting, sockets } = await scene(t);
    const own = await server.client(t, meeting);
    const strayed = [];
    own.onAny((event) => strayed.push(event));
    await said(sockets.ada, meeting, 'hello');
    await accepted(ask(sockets.ada, 'typing', { meeting_id: meeting }));
    const heard = once(own, 'fence');
    await server.run('emit', { event: 'fence', room: meeting });
    await heard;
    assert.deepEqual(strayed, ['fence']);
    assert.doesNotMatch(server.log, /Traceback|Exception|Error/, server.log);
  });
});
