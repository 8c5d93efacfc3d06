// Promise: while Redis is away or takes nothing, sockets stay, what needs it waits and then says so, the rest goes on;
// when it is back nothing that was acked is missing and nothing is there twice.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { accepted, as, fresh, history as pagesOf, member, range, say } from '../support/chat.mjs';
import { Cluster, scenario } from '../support/cluster.mjs';
import { RawLink } from '../support/history/link.mjs';
import { freePort } from '../support/server.mjs';
import { token } from '../support/token.mjs';
import { ask, assertHas, eventually, once, record, time, within } from '../support/wait.mjs';

const READY = '/api/v1/chat/ready';
/** `PUBLISH_WAIT`, and what may come on top. */
const WAIT_MS = 5000;
const SLACK_MS = 2500;

const ready = (service) => service.get(READY).then((answer) => [answer.status, answer.json()]);
const redisOf = (service) => service.health().then((answer) => [answer.status, answer.json().redis]);

/** An `unavailable` that says when to try again. */
function assertUnavailable({ ok, error }) {
  assert.deepEqual([ok, error?.code], [false, 'unavailable'], JSON.stringify(error));
  assert.ok(Number.isInteger(error.retry_after_ms) && error.retry_after_ms > 0, JSON.stringify(error));
}

/** Asks, and answers `{ answer, ms }`: how long it took. */
function timed(promise) {
  const asked = performance.now();
  const taken = promise.then((answer) => ({ answer, ms: performance.now() - asked }));
  // It is looked at later, or never if the test has failed before.
  taken.catch(() => {});
  return taken;
}

test('Redis is restarted, away for 1 s', async (t) => {
  const options = { redis: { aof: 'always' }, crowd: { settings: { isPatient: true } } };
  const { counts, history } = await scenario(t, options, async ({ redis, crowd }) => {
    await redis.stop();
    await time(1000);
    await redis.start();
    await crowd.acked(150);
  });
  assert.equal(history.of('gone').filter(({ reason }) => reason !== 'own').length, 0, 'sockets stay');
  assert.deepEqual([counts.epochs, counts.resyncs], [0, 0]);
  assert.equal(history.of('refused').length, 0, 'PUBLISH_WAIT is longer than that');
});

test('Redis is restarted, away for 10 s: what waits, what is refused and what goes on', async (t) => {
  const options = { redis: { aof: 'always' }, crowd: { settings: { isPatient: true } } };
  const { counts, history } = await scenario(t, options, async ({ redis, crowd, cluster }) => {
    const [near, far] = [cluster.service('i-0'), cluster.service('i-1')];
    const meeting_id = 'probe';
    const [ann, bob, cleo, dora] = await Promise.all([
      as(t, near, 'ann'),
      as(t, near, 'bob'),
      as(t, far, 'cleo'),
      as(t, near, 'dora'),
    ]);
    const cuts = [ann, bob, cleo].map((socket) => record(socket, 'disconnect'));
    for (const socket of [ann, bob, cleo, dora]) await accepted(ask(socket, 'join_room', { meeting_id }));
    const [atBob, atCleo] = [bob, cleo].map((socket) => record(socket, 'chat_message'));
    const seen = record(bob, 'presence_update');
    await accepted(say(ann, meeting_id, 'before', { client_id: 'before' }));
    await atCleo.count(1);
    assert.deepEqual(await redisOf(near), [200, 'up']);
    assert.equal((await ready(near))[0], 200);

    await redis.stop();
    const stopped = performance.now();
    const refused = timed(say(ann, meeting_id, 'while it is away', { client_id: 'away' }));
    // Typing and presence go on among those who are here.
    const typing = once(ann, 'typing', WAIT_MS - 500);
    await accepted(ask(bob, 'typing', { meeting_id }));
    assertHas((await typing)[0], { meeting_id, user_id: 'bob', active: true });
    const left = timed(ask(dora, 'leave_room', { meeting_id }));
    for (const service of [near, far]) {
      await eventually(async () => assert.deepEqual(await redisOf(service), [200, 'down']));
      await eventually(async () => {
        const [status, body] = await ready(service);
        assert.deepEqual([status, body.status], [503, 'degraded'], JSON.stringify(body));
      });
    }
    const { answer, ms } = await refused;
    assertUnavailable(answer);
    assert.ok(ms > WAIT_MS - 500 && ms < WAIT_MS + SLACK_MS, `refused after ${ms} ms`);
    await accepted((await left).answer);
    assert.ok((await left).ms < WAIT_MS - 500, `left after ${(await left).ms} ms`);
    await seen.some(({ event, user }) => event === 'leave' && user?.id === 'dora', 25_000);
    const { ids } = await accepted(ask(bob, 'get_presence', { meeting_id })).then(({ users }) => ({
      ids: users.map(({ id }) => id),
    }));
    assert.ok(ids.includes('ann') && ids.includes('bob') && !ids.includes('dora'), `there are ${ids.join(' ')}`);
    assert.equal(atBob.items.length, 1, 'nothing comes that no log holds');
    const away = performance.now() - stopped;
    await time(Math.max(0, 10_000 - away));

    await redis.start();
    for (const service of [near, far]) {
      await eventually(async () => {
        assert.equal((await ready(service))[0], 200);
        assert.deepEqual(await redisOf(service), [200, 'up']);
      }, 10_000);
    }
    await eventually(async () => {
      await accepted(say(ann, meeting_id, 'while it is away', { client_id: 'away' }));
    }, 10_000);
    for (const recorded of [atBob, atCleo]) {
      await recorded.count(2);
      assert.deepEqual(
        recorded.items.map(({ seq, client_id }) => `${seq} ${client_id}`),
        ['1 before', '2 away'],
      );
    }
    for (const { items } of cuts) assert.deepEqual(items, [], 'sockets stay');
    await crowd.acked(150);
  });
  assert.equal(history.of('gone').filter(({ reason }) => reason !== 'own').length, 0, 'sockets stay');
  assert.deepEqual([counts.epochs, counts.resyncs], [0, 0]);
  const codes = new Set(history.of('refused').map(({ code }) => code));
  assert.deepEqual([...codes], ['unavailable']);
  for (const { error } of history.of('refused')) assertUnavailable({ ok: false, error });
});

