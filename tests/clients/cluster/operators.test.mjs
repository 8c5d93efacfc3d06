// Promise: whoever runs the service sees what is wrong with Redis: `/ready` and one line of the log say which it is,
// and metrics move when and as far as they should. Every kind of REDIS_URL works. While Redis is away, only what needs
// it is refused. A message costs Redis one script and one PUBLISH, and a lost connection a few SUBSCRIBE.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as path } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';

import { accepted, as, fresh, log, member, range, said, say, seqs, settled } from '../support/chat.mjs';
import { join } from '../support/clients.mjs';
import { Cluster } from '../support/cluster.mjs';
import { COMMANDS, Proxy, SUBSCRIBERS } from '../support/proxy.mjs';
import { Redis } from '../support/redis.mjs';
import { Rest, assertError, assertStatus, messages } from '../support/rest.mjs';
import { freePort, startService } from '../support/server.mjs';
import { WITH_USERS, token } from '../support/token.mjs';
import { ask, assertHas, eventually, once, record, time } from '../support/wait.mjs';

const READY = '/api/v1/chat/ready';
/** How long anything waits for Redis before it is refused or lost, and what may come on top. */
const WAIT_MS = 5000;
const SLACK_MS = 2500;
/** A silent connection is given up within so long: the pause before a PING, then the wait for its answer. */
const NOTICE_MS = 9000 + SLACK_MS;
/** A leave is held back for 10 s. */
const LEAVE_MS = 10_000 + SLACK_MS;
/** Nobody has a token: what is looked up for users is no part of what a message costs. */
const NOBODY = { AUTH_MODE: 'none', JWT_SECRET_KEY: '' };
/** More lines would mean one for each attempt: there are at least four in that time, by three connections. */
const ATTEMPTS_MS = 1000;

const ready = (service) => service.get(READY).then((answer) => [answer.status, answer.json().checks.redis]);
const isReady = (service, ms) => eventually(async () => assert.deepEqual(await ready(service), [200, 'up']), ms);

async function startCluster(t, options) {
  const cluster = await Cluster.start(options);
  t.after(() => cluster.stop());
  const services = cluster.names.map((name) => cluster.service(name));
  for (const service of services) await isReady(service);
  return { cluster, services, redis: cluster.redis };
}

async function startRedis(t, options) {
  const redis = await Redis.start(options);
  t.after(() => redis.remove());
  return redis;
}

/** An instance at that Redis, which may not be usable. */
async function serve(t, REDIS_URL, settings = {}) {
  const service = await startService({ ...WITH_USERS, ...settings, REDIS_URL });
  t.after(() => service.stop());
  return service;
}

/** The error of an answer or an ack that says when to try again. */
function assertRefused({ ok, error }, what) {
  assert.deepEqual([ok, error?.code], [false, 'unavailable'], `${what}: ${JSON.stringify(error)}`);
  assert.ok(Number.isInteger(error.retry_after_ms) && error.retry_after_ms > 0, `${what}: ${JSON.stringify(error)}`);
}

/** Numbers of one scrape, by the metrics' names without what they all begin with. */
async function numbers(service) {
  const metrics = await service.metrics();
  const gauges = ['up', 'channels', 'pending'];
  const counters = ['calls', 'batches', 'failed', 'reconnects', 'timeouts', 'messages', 'unpublished'];
  const names = [...gauges, ...counters.map((name) => `${name}_total`)];
  const all = names.map((name) => [name, metrics.value(`chat_redis_${name}`)]);
  return { ...Object.fromEntries(all), repairs_total: metrics.value('chat_log_repairs_total') };
}

const present = (socket, meeting_id) => accepted(ask(socket, 'get_presence', { meeting_id }));

/** By how much they have grown between two scrapes. */
const grown = (from, to) => Object.fromEntries(Object.keys(to).map((name) => [name, to[name] - from[name]]));

