// Promise: nothing that anybody publishes on any channel ends an instance, disturbs a client or gets into the log of the
// service; it is counted, and the service goes on.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { as } from '../support/chat.mjs';
import { scenario } from '../support/cluster.mjs';
import { emitted, pack } from '../support/msgpack.mjs';
import { eventually, record } from '../support/wait.mjs';

/** Not to be found in any log. */
const MARK = 'rubbish-that-nobody-may-see';

const PACKET = { type: 2, data: [MARK, 1], nsp: '/' };
const OPTS = { rooms: ['meeting-0'], except: [], flags: {} };

const deep = (depth) => Buffer.concat([Buffer.alloc(depth, 0x91), Buffer.from([0xc0])]);

/** What no format allows. */
const GARBAGE = [
  '',
  MARK,
  `{"${MARK}":`,
  `{"type":${'9'.repeat(400)}}`,
  '['.repeat(50_000),
  `{"a":${'['.repeat(20_000)}${']'.repeat(20_000)}}`,
  Buffer.alloc(1, 0x93),
  Buffer.alloc(100, 0xff),
  Buffer.alloc(2 * 1024 * 1024, 0x81),
  Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff]),
  Buffer.from([0xdf, 0xff, 0xff, 0xff, 0xff]),
  Buffer.from([0xdb, 0xff, 0xff, 0xff, 0xff, 0x61]),
  Buffer.from([0xc6, 0xff, 0xff, 0xff, 0xff, 0x00]),
  Buffer.from([0xc1]),
  deep(100_000),
  // Pickle, as python-socketio published it up to 5.13.
  Buffer.from('8004952a000000000000007d948c066d6574686f64948c04656d697494732e', 'hex'),
];

/** Readable MessagePack that is no message of the adapter's. */
const MISFITS = [
  pack(null),
  pack(MARK),
  pack([]),
  pack([MARK]),
  pack(['x', PACKET]),
  pack(['x', PACKET, null]),
  pack(['x', null, OPTS]),
  pack(['x', [2, '/', [MARK]], OPTS]),
  pack(['x', { ...PACKET, type: 5 }, OPTS]),
  pack(['x', { ...PACKET, type: 'two' }, OPTS]),
  pack(['x', { ...PACKET, data: [] }, OPTS]),
  pack(['x', { ...PACKET, data: MARK }, OPTS]),
  pack(['x', { ...PACKET, data: [{ event: MARK }] }, OPTS]),
  pack(['x', PACKET, { ...OPTS, rooms: 'meeting-0' }]),
  pack(['x', PACKET, { ...OPTS, rooms: [[], {}, null] }]),
  Buffer.concat([pack(['x', PACKET, OPTS]), Buffer.from([0])]),
  pack(['x', PACKET, OPTS]).subarray(0, -3),
  Buffer.from(JSON.stringify(['x', PACKET, OPTS])),
];

/** Metadata of instances' own messages, as nobody of them writes it. */
const forged = (meta) => pack(['forged', { ...PACKET, nsp: '/other' }, OPTS, meta]);
const EVENT = JSON.stringify({ id: MARK, seq: 1, epoch: MARK, meeting_id: 'meeting-0', text: MARK });
const FORGED = [
  forged({ s: 'one', e: MARK, k: 0, j: EVENT }),
  forged({ s: 1.5, e: MARK, k: 0, j: EVENT }),
  forged({ s: 1, e: 7, k: 0, j: EVENT }),
  forged({ s: 1, e: MARK, k: 99, j: EVENT }),
  forged({ s: 1, e: MARK, k: 0, j: 7 }),
  forged({ s: 1, e: MARK, k: 0, j: Buffer.from([0xff]) }),
  forged({ c: 7 }),
  forged({ c: MARK }),
  forged({ c: '{' }),
  forged([1, 2, 3]),
  forged(MARK),
];

const PYTHON = [
  '{}',
  '[]',
  '{"method":7}',
  '{"method":"emit"}',
  `{"method":"${MARK}"}`,
  `{"method":"emit","event":7,"data":[1],"namespace":"/","room":"meeting-0"}`,
  `{"method":"emit","event":"${MARK}","data":[[{"_placeholder":true,"num":9}]],"binary":true,"namespace":"/","room":"meeting-0"}`,
  `{"method":"emit","event":"${MARK}","data":[[1],"!!!"],"binary":true,"namespace":"/","room":"meeting-0"}`,
  `{"method":"emit","event":"${MARK}","data":[1],"namespace":"/","room":{"a":1}}`,
  `{"method":"callback","host_id":7,"sid":null,"id":"x","args":0}`,
  `{"method":"enter_room","sid":7,"room":null}`,
  `{"method":"disconnect"}`,
];

const REQUESTS = [
  '{}',
  '{"type":99}',
  '{"type":"2"}',
  '{"type":2}',
  '{"type":2,"opts":7,"rooms":{}}',
  '{"type":3,"opts":{"rooms":["meeting-0"],"except":null},"rooms":7}',
  '{"type":4}',
  '{"type":4,"opts":null,"close":true}',
  '{"type":4,"opts":{"rooms":7},"close":true}',
  '{"type":5}',
  '{"type":5,"requestId":7}',
  '{"type":6,"uid":"x"}',
  '{"type":7,"uid":"x","requestId":"r"}',
  pack({ type: 7, uid: 'x', requestId: 'r', packet: null, opts: null }),
  pack({ type: 7, uid: 'x' }),
];

const EVENTS = [
  '{}',
  '{"type":"revoke"}',
  '{"type":"revoke","user_id":{}}',
  '{"type":7,"user_id":"m-00"}',
  '[]',
  'null',
];

