// Promise: if Redis loses what it had, everybody is told by another epoch, nobody resumes wrongly, no seq is given
// twice within an epoch; and what was safe stays.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { accepted, as, member, range, said, say } from '../support/chat.mjs';
import { Cluster, follow, scenario } from '../support/cluster.mjs';
import { ALL } from '../support/proxy.mjs';
import { Redis } from '../support/redis.mjs';
import { ask, assertHas, eventually, record, time } from '../support/wait.mjs';

const MEETINGS = 5;
/** Until what is noted of who is where is there again: two heartbeats and what it takes, in ms. */
const NOTED_MS = 60_000;
/** Longer than `PUBLISH_WAIT`, in ms. */
const AWAY_MS = 7000;
/** What is told when Redis is back, and not when instances look at their logs each 30 s, in ms. */
const TOLD_MS = 15_000;

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

test('who is where is noted again, of however many, and nobody else is held up by it', async (t) => {
  const cluster = await Cluster.start({ count: 1 });
  t.after(() => cluster.stop());
  const { redis } = cluster;
  const { service } = cluster.instance('i-0');
  // More than calls may wait at a time. Not all in the same meetings: each would hear of each.
  const [users, meetings, each] = [240, 100, 20];
  const sockets = await Promise.all(range(1, users).map((n) => as(t, service, `user-${n}`)));
  for (const m of range(1, meetings)) {
    const joins = sockets.map((socket, n) => {
      return accepted(ask(socket, 'join_room', { meeting_id: `meeting-${m}-${Math.floor(n / each)}`, limit: 1 }));
    });
    await Promise.all(joins);
  }
  const assertNoted = async () => {
    const script = `local sum = 0
      for _, key in ipairs(redis.call('KEYS', 'chat:{m:*}:here')) do sum = sum + redis.call('HLEN', key) end
      return sum`;
    assert.equal(await redis.command('EVAL', script, '0'), users * meetings);
  };
  await eventually(assertNoted);
  await redis.command('FLUSHALL');
  const acks = [];
  await eventually(async () => {
    acks.push(await say(sockets[0], 'meeting-1-0', 'meanwhile'));
    await assertNoted();
  }, NOTED_MS);
  assert.deepEqual(acks.filter(({ ok }) => !ok), []); // prettier-ignore
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

/** A snapshot for the next start of Redis, as if it had been made before the instances began. */
async function saveOlderThanInstances(redis) {
  const [key, aside] = ['chat:{cluster}:instances', 'test:instances'];
  // In one go: no instance says in between that it is there.
  await Promise.all([redis.command('RENAME', key, aside), redis.command('SAVE'), redis.command('RENAME', aside, key)]);
}

/** Nothing goes through, by new connections neither, until the proxy is released. */
function shut(proxy) {
  proxy.isSilent = true;
  proxy.halt(ALL);
}

for (const state of ['empty', 'older']) {
  test(`Redis comes back ${state} after longer than messages wait for it: everybody is told soon`, async (t) => {
    const cluster = await Cluster.start({ count: 2 });
    t.after(() => cluster.stop());
    const { redis } = cluster;
    const [first, second] = cluster.instances;
    const members = [];
    for (const meeting_id of range(1, 8).map((n) => `meeting-${n}`)) {
      for (const { name, service } of [first, second]) {
        const socket = await member(t, service, meeting_id, `${meeting_id} at ${name}`);
        members.push({ socket, meeting_id, resyncs: record(socket, 'resync') });
      }
    }
    const send = ({ socket, meeting_id }, text) => said(socket, meeting_id, text, { client_id: text });
    const talk = (text) => Promise.all(members.map((one) => eventually(() => send(one, text))));
    await talk('kept');
    if (state === 'older') await redis.command('SAVE');
    await talk('lost');
    shut(second.proxy);
    await redis.kill();
    await time(AWAY_MS);
    await redis.start();
    if (state === 'older') {
      // One has looked at its logs, and waits for the other for up to 3 s: what it has found is to be told nevertheless.
      await eventually(async () => assert.equal(await redis.command('SCARD', 'chat:{cluster}:checked'), 1));
      await time(500);
    }
    second.proxy.release();
    const told = members.map(({ resyncs }) => resyncs.count(1, TOLD_MS));
    for (const [n, [resync]] of (await Promise.all(told)).entries()) {
      assertHas(resync, { meeting_id: members[n].meeting_id, reason: 'epoch_changed' });
    }
    await talk('after');
    for (const { socket, meeting_id, resyncs } of members) {
      const { epoch } = await accepted(ask(socket, 'get_history', { meeting_id }));
      await resyncs.some((resync) => resync.epoch === epoch);
    }
  });
}

test('Redis comes back older than its instances, before the one that knows most', async (t) => {
  const told = await scenario(t, { rate: 60 }, async ({ cluster, redis, crowd, history }) => {
    const knowing = cluster.instance('i-2');
    const others = [cluster.instance('i-0'), cluster.instance('i-1')];
    const atKnowing = { isMeant: ({ at }) => at === 'i-2' };
    // Nothing gets to the others, nor from them.
    for (const { proxy } of others) proxy.halt(ALL);
    await crowd.acked(10, atKnowing);
    history.note('safe');
    await saveOlderThanInstances(redis);
    await crowd.acked(40, atKnowing);
    history.note('loss');
    shut(knowing.proxy);
    await redis.kill();
    for (const { proxy } of others) proxy.cut(ALL);
    await redis.start();
    // What they say here, the other one must not have had under the same numbers.
    await crowd.acked(100, { isMeant: ({ at }) => at !== 'i-2' });
    knowing.proxy.release();
    await crowd.acked(100);
  });
  assertTold(told);
});

test('Redis comes back older than its instances, and nobody left knows of one of them', async (t) => {
  const cluster = await Cluster.start({ count: 3 });
  t.after(() => cluster.stop());
  const { redis } = cluster;
  const knowing = cluster.instance('i-2');
  const meeting_id = 'm';
  const ann = await member(t, knowing.service, meeting_id, 'ann');
  const resyncs = record(ann, 'resync');
  await said(ann, meeting_id, 'safe');
  await saveOlderThanInstances(redis);
  const lost = [];
  for (const n of range(2, 6)) lost.push(await said(ann, meeting_id, `lost ${n}`));
  shut(knowing.proxy);
  await Promise.all([redis.kill(), cluster.kill('i-0'), cluster.kill('i-1')]);
  await redis.start();
  await Promise.all([cluster.launch('i-0'), cluster.launch('i-1')]);
  const bob = await eventually(() => member(t, cluster.service('i-0'), meeting_id, 'bob'));
  const others = record(bob, 'resync');
  // As much as was lost: what it is cannot be told by the length of the log.
  for (const { seq } of lost) {
    const ack = await eventually(() => said(bob, meeting_id, `new ${seq}`, { client_id: `c-${seq}` }));
    assert.equal(ack.seq, seq);
  }
  assert.deepEqual(resyncs.items, []);
  knowing.proxy.release();
  const [{ epoch }] = await resyncs.count(1);
  assertHas(resyncs.items[0], { meeting_id, reason: 'epoch_changed' });
  assert.notEqual(epoch, lost[0].epoch);
  // Whoever is at another instance is told of it with the next message at the latest.
  await said(ann, meeting_id, 'at last');
  await others.some((resync) => resync.epoch === epoch);
  const answers = [ann, bob].map((socket) => accepted(ask(socket, 'get_history', { meeting_id, after_seq: 0 })));
  const pages = await Promise.all(answers);
  for (const page of pages) assertHas(page, { epoch, items: pages[0].items });
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