describe('what waits', { concurrency: true }, () => {
  // The last is how long it takes to be refused again. One that stands still is not known to be away at once.
  for (const [how, goAway, comeBack, refusedMs] of [
    ['stands still', (redis) => redis.suspend(), (redis) => redis.resume(), WAIT_MS + SLACK_MS],
    ['was killed', (redis) => redis.kill(), (redis) => redis.start(), SLACK_MS],
  ]) {
    test(`while Redis ${how}, joins and reading are refused, the rest goes on, and nobody is cut off`, async (t) => {
      const { redis, services } = await startCluster(t, { count: 2, redis: { aof: 'always' } });
      const [near, far] = services;
      const meeting_id = fresh();
      const ann = await member(t, near, meeting_id, 'ann');
      const bob = await member(t, near, meeting_id, 'bob');
      const eve = await member(t, near, meeting_id, 'eve');
      const cleo = await member(t, far, meeting_id, 'cleo');
      const dora = await as(t, near, 'dora');
      const cuts = [ann, bob, cleo, dora, eve].map((socket) => record(socket, 'disconnect'));
      const [atAnn, atCleo] = [ann, cleo].map((socket) => record(socket, 'presence_update'));
      await said(ann, meeting_id, 'before');
      const types = async () => {
        for (const active of [true, false]) {
          const heard = once(ann, 'typing', 2000);
          await accepted(ask(bob, 'typing', { meeting_id, active }));
          assertHas((await heard)[0], { meeting_id, user_id: 'bob', active });
        }
      };

      await goAway(redis);
      await accepted(ask(eve, 'leave_room', { meeting_id }));
      await types();
      for (const longest of [WAIT_MS + SLACK_MS, refusedMs]) {
        const begun = performance.now();
        const refusals = {
          'a join': ask(dora, 'join_room', { meeting_id }),
          'a resume': ask(bob, 'join_room', { meeting_id, since: { epoch: bob.joined.epoch, seq: bob.joined.seq } }),
          'a join where nobody is': ask(cleo, 'join_room', { meeting_id: fresh() }),
          reading: ask(ann, 'get_history', { meeting_id, limit: 10 }),
        };
        const overHttp = Rest.bearer(near, token({ sub: 'ann' })).get(messages(meeting_id));
        for (const [what, answer] of Object.entries(refusals)) assertRefused(await answer, what);
        const error = assertError(await overHttp, 503, 'unavailable');
        assertRefused({ ok: false, error }, 'reading over HTTP');
        const took = performance.now() - begun;
        assert.ok(took < longest, `refused after ${took} ms`);
      }
      await types();
      // Who comes now is let in, and waits with joining.
      await settled(await as(t, near, 'fay'));
      await atAnn.some(({ event, user }) => event === 'leave' && user?.id === 'eve', LEAVE_MS);
      const { users } = await present(bob, meeting_id);
      const there = users.map(({ id }) => id).filter((id) => id !== 'cleo');
      assert.deepEqual(there.sort(), ['ann', 'bob']);
      assert.deepEqual((await ready(near))[0], 503);

      await comeBack(redis);
      for (const service of services) await isReady(service);
      const { events } = await accepted(ask(dora, 'join_room', { meeting_id, limit: 10 }));
      assert.deepEqual(
        events.map(({ text }) => text),
        ['before'],
      );
      // What happened meanwhile is told where it could not be told.
      await atCleo.some(({ event, user }) => event === 'leave' && user?.id === 'eve');
      const heard = once(ann, 'chat_message');
      await eventually(() => said(cleo, meeting_id, 'after', { client_id: 'after' }));
      assert.equal((await heard)[0].text, 'after');
      for (const { items } of cuts) assert.deepEqual(items, [], 'sockets stay');
    });
  }

  // Where another instance is slow, it hears again before it may ask: what it cannot ask then, it has to ask later.
  for (const [how, isSlow] of [
    ['connections are back', false],
    ['Redis was restarted and another instance takes its time', true],
  ]) {
    describe(`when ${how}`, () => {
      const meeting_id = 'm';
      let cluster;
      let service;
      const sockets = {};
      const ends = {};
      before(async () => {
        cluster = await Cluster.start({ count: 2, redis: { aof: 'always' }, settings: { ROOM_POLICY: 'members' } });
        const other = cluster.service('i-1');
        service = cluster.service('i-0');
        for (const one of [service, other]) await isReady(one);
        const { redis } = cluster;
        const { proxy } = cluster.instance('i-0');
        await redis.command('SADD', `meeting:${meeting_id}:participants`, 'ann', 'bob', 'eve');
        for (const user of ['ann', 'bob', 'eve']) {
          sockets[user] = await member({ after: () => {} }, service, meeting_id, user, { jti: `of-${user}` });
          ends[user] = [record(sockets[user], 'room_left'), record(sockets[user], 'disconnect')];
        }
        proxy.isSilent = true;
        proxy.cut();
        await redis.command('SREM', `meeting:${meeting_id}:participants`, 'bob');
        await redis.command('SET', 'auth:revoked:of-eve', '1');
        // From then on nobody waits for Redis any more.
        await time(WAIT_MS + 500);
        if (isSlow) {
          other.signal('SIGSTOP');
          await redis.kill();
          await redis.start();
        }
        proxy.release();
        if (isSlow) {
          await eventually(async () => {
            assert.deepEqual(await ready(service), [503, 'down: waiting for the other instances']);
            assert.equal((await redis.clients('pubsub')).length, 1);
          });
          await time(200);
          other.signal('SIGCONT');
        }
        await isReady(service);
      });
      after(async () => {
        for (const socket of Object.values(sockets)) socket.disconnect();
        await cluster.stop();
      });

      test('who is ready takes messages', async () => {
        await said(sockets.ann, meeting_id, 'after');
      });

      test('who has lost a right meanwhile is put out', async () => {
        const [left] = ends.bob;
        await left.count(1, SLACK_MS);
        assert.deepEqual(left.items, [{ meeting_id, reason: 'forbidden' }]);
      });

      test('whose token was revoked meanwhile is put out', async () => {
        const [, cut] = ends.eve;
        await cut.count(1, SLACK_MS);
      });

      test('and nobody else is', () => {
        for (const { items } of ends.ann) assert.deepEqual(items, []);
      });
    });
  }

  test('metrics: a Redis that stands still costs timeouts, failed commands and new connections', async (t) => {
    const { redis, services } = await startCluster(t, { count: 1 });
    const [service] = services;
    const ann = await member(t, service, fresh(), 'ann');
    assertHas(await numbers(service), { up: 1, failed_total: 0, timeouts_total: 0, reconnects_total: 0 });
    redis.suspend();
    const waiting = say(ann, ann.joined.meeting_id, 'while it stands');
    await eventually(async () => assert.equal((await numbers(service)).pending, 1, 'the message waits'), WAIT_MS);
    assertRefused(await waiting, 'a message');
    await eventually(async () => {
      const { up, pending, failed_total, timeouts_total } = await numbers(service);
      // The connections for commands and for messages are both silent.
      assert.deepEqual([up, pending], [0, 0]);
      assert.ok(failed_total >= 1 && timeouts_total >= 2, `${failed_total} failed, ${timeouts_total} timeouts`);
    }, NOTICE_MS);
    assert.equal((await numbers(service)).reconnects_total, 0, 'there is nothing to connect to');
    redis.resume();
    await isReady(service);
    const { up, reconnects_total } = await numbers(service);
    assert.equal(up, 1);
    assert.ok(reconnects_total >= 2, `${reconnects_total} reconnects`);
  });

  test('metrics: what cannot be told to other instances within 5 s is counted, and not before', async (t) => {
    const { cluster, redis, services } = await startCluster(t, { count: 2, redis: { aof: 'always' } });
    const [near, far] = services;
    const meeting_id = fresh();
    const ann = await member(t, near, meeting_id, 'ann');
    const cleo = await member(t, far, meeting_id, 'cleo');
    const [atAnn, atCleo] = [ann, cleo].map((socket) => record(socket, 'poll.moved'));
    const publish = async (n) => {
      const event = { meeting_id, event: 'poll.moved', data: { n }, persist: false };
      const { delivered_local } = assertStatus(await Rest.sibling(near).post('/publish', event), 202).json();
      assert.equal(delivered_local, 1);
    };
    const lost = async () => (await numbers(near)).unpublished_total;
    await publish(1);
    await atCleo.count(1);

    // Out of reach for less than that: it waits, and comes.
    const { proxy } = cluster.instance('i-0');
    proxy.isSilent = true;
    proxy.cut();
    await publish(2);
    await time(1000);
    proxy.release();
    await atCleo.count(2);
    await isReady(near);
    // What is told to the others after a reconnect is over: on its way, it would be lost as well.
    await time(1500);
    assert.equal(await lost(), 0);

    await redis.kill();
    const killed = performance.now();
    // What was sent on its way before that is noticed has an unknown end.
    await eventually(async () => assert.deepEqual(await ready(near), [503, 'down: connecting']));
    await publish(3);
    await publish(4);
    await time(WAIT_MS / 2);
    assert.equal(await lost(), 0, 'they wait');
    await eventually(async () => assert.equal(await lost(), 2), WAIT_MS / 2 + SLACK_MS);
    assert.ok(performance.now() - killed > WAIT_MS - 500, 'not before');
    // From now on there is nothing to wait for.
    await publish(5);
    await eventually(async () => assert.equal(await lost(), 3), 1000);
    await redis.start();
    for (const service of services) await isReady(service);
    await publish(6);
    for (const { some } of [atAnn, atCleo]) await some(({ n }) => n === 6);
    assert.deepEqual(
      atCleo.items.map(({ n }) => n),
      [1, 2, 6],
      'what is counted is what is lost',
    );
    assert.deepEqual(
      atAnn.items.map(({ n }) => n),
      range(1, 6),
      'here nothing is lost',
    );
    assert.deepEqual([await lost(), (await numbers(far)).unpublished_total], [3, 0]);
  });
});

