// Promise: what services publish on `meeting_updates` stands in logs and inboxes exactly once, however often, in
// whatever order and beside whatever rubbish it comes, and however many instances listen.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { accepted, as, history as pagesOf, member, range, refused, said, say } from '../support/chat.mjs';
import { Cluster, follow, scenario } from '../support/cluster.mjs';
import { Redis } from '../support/redis.mjs';
import { chance } from '../support/story/random.mjs';
import { ask, eventually, record, time } from '../support/wait.mjs';

const READY = '/api/v1/chat/ready';
const CHANNEL = 'meeting_updates';
/** For what shows with a heartbeat, or is tried again after a pause, in ms. */
const BEATS_MS = 30_000;
const UPDATES = 60;

/** Rubbish, and good things with one thing wrong. None of it may show anywhere. */
const RUBBISH = [
  '',
  'x',
  '{',
  'null',
  '[]',
  '"text"',
  '12',
  '{}',
  '{"type":"meeting.updated"}',
  Buffer.from([0xff, 0xfe, 0x00, 0x80]),
  Buffer.from('{"type":"meeting.updated","meeting_id":"meeting-0","id":"\xff"}', 'latin1'),
  `{"type":"meeting.updated","meeting_id":"meeting-0","data":${'['.repeat(10_000)}${']'.repeat(10_000)}}`,
  JSON.stringify({ type: 'rubbish', meeting_id: 'meeting-0', data: { text: 'x'.repeat(64 * 1024) } }),
  Buffer.alloc(3 * 1024 * 1024, '{'),
  JSON.stringify({ type: 'rubbish', meeting_id: { a: 1 } }),
  JSON.stringify({ type: 'rubbish', meeting_id: 'with space' }),
  JSON.stringify({ type: 'rubbish', meeting_id: 'x'.repeat(129) }),
  JSON.stringify({ type: 'Not A Type', meeting_id: 'meeting-0' }),
  JSON.stringify({ type: 7, meeting_id: 'meeting-0' }),
  JSON.stringify({ type: 'rubbish', id: 'x'.repeat(65), meeting_id: 'meeting-0' }),
  JSON.stringify({ type: 'rubbish', recipients: 'nobody\u0000' }),
];

