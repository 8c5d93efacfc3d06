// Promise: if Redis loses what it had, everybody is told by another epoch, nobody resumes wrongly, no seq is given
// twice within an epoch; and what was safe stays.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { accepted, as, say } from '../support/chat.mjs';
import { Cluster, scenario } from '../support/cluster.mjs';
import { ALL, Proxy } from '../support/proxy.mjs';
import { Redis } from '../support/redis.mjs';
import { ask, eventually } from '../support/wait.mjs';

const MEETINGS = 5;

/** Everybody who was there was told, and each meeting has had another epoch. */
function assertTold({ counts }, epochs = MEETINGS) {
  assert.ok(counts.epochs >= epochs, `${counts.epochs} new epochs`);
  assert.ok(counts.resyncs + counts.notResumed.epoch >= 30, JSON.stringify(counts));
}

test('FLUSHALL under load', async (t) => {
  const told = await scenario(t, { rate: 80 }, async ({ cluster, redis, crowd, history }) => {
    history.note('loss');
    await redis.command('FLUSHALL');
    await crowd.acked(100);
    await eventually(async () => {
      const all = await Promise.all(cluster.names.map((name) => cluster.service(name).metrics()));
      assert.ok(all.every((metrics) => metrics.value('chat_resyncs_total') > 0), 'every instance has counted it');
    });
    // Scripts are lost with SCRIPT FLUSH only: both.
    await redis.command('SCRIPT', 'FLUSH');
    await crowd.acked(100);
  });
  assertTold(told);
});

test('a Redis that keeps nothing is restarted', async (t) => {
  const told = await scenario(t, { rate: 80 }, async ({ redis, crowd, history }) => {
    history.note('loss');
    await redis.kill();
    await redis.start();
    await crowd.acked(150);
  });
  assertTold(told);
});

// A kill loses what is not flushed only if the disk is slow: here the end of the file is cut off, as a power cut does.
test('the last second before a power cut is lost', async (t) => {
  const told = await scenario(t, { rate: 80, redis: { aof: 'always' } }, async ({ redis, crowd, history }) => {
    history.note('safe');
    const cut = redis.markAof();
    await crowd.acked(80);
    history.note('loss');
    await redis.kill();
    cut();
    await redis.start();
    await crowd.acked(150);
  });
  assertTold(told);
});

test('the last second is lost, and with it the only instance that knew of it', async (t) => {
  const told = await scenario(t, { rate: 60, redis: { aof: 'always' } }, async (stage) => {
    const { cluster, redis, crowd, history } = stage;
    // Nothing gets to the others, nor from them.
    const others = [cluster.instance('i-0'), cluster.instance('i-2')];
    for (const { proxy } of others) proxy.halt(ALL);
    await crowd.acked(10, { isMeant: ({ at }) => at === 'i-1' });
    history.note('safe');
    const cut = redis.markAof();
    await crowd.acked(40, { isMeant: ({ at }) => at === 'i-1' });
    history.note('loss');
    await Promise.all([redis.kill(), cluster.kill('i-1')]);
    cut();
    for (const { proxy } of others) proxy.cut(ALL);
    await redis.start();
    // Those who were at the killed instance have seen what nobody else knows of: it must not be given to others.
    await crowd.acked(150);
  });
  assertTold(told);
});

test('Redis is killed, with an AOF that is flushed every second: nothing is lost, or it is told', async (t) => {
  await scenario(t, { rate: 80, redis: { aof: 'everysec' } }, async ({ redis, crowd, history }) => {
    history.note('loss');
    for (let n = 0; n < 2; n++) {
      await redis.kill();
      await redis.start();
      await crowd.acked(100);
    }
  });
});

/** A replica of the cluster's Redis, and the link between them. */
async function follow(t, redis) {
  const link = await Proxy.start(redis.port, { isRaw: true });
  t.after(() => link.stop());
  const replica = await Redis.start({ replicaOf: link.port });
  t.after(() => replica.remove());
  await eventually(async () => assert.ok(await replica.isSynced()));
  return { link, replica };
}

/** The master is gone, and its replica is the master from now on, under the same address. */
async function failOver(cluster, redis, replica) {
  await redis.kill();
  await replica.command('REPLICAOF', 'NO', 'ONE');
  for (const proxy of cluster.proxies) proxy.switchTo(replica.port);
}

test('failover to a replica that lags', async (t) => {
  const told = await scenario(t, { rate: 80 }, async ({ cluster, redis, crowd, history }) => {
    const { link, replica } = await follow(t, redis);
    await crowd.acked(50);
    history.note('safe');
    await redis.command('SET', 'test:marker', '1');
    assert.equal(await redis.command('WAIT', '1', '5000'), 1);
    link.halt();
    await crowd.acked(100);
    history.note('loss');
    await failOver(cluster, redis, replica);
    await crowd.acked(150);
  });
  assertTold(told);
});

test('failover to a replica that lags, with REDIS_MIN_REPLICAS=1: nothing that was acked is lost', async (t) => {
  const redis = await Redis.start();
  t.after(() => redis.remove());
  const { link, replica } = await follow(t, redis);
  // The replica of the later master.
  const second = await Redis.start({ replicaOf: replica.port });
  t.after(() => second.remove());
  await eventually(async () => assert.ok(await second.isSynced()));
  const settings = { REDIS_MIN_REPLICAS: '1' };
  const { history } = await scenario(t, { rate: 80, redis, settings }, async ({ cluster, crowd, history }) => {
    link.halt();
    // What was on its way may still be acked, nothing else.
    const before = history.of('acked').length;
    for (const { retry_after_ms } of await crowd.refused(60, 'unavailable')) assert.ok(retry_after_ms > 0);
    const more = history.of('acked').length - before;
    assert.ok(more <= 80, `${more} acks without a replica`);
    // Members were given what was not acked: that is taken back, and they are told.
    history.note('loss');
    await failOver(cluster, redis, replica);
    await crowd.acked(150);
    // Whatever was acked is there at the end.
    history.note('safe');
  });
  assert.ok(history.of('acked').length > 200);
});

test('what is not replicated is not acked to a repeat of it either, at whatever instance', async (t) => {
  const redis = await Redis.start();
  t.after(() => redis.remove());
  const { link, replica } = await follow(t, redis);
  const cluster = await Cluster.start({ count: 2, redis, settings: { REDIS_MIN_REPLICAS: '1' } });
  t.after(() => cluster.stop());
  const meeting_id = 'm';
  const [here, there] = await Promise.all(cluster.names.map((name) => as(t, cluster.service(name), 'ann')));
  for (const socket of [here, there]) await accepted(ask(socket, 'join_room', { meeting_id }));
  await accepted(say(here, meeting_id, 'first', { client_id: 'c-1' }));
  await eventually(async () => assert.ok(await replica.isSynced()));
  link.halt();
  // At the other instance nothing was written since: its own last write is replicated.
  for (const socket of [here, there, here]) {
    const { ok, error } = await say(socket, meeting_id, 'second', { client_id: 'c-2' });
    assert.deepEqual([ok, error?.code], [false, 'unavailable'], JSON.stringify(error));
  }
  link.release();
  await eventually(async () => {
    const ack = await accepted(say(there, meeting_id, 'second', { client_id: 'c-2' }));
    assert.deepEqual([ack.seq, ack.duplicate], [2, true]);
  });
});