describe('metrics', () => {
  let scene;
  before(async () => {
    const cluster = await Cluster.start({ count: 2, settings: { MAX_CONNECTIONS: '0' } });
    scene = { cluster, redis: cluster.redis, services: cluster.names.map((name) => cluster.service(name)) };
    for (const service of scene.services) await isReady(service);
  });
  after(() => scene.cluster.stop());
  const both = () => Promise.all(scene.services.map(numbers));
  /** The same when nothing comes any more of what was brought about. */
  const quiet = () =>
    eventually(async () => {
      const before = await both();
      await time(100);
      const now = await both();
      for (const [n, { messages_total }] of now.entries()) assert.equal(messages_total, before[n].messages_total);
      return now;
    });

  test('tell of commands, messages and channels, and of nothing that has not happened', async (t) => {
    const [near, far] = scene.services;
    const begin = await both();
    const meeting_id = fresh();
    const ann = await member(t, near, meeting_id, 'ann');
    const cleo = await member(t, far, meeting_id, 'cleo');
    const heard = log(cleo);
    for (const socket of [ann, cleo]) {
      await eventually(async () => assert.equal((await present(socket, meeting_id)).count, 2));
    }
    const joined = await quiet();
    for (const [n, { channels }] of joined.entries()) assert.equal(channels - begin[n].channels, 1, `i-${n}`);
    for (const n of range(1, 50)) await said(ann, meeting_id, `${n}`);
    await heard.count(50);
    const done = await quiet();
    const [here, there] = done.map((now, n) => grown(joined[n], now));
    // Each hears its own as well.
    assert.deepEqual([here.messages_total, there.messages_total], [50, 50]);
    assert.ok(here.calls_total >= 50, JSON.stringify(here));
    assert.ok(there.calls_total < 25, `who only listens asks for nothing: ${JSON.stringify(there)}`);
    for (const all of done) {
      const { up, pending, failed_total, reconnects_total, timeouts_total, unpublished_total, repairs_total } = all;
      assert.deepEqual([up, pending], [1, 0]);
      const faults = [failed_total, reconnects_total, timeouts_total, unpublished_total, repairs_total];
      assert.deepEqual(faults, [0, 0, 0, 0, 0], JSON.stringify(all));
      assert.ok(all.batches_total > 0 && all.batches_total <= all.calls_total, JSON.stringify(all));
    }
  });

  test('tell that commands which waited together were written together', async (t) => {
    const [near] = scene.services;
    const sockets = await Promise.all(range(1, 60).map(() => member(t, near, fresh())));
    const { proxy } = scene.cluster.instance('i-0');
    // Without a connection they wait, and then they are all there at once.
    proxy.isSilent = true;
    proxy.cut();
    const before = await numbers(near);
    const acks = sockets.map((socket) => said(socket, socket.joined.meeting_id, 'x'));
    await eventually(async () => assert.equal((await numbers(near)).pending, 60));
    proxy.release();
    await Promise.all(acks);
    await isReady(near);
    const { calls_total, batches_total, pending } = grown(before, await numbers(near));
    assert.ok(calls_total >= 60 && batches_total <= calls_total - 55, `${calls_total} in ${batches_total} batches`);
    assert.equal(pending, 0, 'none waits any more');
  });

  test('tell of each lost connection, at the instance that has lost it', async () => {
    const { proxy } = scene.cluster.instance('i-0');
    for (const service of scene.services) await isReady(service);
    const before = await both();
    for (const times of [1, 2, 3]) {
      proxy.cut(SUBSCRIBERS);
      await eventually(async () => {
        const [here, there] = (await both()).map((now, n) => grown(before[n], now));
        assert.deepEqual([here.reconnects_total, there.reconnects_total], [times, 0]);
      });
      await isReady(scene.services[0]);
    }
    const commands = proxy.connections(COMMANDS).length;
    proxy.cut(COMMANDS);
    await eventually(async () => {
      const [here, there] = (await both()).map((now, n) => grown(before[n], now));
      assert.deepEqual([here.reconnects_total, there.reconnects_total], [3 + commands, 0]);
      assert.deepEqual([here.timeouts_total, here.failed_total], [0, 0], 'nothing was late');
    });
  });

  test('tell of one repair for one lost message, at the instance that had not got it', async (t) => {
    const [near, far] = scene.services;
    const meeting_id = fresh();
    const ann = await member(t, near, meeting_id, 'ann');
    const cleo = await member(t, far, meeting_id, 'cleo');
    const heard = log(cleo);
    await said(ann, meeting_id, '1');
    await heard.count(1);
    const before = await both();
    const dropped = scene.cluster.instance('i-1').proxy.tamper('drop', (channel) => channel.includes(meeting_id));
    await said(ann, meeting_id, '2');
    await dropped;
    const repairs = async () => (await both()).map((now, n) => grown(before[n], now).repairs_total);
    assert.deepEqual(await repairs(), [0, 0], 'nothing shows it yet');
    await said(ann, meeting_id, '3');
    await heard.count(3);
    assert.deepEqual(seqs(heard.items), [1, 2, 3]);
    assert.deepEqual(await repairs(), [0, 1]);
  });
});