test('updates doubled, reordered and among rubbish, with three instances listening', async (t) => {
  const dice = chance(Date.now() % 2 ** 32, 'updates');
  const users = ['m-00', 'm-07', 'm-29', 'offline'];
  const { history } = await scenario(t, { rate: 40 }, async ({ cluster, crowd, redis, history }) => {
    const updates = range(1, UPDATES).map((n) => ({
      v: 1,
      id: `update-${n}`,
      type: 'meeting.updated',
      meeting_id: `meeting-${n % 5}`,
      recipients: users,
      to: n % 3 === 0 ? 'room' : 'both',
      title: `Title ${n}`,
      data: { n },
    }));
    const counted = async () => {
      const all = await Promise.all(cluster.names.map((name) => cluster.service(name).metrics()));
      return all.map((metrics) => metrics.value('chat_redis_unreadable_total'));
    };
    const before = await counted();
    // Each up to three times, all in disorder.
    const wires = updates.flatMap((update) => Array.from({ length: dice.between(1, 3) }, () => JSON.stringify(update)));
    const fleeting = range(1, 10).map((n) => {
      // Not kept: nothing but the claim of its id says that it was there.
      return {
        id: `fleeting-${n}`,
        type: 'poll.opened',
        recipients: users,
        to: 'users',
        persist: false,
        title: 'Poll',
      };
    });
    const news = range(1, 5).map((n) => ({ id: `news-${n}`, type: 'service.news', broadcast: true, title: 'News' }));
    for (const update of [...fleeting, ...news]) wires.push(...Array(3).fill(JSON.stringify(update)));
    wires.push(...RUBBISH);
    for (let n = wires.length - 1; n > 0; n--) {
      const m = dice.between(0, n);
      [wires[n], wires[m]] = [wires[m], wires[n]];
    }
    for (const wire of wires) {
      await redis.command('PUBLISH', CHANNEL, wire);
      if (dice.happens(0.2)) await time(dice.between(1, 50));
    }
    // One without an id is known by its bytes, for 10 s.
    const nameless = JSON.stringify({ type: 'meeting.updated', meeting_id: 'meeting-0', data: { nameless: true } });
    for (let n = 0; n < 3; n++) await redis.command('PUBLISH', CHANNEL, nameless);

    const expected = updates.filter(({ to }) => to === 'both').map(({ id }) => id);
    const inboxOf = async (user) => {
      const socket = await as(t, cluster.service(dice.pick(cluster.names)), user);
      const { items } = await accepted(ask(socket, 'notifications_get', { limit: 100, after: 0 }));
      socket.disconnect();
      return items;
    };
    for (const user of users) {
      await eventually(async () => {
        const items = await inboxOf(user);
        assert.deepEqual(items.map(({ id }) => id).sort(), [...expected].sort(), `the inbox of ${user}`);
        items.reduce((before, { nseq }) => {
          assert.ok(nseq > before, `${nseq} follows ${before}`);
          return nseq;
        }, 0);
      });
    }
    const all = news.map(({ id }) => id);
    const some = [...expected, ...fleeting.map(({ id }) => id), ...all];
    for (const { name } of crowd.members) {
      const wanted = users.includes(name) ? some : all;
      await eventually(() => {
        const told = history.of('told', ({ client, event }) => client === name && event === 'notification');
        assert.deepEqual(told.map(({ payload }) => payload.id).sort(), [...wanted].sort(), `what ${name} was told`);
      });
    }
    const after = await counted();
    after.forEach((count, n) => assert.ok(count > before[n], `i-${n} has counted ${count - before[n]}`));
    await crowd.acked(30);
  });
  const logged = history.of('log').flatMap(({ meeting, items }) => {
    return items.filter(({ event }) => event === 'meeting_update').map((item) => ({ ...item, meeting }));
  });
  const ids = logged.filter(({ data }) => !data.nameless).map(({ event_id, meeting }) => `${meeting} ${event_id}`);
  assert.deepEqual(
    ids.sort(),
    range(1, UPDATES)
      .map((n) => `meeting-${n % 5} update-${n}`)
      .sort(),
  );
  assert.equal(logged.filter(({ data }) => data.nameless).length, 1);
});

test('updates of the stream, with an instance that is killed while it takes them', async (t) => {
  const { history } = await scenario(t, { rate: 40 }, async ({ cluster, crowd, redis }) => {
    const add = (n) => {
      const update = { id: `stream-${n}`, type: 'meeting.updated', meeting_id: `meeting-${n % 5}`, data: { n } };
      return redis.command('XADD', 'meeting_updates:stream', '*', 'data', JSON.stringify(update));
    };
    await redis.command('XADD', 'meeting_updates:stream', '*', 'data', 'rubbish');
    await redis.command('XADD', 'meeting_updates:stream', '*', 'other', '{}');
    const added = range(1, UPDATES).map(add);
    await added[0];
    // In the middle of what it has taken, as far as anybody can tell.
    await cluster.kill('i-1');
    await Promise.all(added);
    await cluster.launch('i-1');
    await eventually(async () => {
      const known = crowd.history.of('live', ({ event }) => event.event === 'meeting_update');
      const ids = new Set(known.map(({ event }) => event.event_id));
      assert.equal(ids.size, UPDATES, `${ids.size} updates have come`);
    }, 40_000);
  });
  const logged = history.of('log').flatMap(({ items }) => items.filter(({ event }) => event === 'meeting_update'));
  assert.deepEqual(
    logged.map(({ event_id }) => event_id).sort(),
    range(1, UPDATES)
      .map((n) => `stream-${n}`)
      .sort(),
  );
});

/** Two instances that ack what a replica has, and the link to it. */
async function withReplica(t) {
  const redis = await Redis.start();
  t.after(() => redis.remove());
  const { link } = await follow(t, redis);
  const cluster = await Cluster.start({ count: 2, redis, settings: { REDIS_MIN_REPLICAS: '1' } });
  t.after(() => cluster.stop());
  return { cluster, redis, link, services: cluster.names.map((name) => cluster.service(name)) };
}

