// Promise: whatever becomes of an instance's connections to Redis, and of single messages on them, its clients get
// everything, once, in order; soon where something shows the loss, and within 45 s where nothing does.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { accepted, as, log, said, seqs } from '../support/chat.mjs';
import { Cluster, scenario } from '../support/cluster.mjs';
import { check } from '../support/history/check.mjs';
import { ALL, COMMANDS, SUBSCRIBERS } from '../support/proxy.mjs';
import { ask, eventually, time, within } from '../support/wait.mjs';

/** A hole that a later message shows is filled within so long: what a slow machine takes, and far less than until the
 * logs are compared. */
const REPAIR_MS = 4000;
/** A connection that says nothing any more is noticed within so long: before the logs are compared, after 30 s. */
const NOTICE_MS = 20_000;
/** A loss that nothing shows is noticed within so long, and what a slow machine takes. */
const TAIL_MS = 45_000;

const isOfMeeting = (channel) => /meeting-\d/.test(channel);

for (const kind of ['pubsub', 'normal']) {
  test(`CLIENT KILL TYPE ${kind}, again and again`, async (t) => {
    const { counts } = await scenario(t, { rate: 80 }, async ({ redis, crowd }) => {
      for (let n = 0; n < 4; n++) {
        await eventually(async () => assert.ok((await redis.clients(kind)).length >= 3, 'all are connected'));
        const killed = await redis.command('CLIENT', 'KILL', 'TYPE', kind, 'SKIPME', 'yes');
        assert.ok(killed >= 3, `${killed} connections were killed`);
        // The next one comes into the middle of what the first one has begun, and then not.
        await crowd.acked(n % 2 === 0 ? 2 : 100);
      }
    });
    assert.deepEqual([counts.epochs, counts.resyncs], [0, 0]);
  });
}

test('all connections are reset, of one instance after the other', async (t) => {
  const { counts } = await scenario(t, { rate: 80 }, async ({ cluster, crowd }) => {
    for (const proxy of [...cluster.proxies, ...cluster.proxies]) {
      proxy.cut(ALL);
      await crowd.acked(30);
    }
  });
  assert.deepEqual([counts.epochs, counts.resyncs], [0, 0]);
});

test('one pub/sub message is dropped, doubled, or changes places with the next: it is mended, and would be caught', async (t) => {
  const done = [];
  const { history } = await scenario(t, { rate: 80 }, async ({ cluster, crowd, history }) => {
    for (let n = 0; n < 4; n++) {
      for (const how of ['drop', 'duplicate', 'swap']) {
        const proxy = cluster.proxies[n % cluster.proxies.length];
        const { channel } = await proxy.tamper(how, isOfMeeting);
        done.push(`${how} ${channel} ${Math.round(performance.now() - history.start)}`);
        await crowd.acked(10);
      }
    }
    await crowd.acked(30);
  });
  assert.equal(done.length, 12);
  const [latest] = history.lateness();
  t.diagnostic(`the latest: ${JSON.stringify(latest)}; spoiled: ${done.join(', ')}`);
  assert.ok(latest.ms < REPAIR_MS, JSON.stringify(latest));

  // The same history, spoiled behind the service instead of in front of it.
  const at = history.records.findIndex(({ op, at: when }, n) => {
    const next = history.records.slice(n + 1).find(isOfSame(history.records[n]));
    return op === 'live' && when > 1000 && next?.op === 'live';
  });
  const { records } = history;
  const follower = records.findIndex((record, n) => n > at && isOfSame(records[at])(record));
  const spoiled = {
    missing: records.filter((_, n) => n !== at),
    twice: records.flatMap((record, n) => (n === at ? [record, record] : [record])),
    order: records.map((record, n) => (n === at ? records[follower] : n === follower ? records[at] : record)),
  };
  for (const [rule, others] of Object.entries(spoiled)) {
    const rules = check(others).faults.map((fault) => fault.rule);
    assert.ok(rules.includes(rule), `${rule} among ${rules.join(' ')}`);
  }
});

/** Whether a record is about what another's client and meeting were given. */
const isOfSame = (live) => (record) =>
  record.client === live.client && record.op === 'live' && record.event.meeting_id === live.event?.meeting_id;