describe('a Redis that cannot be used', { concurrency: true }, () => {
  const SECRET = 'pass-of-redis';
  /** Each gives `{ url, mend }`: where the service is to go, and what makes it usable. */
  const cases = [
    [
      'because it loads its data',
      /\bLOADING\b/,
      async (t) => {
        // It sleeps at each key, and answers in between, as it does with a large file.
        const slow = { 'key-load-delay': 100_000, 'loading-process-events-interval-bytes': 1024 };
        const redis = await startRedis(t, { config: { ...slow, rdbcompression: 'no' } });
        const values = range(1, 100).flatMap((n) => [`filler-${n}`, 'x'.repeat(4096)]);
        await redis.command('MSET', ...values);
        await redis.command('SAVE');
        await redis.kill();
        const loaded = redis.start();
        loaded.catch(() => {});
        await eventually(() => assert.rejects(redis.command('PING'), /LOADING/));
        const mend = async () => {
          await redis.command('CONFIG', 'SET', 'key-load-delay', '0');
          await loaded;
        };
        return { url: redis.url, mend };
      },
    ],
    [
      'because it wants a password',
      /\bNOAUTH\b/,
      async (t) => {
        const redis = await startRedis(t);
        await redis.command('CONFIG', 'SET', 'requirepass', SECRET);
        return { url: redis.url, mend: () => redis.command('CONFIG', 'SET', 'requirepass', '') };
      },
    ],
    [
      'because it wants another password',
      /\bWRONGPASS\b/,
      async (t) => {
        const redis = await startRedis(t);
        await redis.command('CONFIG', 'SET', 'requirepass', 'another');
        const mend = () => redis.command('CONFIG', 'SET', 'requirepass', SECRET);
        return { url: `redis://:${SECRET}@127.0.0.1:${redis.port}`, mend };
      },
    ],
    [
      'because it does not know the user',
      /\bWRONGPASS\b/,
      async (t) => {
        const redis = await startRedis(t);
        const mend = () => redis.command('ACL', 'SETUSER', 'chat', 'on', `>${SECRET}`, '~*', '&*', '+@all');
        return { url: `redis://chat:${SECRET}@127.0.0.1:${redis.port}`, mend };
      },
    ],
    [
      'because it is older than 6.2',
      /\b6\.0\.16\b.*\b6\.2\b/,
      async (t) => {
        const redis = await startRedis(t);
        const proxy = await Proxy.start(redis.port);
        t.after(() => proxy.stop());
        let version = '6.0.16';
        proxy.spoil = (_, value, bytes) => [Buffer.isBuffer(value) ? ofVersion(version, value) : bytes];
        // The oldest that is new enough.
        return { url: proxy.url, mend: () => (version = '6.2.0') };
      },
    ],
    [
      'because it is a replica',
      /\bREADONLY\b/,
      async (t) => {
        const redis = await startRedis(t, { replicaOf: await freePort() });
        return { url: redis.url, mend: () => redis.command('REPLICAOF', 'NO', 'ONE') };
      },
    ],
    [
      'because the user may not write',
      /\bNOPERM\b/,
      async (t) => {
        const redis = await startRedis(t);
        await redis.command('ACL', 'SETUSER', 'chat', 'on', `>${SECRET}`, 'allchannels', '+@all');
        const mend = () => redis.command('ACL', 'SETUSER', 'chat', '~*');
        return { url: `redis://chat:${SECRET}@127.0.0.1:${redis.port}`, mend };
      },
    ],
    [
      'because the user may not listen',
      /\bNOPERM\b/,
      async (t) => {
        const redis = await startRedis(t);
        await redis.command('ACL', 'SETUSER', 'chat', 'on', `>${SECRET}`, 'allchannels', '~*', '+@all', '-psubscribe');
        const mend = () => redis.command('ACL', 'SETUSER', 'chat', '+psubscribe');
        return { url: `redis://chat:${SECRET}@127.0.0.1:${redis.port}`, mend };
      },
    ],
  ];
  for (const [why, says, prepare] of cases) {
    test(`${why}: /ready says so, the log in one line, and it is used as soon as it can be`, async (t) => {
      const { url, mend } = await prepare(t);
      const service = await serve(t, url);
      await eventually(async () => {
        const [status, redis] = await ready(service);
        assert.equal(status, 503);
        assert.match(redis, /^down: /);
        assert.match(redis, says);
      });
      await time(ATTEMPTS_MS);
      const lines = service.log.split('\n').filter(Boolean);
      // It may be said again when the connection for commands comes up between two tries to listen.
      assert.equal(new Set(lines.map((line) => line.slice(line.indexOf(' ')))).size, 1, service.log);
      assert.ok(lines.length <= 2, service.log);
      assert.match(lines[0], says);
      assert.ok(lines[0].includes('Redis') && !lines[0].includes(SECRET), lines[0]);
      assert.match((await ready(service))[1], says, 'it stays said');
      assert.deepEqual(await service.health().then((answer) => [answer.status, answer.json().redis]), [200, 'down']);
      assert.equal((await numbers(service)).up, 0);
      await mend();
      await isReady(service);
      assert.equal((await numbers(service)).up, 1);
      const ann = await member(t, service, fresh());
      assert.equal((await said(ann, ann.joined.meeting_id, 'x')).seq, 1);
    });
  }
});