test('Redis is killed, with an AOF that is flushed before anybody is answered', async (t) => {
  const { counts } = await scenario(t, { redis: { aof: 'always' } }, async ({ redis, crowd }) => {
    for (let n = 0; n < 2; n++) {
      await redis.kill();
      await redis.start();
      await crowd.acked(100);
    }
  });
  assert.deepEqual([counts.epochs, counts.resyncs], [0, 0]);
});

test('Redis answers nobody for 3 s', async (t) => {
  const { counts, history } = await scenario(t, {}, async ({ redis, crowd }) => {
    await redis.command('CLIENT', 'PAUSE', '3000', 'ALL');
    await crowd.acked(150);
    await redis.command('CLIENT', 'PAUSE', '3000', 'WRITE');
    await crowd.acked(150);
  });
  assert.equal(counts.epochs, 0);
  assert.equal(history.of('refused').length, 0, 'PUBLISH_WAIT is longer than that');
});

test('Redis stands still for longer than anybody waits', async (t) => {
  const { counts } = await scenario(t, {}, async ({ redis, crowd }) => {
    redis.suspend();
    // What was sent on its way before has an unknown end: it is tried again, and must not be there twice.
    for (const error of await crowd.refused(20, 'unavailable')) assertUnavailable({ ok: false, error });
    await time(2000);
    redis.resume();
    await crowd.acked(200);
  });
  assert.ok(counts.duplicates > 0, 'something was done whose answer nobody got');
  assert.equal(counts.epochs, 0);
});

test('Redis has no memory left', async (t) => {
  const { counts } = await scenario(t, {}, async ({ redis, crowd, cluster }) => {
    await redis.command('CONFIG', 'SET', 'maxmemory', '1mb');
    for (const error of await crowd.refused(20, 'unavailable')) assertUnavailable({ ok: false, error });
    await eventually(async () => {
      const [, body] = await ready(cluster.service('i-0'));
      assert.match(JSON.stringify(body), /oom|memory/i, 'the check says why');
    });
    await redis.command('CONFIG', 'SET', 'maxmemory', '0');
    await crowd.acked(150);
    await eventually(async () => assert.equal((await ready(cluster.service('i-0')))[0], 200));
  });
  assert.equal(counts.epochs, 0);
});

test('Redis is made a replica, and the master again', async (t) => {
  const { counts } = await scenario(t, {}, async ({ redis, crowd, cluster }) => {
    // Of nobody: it keeps what it has.
    await redis.command('REPLICAOF', '127.0.0.1', String(await freePort()));
    for (const error of await crowd.refused(20, 'unavailable')) assertUnavailable({ ok: false, error });
    await eventually(async () => {
      const [status, body] = await ready(cluster.service('i-0'));
      assert.equal(status, 503);
      assert.match(JSON.stringify(body), /read.?only|replica/i, 'the check says why');
    });
    await redis.command('REPLICAOF', 'NO', 'ONE');
    await crowd.acked(150);
    await eventually(async () => assert.equal((await ready(cluster.service('i-0')))[0], 200));
  });
  assert.deepEqual([counts.epochs, counts.resyncs], [0, 0]);
});