test('a subscriber that Redis ends because it does not keep up', async (t) => {
  const { counts } = await scenario(t, { rate: 80 }, async ({ cluster, redis, crowd }) => {
    await redis.command('CONFIG', 'SET', 'client-output-buffer-limit', 'pubsub 1mb 512kb 2');
    const [proxy] = cluster.proxies;
    const before = (await redis.clients('pubsub')).length;
    assert.ok(proxy.halt(SUBSCRIBERS) > 0);
    // What nobody wants, until the kernel's own buffers are full as well.
    const junk = Buffer.alloc(64 * 1024, 'x');
    await eventually(async () => {
      for (let n = 0; n < 16; n++) await redis.command('PUBLISH', 'meeting_updates', junk);
      assert.ok((await redis.clients('pubsub')).length < before, 'nobody was ended');
    });
    proxy.release();
    await crowd.acked(100);
    await eventually(async () => assert.ok((await redis.clients('pubsub')).length >= before, 'nobody came back'));
    await crowd.acked(50);
  });
  assert.deepEqual([counts.epochs, counts.resyncs], [0, 0]);
});

describe('what takes its time', { concurrency: true }, () => {
  test('the connection for commands is half-open', async (t) => {
    await scenario(t, { rate: 40 }, async ({ cluster, crowd }) => {
      const stays = crowd.at('i-0').filter(({ isPatient }) => isPatient);
      assert.ok(cluster.proxies[0].halt(COMMANDS) > 0);
      // Never released: it must be given up, and the next one be used.
      await crowd.acked(20, { isMeant: (member) => stays.includes(member), ms: NOTICE_MS });
      await crowd.acked(40);
    });
  });

  test('the connection for subscriptions is half-open', async (t) => {
    await scenario(t, { rate: 40 }, async ({ cluster, crowd, history }) => {
      // Who appends knows of what it appends: nobody there says anything.
      crowd.isTalker = ({ at }) => at !== 'i-0';
      assert.ok(cluster.proxies[0].halt(SUBSCRIBERS) > 0);
      const halted = performance.now() - history.start;
      const member = crowd.at('i-0').find(({ isConnected }) => isConnected);
      const got = history.next(({ op, client, at }) => op === 'live' && client === member.name && at > halted + 200);
      const { at } = await within(got, `anything for ${member.name}`, NOTICE_MS);
      t.diagnostic(`noticed after ${Math.round(at - halted)} ms`);
      await crowd.acked(40);
    });
  });

  test('nothing is answered at all, not even to new connections, for 12 s', async (t) => {
    await scenario(t, { rate: 40 }, async ({ cluster, crowd }) => {
      const [proxy] = cluster.proxies;
      proxy.isSilent = true;
      proxy.halt(ALL);
      await Promise.all([time(12_000), crowd.acked(100, { isMeant: ({ at }) => at !== 'i-0' })]);
      // What was said into the silence comes late, on connections that may have been given up since.
      proxy.release();
      await crowd.acked(20, { isMeant: ({ at }) => at === 'i-0', ms: NOTICE_MS });
    });
  });

  test('a lost message that no other follows', async (t) => {
    const cluster = await Cluster.start({ count: 2 });
    t.after(() => cluster.stop());
    const meeting_id = 'm';
    const ann = await as(t, cluster.service('i-0'), 'ann');
    const bob = await as(t, cluster.service('i-1'), 'bob');
    for (const socket of [ann, bob]) await accepted(ask(socket, 'join_room', { meeting_id }));
    const heard = log(ann);
    await said(bob, meeting_id, 'one');
    await heard.count(1);
    const dropped = cluster.proxies[0].tamper('drop', (channel) => channel.includes(`#${meeting_id}#`));
    await said(bob, meeting_id, 'two');
    await dropped;
    const lost = performance.now();
    await heard.count(2, TAIL_MS);
    t.diagnostic(`noticed after ${Math.round(performance.now() - lost)} ms`);
    await said(bob, meeting_id, 'three');
    await heard.count(3);
    assert.deepEqual(seqs(heard.items), [1, 2, 3]);
  });
});