// Side by side, as heartbeats are waited for.
describe('without the replica that an ack needs', { concurrency: true }, () => {
  test('what is published is done once, as soon as there is one', async (t) => {
    const { redis, link, services } = await withReplica(t);
    const [near, far] = services;
    const [ann, bob] = [await member(t, near, 'removed', 'ann'), await member(t, far, 'removed', 'bob')];
    const cleo = await member(t, far, 'cancelled', 'cleo');
    const dora = await as(t, near, 'dora');
    await said(ann, 'removed', 'before');
    const left = [ann, bob, cleo].map((socket) => record(socket, 'room_left'));
    const notices = [ann, bob, cleo, dora].map((socket) => record(socket, 'notification'));

    link.halt();
    const publish = (update) => redis.command('PUBLISH', CHANNEL, JSON.stringify(update));
    await publish({ id: 'u-1', type: 'participant.removed', meeting_id: 'removed', user_id: 'bob' });
    await publish({ id: 'u-2', type: 'meeting.cancelled', meeting_id: 'cancelled', recipients: ['dora', 'away'] });
    // By then it was tried.
    const late = () => say(ann, 'removed', 'late', { client_id: 'c-1' });
    for (let n = 0; n < 2; n++) await refused(late(), 'unavailable');

    link.release();
    await left[1].count(1, BEATS_MS);
    assert.deepEqual(left[1].items, [{ meeting_id: 'removed', reason: 'removed' }]);
    await refused(say(bob, 'removed', 'still here'), 'not_joined');
    await eventually(() => refused(say(cleo, 'cancelled', 'too late'), 'room_closed'), BEATS_MS);
    await eventually(() => accepted(late()), BEATS_MS);

    // Each is told once, whoever tried how often; then what comes last.
    const everybody = ['ann', 'bob', 'cleo', 'dora'];
    await publish({ id: 'last', type: 'last', to: 'users', recipients: everybody, persist: false });
    for (const { some } of notices) await some(({ id }) => id === 'last', BEATS_MS);
    const told = notices.map(({ items }) => items.map(({ id }) => id));
    assert.deepEqual(told, [['last'], ['u-1', 'last'], ['last'], ['u-2', 'last']]);
    assert.deepEqual(left.map(({ items }) => items.length), [0, 1, 0]); // prettier-ignore
    const { items } = await accepted(ask(await as(t, far, 'away'), 'notifications_get', {}));
    assert.deepEqual(items.map(({ id }) => id), ['u-2']); // prettier-ignore
    const logs = { removed: 'u-1', cancelled: 'u-2' };
    for (const [meeting, id] of Object.entries(logs)) {
      const logged = (await pagesOf(dora, meeting)).filter(({ event }) => event === 'meeting_update');
      assert.deepEqual(logged.map(({ event_id }) => event_id), [id]); // prettier-ignore
    }
  });

  test('who is notified of it is told once, at every instance, as soon as there is one', async (t) => {
    const { redis, link, services } = await withReplica(t);
    const devices = await Promise.all(services.map((service) => as(t, service, 'ann')));
    const told = devices.map((socket) => record(socket, 'notification'));
    link.halt();
    const publish = (update) => redis.command('PUBLISH', CHANNEL, JSON.stringify(update));
    await publish({ id: 'u-1', type: 'news', recipients: ['ann'] });
    // By then it was tried: at the instance that tries, its own sockets are told by nobody else.
    await eventually(async () => assert.equal(await redis.command('EXISTS', 'chat:{u:ann}:notes'), 1));
    await time(1500);
    link.release();
    await publish({ id: 'last', type: 'last', recipients: ['ann'], persist: false });
    for (const { some } of told) await some(({ id }) => id === 'last', BEATS_MS);
    assert.deepEqual(told.map(({ items }) => items.map(({ id }) => id)), [['u-1', 'last'], ['u-1', 'last']]); // prettier-ignore
  });

  test('/ready says so, until there is one', async (t) => {
    const { link, services } = await withReplica(t);
    const assertReady = (status, state) => {
      const isReady = async (service) => {
        const answer = await service.get(READY);
        assert.equal(answer.status, status, answer.text);
        assert.match(answer.json().checks.redis, state);
      };
      return Promise.all(services.map((service) => eventually(() => isReady(service), BEATS_MS)));
    };
    await assertReady(200, /^up$/);
    link.halt();
    await assertReady(503, /NOREPLICAS/);
    link.release();
    await assertReady(200, /^up$/);
  });
});