test('rubbish on every channel is counted, and nothing else happens', async (t) => {
  const { counts, history } = await scenario(t, { rate: 40 }, async ({ cluster, crowd, redis }) => {
    const counted = async () => {
      const all = await Promise.all(cluster.names.map((name) => cluster.service(name).metrics()));
      return all.map((metrics) => [
        metrics.value('chat_redis_unreadable_total'),
        metrics.value('chat_redis_pickles_total'),
      ]);
    };
    const ann = await as(t, cluster.service('i-0'), 'ann');
    const seen = record(ann, 'hello');
    const before = await counted();
    const adapter = [...GARBAGE, ...MISFITS, ...FORGED];
    const instance = ann.ready.instance;
    const channels = {
      'socket.io#/#': adapter,
      'socket.io#/#meeting-0#': adapter,
      'socket.io#/#meeting-1#': adapter,
      'socket.io#/#user:m-00#': adapter,
      'socket.io#/#user:#': adapter,
      [`socket.io#/#user:${'x'.repeat(20_000)}#`]: adapter,
      'socket.io#/#user:é\u0000 ##': adapter,
      'socket.io#/#user:no-end': adapter,
      [`socket.io#/#${instance}#`]: adapter,
      [`socket.io#/#${instance}no-such-socket#`]: adapter,
      'socket.io-request#/#': [...GARBAGE, ...REQUESTS],
      'socket.io-response#/#': [...GARBAGE, ...REQUESTS],
      [`socket.io-response#/#${instance}#`]: [...GARBAGE, ...REQUESTS],
      'chat:peers': adapter,
      socketio: [...GARBAGE, ...PYTHON],
      'flask-socketio': [...GARBAGE, ...PYTHON],
      meeting_updates: GARBAGE,
      auth_events: [...GARBAGE, ...EVENTS],
    };
    // Whoever has subscribed to something else of ours gets it as well.
    for (const name of await redis.command('PUBSUB', 'CHANNELS', '*')) channels[name] ??= adapter;
    for (const [channel, payloads] of Object.entries(channels)) {
      for (const payload of payloads) await redis.command('PUBLISH', channel, payload);
      // Whoever reads that goes on reading.
      await redis.command('PUBLISH', 'socket.io#/#', emitted([], 'hello', channel));
      await seen.some((from) => from === channel);
      for (const name of cluster.names)
        assert.equal(cluster.service(name).ended, undefined, `${name} after ${channel}`);
    }
    await crowd.acked(60);
    for (const [n, [unreadable, pickles]] of (await counted()).entries()) {
      assert.ok(unreadable - before[n][0] > 100, `i-${n} counted ${unreadable - before[n][0]}`);
      assert.ok(pickles - before[n][1] >= 2, `i-${n} counted ${pickles - before[n][1]} pickles`);
    }
    for (const name of cluster.names) {
      const { log } = cluster.service(name);
      assert.ok(!log.includes(MARK), `${name} logs contents: ${log}`);
      assert.ok(log.split('\n').length < 40, `${name} logs every one: ${log}`);
    }
  });
  assert.deepEqual([counts.epochs, counts.resyncs], [0, 0]);
  assert.deepEqual(
    history.of('gone', ({ reason }) => reason !== 'own'),
    [],
    'nobody was put out',
  );
  assert.ok(!JSON.stringify(history.records).includes(MARK), 'nobody was given any of it');
});

/** Publishes events of meeting-0 that no log holds, as another instance would, and goes on talking. */
async function forge({ crowd, redis }, positions) {
  for (const [seq, epoch] of positions) {
    const json = JSON.stringify({ ...JSON.parse(EVENT), seq, epoch });
    await redis.command('PUBLISH', 'socket.io#/#meeting-0#', forged({ s: seq, e: epoch, k: 0, j: json }));
    await crowd.acked(10);
  }
}

const epochOf = (history) => history.of('live', ({ event }) => event.meeting_id === 'meeting-0').at(-1).event.epoch;

/** Nobody waits for what will never come. */
const assertNobodyWaits = ({ history }) =>
  eventually(() => {
    const [latest] = history.lateness(({ at }) => at > performance.now() - history.start - 2000);
    assert.ok(latest.ms < 1500, JSON.stringify(latest));
  });

test('what claims to be of another instance, and is behind the log or of another life, shows nowhere', async (t) => {
  const { counts, history } = await scenario(t, { rate: 60 }, async (stage) => {
    const known = epochOf(stage.history);
    await forge(stage, [
      [0, known],
      [1, known],
      [1, 'otherepoch00'],
      [50, 'otherepoch00'],
      [Number.MAX_SAFE_INTEGER, 'otherepoch00'],
      [1, ''],
      [1, 'x'.repeat(1000)],
    ]);
    await assertNobodyWaits(stage);
  });
  assert.deepEqual([counts.epochs, counts.resyncs], [0, 0]);
  assert.ok(!JSON.stringify(history.records).includes(MARK), 'nobody was given any of it');
});

// What is ahead of the log looks like the end of a log that went back: instances cannot tell.
test('what claims to be ahead of the log costs an epoch, and nothing that was acked', async (t) => {
  const { counts, history } = await scenario(t, { rate: 60 }, async (stage) => {
    const { history } = stage;
    history.note('loss', { meetings: ['meeting-0'] });
    for (const seq of [100_000, Number.MAX_SAFE_INTEGER]) await forge(stage, [[seq, epochOf(history)]]);
    await assertNobodyWaits(stage);
    history.note('safe');
  });
  assert.ok(counts.epochs <= 2, `${counts.epochs} new epochs`);
  assert.equal(counts.resyncs, 6 * counts.epochs, 'everybody in the meeting was told');
  assert.ok(!JSON.stringify(history.records).includes(MARK), 'nobody was given any of it');
});