/** A bulk string as it was, but that a server says there that it has that version. */
function ofVersion(version, value) {
  const text = value.toString('latin1').replace(/^(redis_version:).*$/m, `$1${version}\r`);
  return Buffer.from(`$${text.length}\r\n${text}\r\n`, 'latin1');
}

describe('a URL', { concurrency: true }, () => {
  let dir;
  let pki;
  before(async () => {
    dir = mkdtempSync(path(tmpdir(), 'chat-tls-'));
    pki = await makeCertificates(dir);
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  /** A member at each instance, who hears what the others say. */
  async function talk(t, services) {
    const meeting_id = fresh();
    const sockets = [];
    for (const service of services) {
      await isReady(service);
      sockets.push(await member(t, service, meeting_id));
    }
    const heard = sockets.map(log);
    for (const [n, socket] of sockets.entries()) await said(socket, meeting_id, `${n}`);
    for (const { count, items } of heard) {
      await count(sockets.length);
      assert.deepEqual(seqs(items), range(1, sockets.length));
    }
    return meeting_id;
  }

  const startTls = async (t) => {
    const tls = { 'tls-port': await freePort(), 'tls-auth-clients': 'no' };
    const files = { 'tls-cert-file': pki.server, 'tls-key-file': pki.serverKey, 'tls-ca-cert-file': pki.ca };
    return { redis: await startRedis(t, { config: { ...tls, ...files } }), port: tls['tls-port'] };
  };

  test('rediss:// with TLS_CA: instances chat over TLS, on all their connections', async (t) => {
    const { redis, port } = await startTls(t);
    const settings = { TLS_CA: readFileSync(pki.ca, 'utf8') };
    const url = `rediss://127.0.0.1:${port}`;
    await talk(t, await Promise.all([serve(t, url, settings), serve(t, url, settings)]));
    for (const kind of ['normal', 'pubsub']) {
      const ports = (await redis.clients(kind)).map(({ laddr }) => laddr);
      assert.ok(ports.length >= 2, `${ports.length} connections of kind ${kind}`);
      assert.deepEqual([...new Set(ports)], [`127.0.0.1:${port}`], kind);
    }
  });

  for (const [why, host, says, authority] of [
    ['that no known authority signed', '127.0.0.1', /TLS.*UnknownIssuer/, undefined],
    ['that another authority signed', '127.0.0.1', /TLS.*certificate/, 'other'],
    ['for another name', 'localhost', /TLS.*not valid for name/, 'ca'],
  ]) {
    test(`rediss:// and a certificate ${why}: it is not used, and both /ready and the log say why`, async (t) => {
      const { redis, port } = await startTls(t);
      const settings = authority && { TLS_CA: readFileSync(pki[authority], 'utf8') };
      const service = await serve(t, `rediss://${host}:${port}`, settings);
      await eventually(async () => {
        const [status, reason] = await ready(service);
        assert.equal(status, 503);
        assert.match(reason, says);
      });
      await time(ATTEMPTS_MS);
      const lines = service.log.split('\n').filter(Boolean);
      assert.equal(lines.length, 1, service.log);
      assert.match(lines[0], says);
      assert.equal((await ready(service))[0], 503);
      assert.deepEqual([await redis.clients('normal'), await redis.clients('pubsub')], [[], []]);
    });
  }

  const PASSWORD = 'p@ss/w:rd %&?';
  const encoded = encodeURIComponent(PASSWORD);
  const startWithSocket = (t) => {
    const unixsocket = path(dir, `${fresh('redis')}.sock`);
    return startRedis(t, { config: { unixsocket } });
  };
  const socketOf = (redis) => redis.settings.unixsocket;
  for (const [what, urlOf, expected] of [
    [
      'with a user, a password and a database',
      ({ port }) => `redis://chat:${encoded}@127.0.0.1:${port}/5`,
      { user: 'chat', db: '5', socket: false },
    ],
    [
      'with a password',
      ({ port }) => `redis://:${encoded}@127.0.0.1:${port}`,
      { user: 'default', db: '0', socket: false },
    ],
    ['of a socket', (redis) => `unix://${socketOf(redis)}`, { user: 'default', db: '0', socket: true }],
    [
      'of a socket, with a user, a password and a database',
      (redis) => `redis+unix://${socketOf(redis)}?db=7&user=chat&pass=${encoded}`,
      { user: 'chat', db: '7', socket: true },
    ],
  ]) {
    test(`${what}: instances chat, as that user and in that database`, async (t) => {
      const redis = await startWithSocket(t);
      const url = urlOf(redis);
      await redis.command('ACL', 'SETUSER', 'chat', 'on', `>${PASSWORD}`, '~*', '&*', '+@all');
      // Who needs no password is let in with any.
      if (url.includes(encoded)) await redis.command('CONFIG', 'SET', 'requirepass', PASSWORD);
      const services = await Promise.all([serve(t, url), serve(t, url)]);
      await talk(t, services);
      for (const kind of ['normal', 'pubsub']) {
        const clients = await redis.clients(kind);
        assert.ok(clients.length >= 2, `${clients.length} connections of kind ${kind}`);
        for (const { user, db, laddr } of clients) {
          assert.deepEqual({ user, db, socket: laddr.startsWith(socketOf(redis)) }, expected);
        }
      }
      assert.deepEqual(Object.keys(await redis.info('keyspace')), [`db${expected.db}`], 'nothing is written elsewhere');
      for (const service of services) assert.equal(service.log, '');
    });
  }

  // In the README's own words of what the service needs, and no more.
  test('with a user who may do what the README asks for: instances chat', async (t) => {
    const redis = await startRedis(t);
    const rules = ['~chat:*', '~meeting*', '~auth:revoked:*', 'allchannels', '+@all', '-@dangerous', '+info'];
    await redis.command('ACL', 'SETUSER', 'chat', 'on', `>${PASSWORD}`, ...rules);
    const url = `redis://chat:${encoded}@127.0.0.1:${redis.port}`;
    await talk(t, await Promise.all([serve(t, url), serve(t, url)]));
  });
});

/** An authority, another one, and a server's certificate for 127.0.0.1 by the first; paths of PEM files in `dir`. */
async function makeCertificates(dir) {
  const run = (...args) => promisify(execFile)('openssl', args, { cwd: dir });
  writeFileSync(
    path(dir, 'openssl.cnf'),
    [
      '[req]\nprompt = no\ndistinguished_name = name',
      '[name]\nCN = chat test',
      '[ca]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign',
      '[server]\nbasicConstraints = CA:FALSE\nsubjectAltName = IP:127.0.0.1\nextendedKeyUsage = serverAuth',
    ].join('\n'),
  );
  const key = ['-config', 'openssl.cnf', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  for (const name of ['ca', 'other']) {
    const files = ['-keyout', `${name}.key`, '-out', `${name}.pem`];
    await run('req', '-x509', ...key, '-extensions', 'ca', '-days', '2', ...files);
  }
  await run('req', ...key, '-keyout', 'server.key', '-out', 'server.csr');
  const by = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2'];
  const extensions = ['-extfile', 'openssl.cnf', '-extensions', 'server'];
  await run('x509', '-req', '-in', 'server.csr', ...by, ...extensions, '-out', 'server.pem');
  const file = (name) => path(dir, name);
  return { ca: file('ca.pem'), other: file('other.pem'), server: file('server.pem'), serverKey: file('server.key') };
}

/** How often Redis has done a command, in scripts or not. */
const calls = (stats, command) => Number(/calls=(\d+)/.exec(stats[`cmdstat_${command}`] ?? 'calls=0')[1]);

/** Everything that a Redis is asked from now on, as `MONITOR` writes it: one line for each command. */
async function monitor(t, redis) {
  const client = await redis.connect();
  t.after(() => client.close());
  await client.command('MONITOR');
  const lines = [];
  client.take = (line) => lines.push(line);
  return lines;
}

test('200 messages to a member on each of two instances: 200 EVALSHA, 200 PUBLISH, and nothing else', async (t) => {
  const MESSAGES = 200;
  const { services, redis } = await startCluster(t, { count: 2, settings: NOBODY });
  const meeting_id = fresh();
  const sockets = [];
  for (const service of services) {
    const socket = await join(t, service.url);
    await accepted(ask(socket, 'join_room', { meeting_id }));
    sockets.push(socket);
  }
  const heard = sockets.map((socket) => log(socket));
  // From here on the script is known, and all know of all.
  for (const socket of sockets) await said(socket, meeting_id, 'before');
  for (const { count } of heard) await count(2);
  for (const socket of sockets) {
    await eventually(async () => assert.equal((await present(socket, meeting_id)).count, 2));
  }

  const lines = await monitor(t, redis);
  const before = await redis.info('commandstats');
  for (const n of range(1, MESSAGES)) await said(sockets[n % 2], meeting_id, `${n}`, { client_id: `c-${n}` });
  for (const { count } of heard) await count(2 + MESSAGES);
  const stats = await redis.info('commandstats');
  const isMark = (line) => /\] "INFO" "commandstats"$/.test(line);
  await eventually(() => assert.equal(lines.filter(isMark).length, 2));
  const [first, last] = [lines.findIndex(isMark), lines.findLastIndex(isMark)];
  const asked = lines.slice(first + 1, last).filter((line) => !/^\S+ \[\d+ lua\]/.test(line));

  const ofMeeting = asked.filter((line) => line.includes(meeting_id));
  const kinds = new Set(ofMeeting.map((line) => /\] ("EVALSHA" "\w+"|"\w+")/.exec(line)[1]));
  assert.match([...kinds].join(), /^"EVALSHA" "\w+"$/, 'one script');
  assert.equal(ofMeeting.length, MESSAGES);
  // Heartbeats, and the reading of the stream of updates, which go on whether anybody talks or not.
  const others = asked.filter((line) => !line.includes(meeting_id));
  const grown = (command) => calls(stats, command) - calls(before, command);
  assert.equal(grown('evalsha'), MESSAGES + others.filter((line) => /\] "EVALSHA"/.test(line)).length);
  assert.equal(grown('eval'), others.filter((line) => /\] "EVAL"/.test(line)).length);
  assert.equal(grown('publish'), MESSAGES);
  assert.ok(others.length < MESSAGES / 4, `what goes on anyway:\n${others.join('\n')}`);
});