test('an instance that starts while Redis is away waits for it', async (t) => {
  const cluster = await Cluster.start({ count: 2, redis: { aof: 'always' } });
  t.after(() => cluster.stop());
  const meeting_id = fresh();
  const ann = await member(t, cluster.service('i-0'), meeting_id, 'ann');
  await accepted(say(ann, meeting_id, 'before'));
  // In good order: of one that was killed nobody knows what it knew.
  assert.equal((await cluster.drain('i-1')).code, 0);
  await cluster.redis.stop();
  await cluster.launch('i-1');
  const service = cluster.service('i-1');
  assert.deepEqual(await redisOf(service), [200, 'down']);
  assert.equal((await ready(service))[0], 503);
  await cluster.redis.start();
  await eventually(async () => assert.equal((await ready(service))[0], 200));
  const bob = await as(t, service, 'bob');
  const { events } = await accepted(ask(bob, 'join_room', { meeting_id, limit: 10 }));
  assert.deepEqual(
    events.map(({ text }) => text),
    ['before'],
  );
  const heard = record(ann, 'chat_message');
  await accepted(say(bob, meeting_id, 'after'));
  await heard.some(({ text }) => text === 'after');
});

describe('pending messages', () => {
  const PENDING = 1000;

  // Each is of another socket: what one socket asks for is done in order.
  test('1000 wait at an instance, and the next are refused at once', async (t) => {
    // Longer than it takes to tell that some are refused, on whatever machine.
    const settings = { MAX_CONNECTIONS: '0', PUBLISH_WAIT: '12s' };
    const cluster = await Cluster.start({ count: 1, redis: { aof: 'always' }, settings });
    t.after(() => cluster.stop());
    const { url } = cluster.service('i-0');
    const meetings = range(0, 20).map((n) => `pending-${n}`);
    const links = range(0, PENDING + 49).map((n) => {
      const user = `user-${n % 50}`;
      const link = { user, meeting_id: meetings[n % meetings.length], client_id: `c-${n}` };
      link.ready = new Promise((resolve, reject) => {
        link.raw = new RawLink({
          url,
          token: token({ sub: user }),
          heard: (event) => event === 'ready' && resolve(),
          ended: (reason) => reject(new Error(reason)),
        });
      });
      t.after(() => link.raw.close());
      link.ask = (event, payload) =>
        within(new Promise((done) => link.raw.ask(event, payload, done)), `the ack of ${event}`);
      return link;
    });
    for (const { ready } of links) await ready;
    await Promise.all(links.map(({ ask: asks, meeting_id }) => accepted(asks('join_room', { meeting_id }))));

    await cluster.redis.stop();
    await eventually(async () => assert.deepEqual(await redisOf(cluster.service('i-0')), [200, 'down']));
    let answers = 0;
    const tries = links.map(({ ask: asks, meeting_id, client_id }) => {
      const message = { meeting_id, client_id, text: client_id };
      return timed(asks('chat_message', message).then((answer) => ({ ...answer, client_id, nth: ++answers })));
    });
    // Far less than what the others wait for.
    await eventually(() => assert.equal(answers, 50), 6000);
    await cluster.redis.start();
    const all = (await Promise.all(tries)).map(({ answer }) => answer);
    for (const answer of all) {
      if (answer.nth <= 50) assertUnavailable(answer);
      else await accepted(answer);
    }
    const reader = await as(t, cluster.service('i-0'), 'reader');
    const logged = (await Promise.all(meetings.map((meeting) => pagesOf(reader, meeting)))).flat();
    assert.deepEqual(
      logged.map(({ client_id }) => client_id).sort(),
      all
        .filter(({ ok }) => ok)
        .map(({ client_id }) => client_id)
        .sort(),
    );
  });

  test('each waits as long as it may, however many one socket has sent', async (t) => {
    const cluster = await Cluster.start({ count: 1, settings: { PUBLISH_WAIT: '1s' } });
    t.after(() => cluster.stop());
    const meeting_id = fresh();
    const ann = await member(t, cluster.service('i-0'), meeting_id, 'ann');
    await cluster.redis.stop();
    const tries = range(1, 5).map((n) => timed(say(ann, meeting_id, `${n}`)));
    for (const { answer, ms } of await Promise.all(tries)) {
      assertUnavailable(answer);
      assert.ok(ms < 1000 + SLACK_MS, `refused after ${ms} ms`);
    }
  });
});