test('after a lost connection 2 000 rooms are listened to again by at most 10 SUBSCRIBE', async (t) => {
  const [SOCKETS, ROOMS, SAMPLE] = [20, 2000, 20];
  const settings = { ...NOBODY, MAX_ROOMS_PER_SOCKET: '100' };
  const { services, redis } = await startCluster(t, { count: 2, settings });
  const [near, far] = services;
  const meetings = range(0, ROOMS - 1).map((n) => fresh(`room-${n}`));
  const sockets = await Promise.all(range(1, SOCKETS).map(() => join(t, near.url)));
  const ownerOf = (n) => sockets[n % SOCKETS];
  await Promise.all(meetings.map((meeting_id, n) => accepted(ask(ownerOf(n), 'join_room', { meeting_id }))));
  const talker = await join(t, far.url);
  const sample = range(0, SAMPLE - 1).map((n) => Math.floor((n * ROOMS) / SAMPLE) + (n % SOCKETS));
  for (const n of sample) await accepted(ask(talker, 'join_room', { meeting_id: meetings[n] }));
  assert.equal((await numbers(near)).channels, ROOMS);
  const channels = async () => (await redis.command('PUBSUB', 'CHANNELS', '*')).sort();
  const listened = await channels();
  assert.ok(listened.length > ROOMS, `${listened.length} channels`);
  const begin = await numbers(near);
  const before = calls(await redis.info('commandstats'), 'subscribe');

  assert.equal(await redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub'), services.length);
  await eventually(async () => {
    for (const [n, service] of services.entries()) assert.equal((await numbers(service)).up, 1, `i-${n}`);
    assert.deepEqual(await channels(), listened);
    assert.equal((await numbers(near)).reconnects_total, begin.reconnects_total + 1);
  });
  const subscribes = calls(await redis.info('commandstats'), 'subscribe') - before;
  t.diagnostic(`${subscribes} SUBSCRIBE`);
  assert.ok(subscribes > 0 && subscribes <= 10, `${subscribes} SUBSCRIBE`);

  const heard = sockets.map((socket) => record(socket, 'chat_message'));
  const back = await numbers(near);
  for (const n of sample) await said(talker, meetings[n], `${n}`);
  for (const n of sample) {
    await heard[n % SOCKETS].some(({ meeting_id, text }) => meeting_id === meetings[n] && text === `${n}`);
  }
  await eventually(async () => {
    const { messages_total } = grown(back, await numbers(near));
    assert.equal(messages_total, SAMPLE, 'by the channels, and not by looking into the log');
  });
});
