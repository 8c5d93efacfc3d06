// Promise: instances come and go, by crash, stop and deploy, and clients go on elsewhere with nothing missing.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { describe, test } from 'node:test';

import { accepted, as, log } from '../support/chat.mjs';
import { Cluster, scenario } from '../support/cluster.mjs';
import { ask, eventually, record, time } from '../support/wait.mjs';

const STOP_MS = Number(process.env.FAULT_STOP_MS ?? 20_000);
/** A client that has moved has what the others had before, within so long. */
const GAP_MS = 3000;
/** The users of an instance that crashed are gone within so long, and what a slow machine takes to tell. */
const GONE_MS = 45_000 + 3000;

const NOT_RESUMED = { epoch: 0, window: 0, too_many: 0 };

test('one instance after another is killed, and started again', async (t) => {
  const { counts, history } = await scenario(t, { rate: 80 }, async ({ cluster, crowd }) => {
    for (const name of ['i-1', 'i-2', 'i-0']) {
      const here = crowd.at(name);
      assert.ok(here.length > 0, `somebody is at ${name}`);
      // All of this is on its way when it is killed.
      for (const member of here) for (let n = 0; n < 5; n++) crowd.say(member);
      await cluster.kill(name);
      await crowd.acked(120);
      await cluster.launch(name);
      // Nobody goes back by himself: those who are driven out next go there too.
    }
    await crowd.acked(120);
  });
  assert.deepEqual(counts.notResumed, NOT_RESUMED);
  assert.ok(counts.resumed >= 30, `${counts.resumed} joins have recovered`);
  assert.ok(counts.retried > 0, 'something was on its way when an instance was killed');
  assert.equal(history.of('told').length, 0);
});

test('every instance is drained in turn, under load, and nobody notices a gap', async (t) => {
  const settings = { DRAIN_SPREAD: '2s', DRAIN_TIMEOUT: '10s' };
  const { counts, history } = await scenario(t, { rate: 80, settings }, async ({ cluster, crowd }) => {
    for (const name of ['i-0', 'i-1', 'i-2']) {
      const here = crowd.at(name).map((member) => member.name);
      assert.ok(here.length > 0, `somebody is at ${name}`);
      const told = here.map((client) => toldToGo(crowd, client));
      assert.deepEqual(await cluster.drain(name), { code: 0, signal: null }, name);
      const after = (await Promise.all(told)).map(({ payload }) => payload.reconnect_after_ms);
      assert.ok(new Set(after).size > here.length / 2, `all are to go at once: ${after.join(' ')}`);
      await cluster.launch(name);
      await crowd.acked(60);
    }
  });
  assert.deepEqual(counts.notResumed, NOT_RESUMED);
  assert.ok(counts.resumed >= 30, `${counts.resumed} joins have recovered`);
  const [latest] = history.lateness();
  t.diagnostic(`the latest: ${JSON.stringify(latest)}`);
  assert.ok(latest.ms < GAP_MS, JSON.stringify(latest));
});

/** The `server_draining` that the client is told next. */
const toldToGo = ({ history }, client) =>
  history.next((entry) => entry.op === 'told' && entry.client === client && entry.event === 'server_draining');

describe('what takes its time', { concurrency: true }, () => {
  test(`an instance that stands still for ${STOP_MS} ms and goes on`, async (t) => {
    const { counts } = await scenario(t, { rate: 40 }, async ({ cluster, crowd }) => {
      const instance = cluster.instance('i-1');
      const stays = crowd.at('i-1').filter(({ isPatient }) => isPatient);
      assert.ok(stays.length > 0, 'somebody stays');
      instance.isOpen = false;
      instance.service.signal('SIGSTOP');
      const over = time(STOP_MS);
      // The others are not held up.
      await crowd.acked(STOP_MS / 1000, { isMeant: ({ at }) => at !== 'i-1', ms: STOP_MS });
      await over;
      instance.service.signal('SIGCONT');
      instance.isOpen = true;
      await crowd.acked(20, { isMeant: (member) => stays.includes(member) });
      assert.deepEqual(
        stays.filter(({ at, isConnected }) => at !== 'i-1' || !isConnected),
        [],
        'who was patient is still there',
      );
      await crowd.acked(40);
    });
    assert.equal(counts.notResumed.epoch + counts.notResumed.window, 0);
  });

  test('who was at an instance that was killed is gone within 45 s, unless they are back', async (t) => {
    const cluster = await Cluster.start({ count: 2 });
    t.after(() => cluster.stop());
    const meeting_id = 'm';
    const [ann, bob, cleo] = await Promise.all([
      as(t, cluster.service('i-0'), 'ann'),
      as(t, cluster.service('i-1'), 'bob'),
      as(t, cluster.service('i-1'), 'cleo'),
    ]);
    const seen = record(ann, 'presence_update');
    for (const socket of [ann, bob, cleo]) await accepted(ask(socket, 'join_room', { meeting_id }));
    const there = async () => {
      const { count, users } = await accepted(ask(ann, 'get_presence', { meeting_id }));
      return [count, ...users.map(({ id }) => id).sort()];
    };
    await eventually(async () => assert.deepEqual(await there(), [3, 'ann', 'bob', 'cleo']));
    await seen.some(({ event, user }) => event === 'join' && user.id === 'cleo');
    await cluster.kill('i-1');
    const killed = performance.now();
    const back = await as(t, cluster.service('i-0'), 'cleo');
    await accepted(ask(back, 'join_room', { meeting_id }));
    await seen.some(({ event, user }) => event === 'leave' && user?.id === 'bob', GONE_MS);
    t.diagnostic(`gone after ${Math.round(performance.now() - killed)} ms`);
    assert.deepEqual(await there(), [2, 'ann', 'cleo']);
    const ofCleo = seen.items.filter(({ user }) => user?.id === 'cleo').map(({ event }) => event);
    assert.deepEqual(ofCleo, ['join'], 'who came back has never left');
  });

  test('instances whose clocks are an hour off, to either side', async (t) => {
    const HOUR_S = 3600;
    const now = Math.floor(Date.now() / 1000);
    const claims = { iat: now - 2 * HOUR_S, exp: now + 6 * HOUR_S };
    const settings = (n) => ({
      ...(n > 0 && faked(n === 1 ? '+1h' : '-1h')),
      REMINDERS: '3s,0m',
      ROOM_CLOSE_AFTER: '6s',
    });
    const { history } = await scenario(t, { rate: 40, settings, crowd: { claims } }, async ({ cluster, crowd }) => {
      const users = [];
      for (const name of cluster.names) {
        const socket = await as(t, cluster.service(name), `user-${name}`, claims);
        socket.heard = log(socket);
        socket.seen = record(socket, 'presence_update');
        socket.told = record(socket, 'notification');
        await accepted(ask(socket, 'join_room', { meeting_id: 'clock' }));
        users.push(socket);
      }
      const off = cluster.names.map((name) => /clock here is (-?\d+) ms off/.exec(cluster.service(name).log)?.[1] ?? 0);
      assert.deepEqual(
        off.map((ms) => Math.round(ms / 1000 / HOUR_S)),
        [0, 1, -1],
        'the instances have noticed',
      );
      for (const { ready } of users) assert.ok(Math.abs(ready.server_time - Date.now()) < 60_000, 'server_time');

      // The same message by the same user at every instance, one after the other.
      const twin = [];
      for (const name of cluster.names) {
        const socket = await as(t, cluster.service(name), 'twin', claims);
        await accepted(ask(socket, 'join_room', { meeting_id: 'clock' }));
        twin.push(await accepted(ask(socket, 'chat_message', { meeting_id: 'clock', text: 'x', client_id: 'c-1' })));
        socket.disconnect();
      }
      assert.deepEqual(
        twin.map(({ id, seq, ts, duplicate }) => ({ id, seq, ts, duplicate })),
        [false, true, true].map((duplicate) => ({ ...pick(twin[0], 'id', 'seq', 'ts'), duplicate })),
      );

      // Reminders come when they are due, once; the meeting closes when it is to, everywhere.
      const starts_at = Date.now() + 6000;
      const recipients = users.map((_, n) => `user-i-${n}`);
      const created = { id: 'created', type: 'meeting.created', meeting_id: 'clock', recipients, starts_at };
      await cluster.redis.command('PUBLISH', 'meeting_updates', JSON.stringify(created));
      for (const { told } of users) await told.some(({ kind }) => kind === 'meeting.created');
      for (const { told } of users) {
        await told.some(({ kind, data }) => kind === 'meeting.reminder' && data.offset === '0m', 20_000);
        const late = Date.now() - starts_at;
        assert.ok(late > -1500 && late < 3000, `the last reminder came ${late} ms after its time`);
        const reminders = told.items.filter(({ kind }) => kind === 'meeting.reminder').map(({ data }) => data.offset);
        assert.deepEqual(reminders, ['3s', '0m']);
      }
      const ended = { id: 'ended', type: 'meeting.ended', meeting_id: 'clock' };
      const closing = performance.now();
      await cluster.redis.command('PUBLISH', 'meeting_updates', JSON.stringify(ended));
      const isEnd = ({ event, type }) => event === 'meeting_update' && type === 'meeting.ended';
      for (const { heard } of users) await heard.some(isEnd);
      const say = (socket, n) => ask(socket, 'chat_message', { meeting_id: 'clock', text: `still ${n}` });
      for (const socket of users) await accepted(say(socket, 1));
      for (const socket of users) {
        await eventually(async () => assert.equal((await say(socket, 2)).error?.code, 'room_closed'), 20_000);
      }
      const closed = performance.now() - closing;
      assert.ok(closed > 4500 && closed < 15_000, `closed after ${closed} ms instead of 6000`);

      // What was logged, by whom ever, has times near the real one, and none before the one in front of it.
      for (const { heard } of users) {
        let before = 0;
        for (const { ts, seq } of heard.items) {
          assert.ok(Math.abs(ts - Date.now()) < 120_000, `${seq}: ts is ${(ts - Date.now()) / 1000} s off`);
          assert.ok(ts >= before, `${seq}: ts went back by ${before - ts} ms`);
          before = ts;
        }
      }

      // Longer than two heartbeats: nobody takes the others for dead.
      await time(Math.max(0, 35_000 - (performance.now() - crowd.history.start)));
      for (const socket of users) {
        const { users: there } = await accepted(ask(socket, 'get_presence', { meeting_id: 'clock' }));
        assert.deepEqual(there.map(({ id }) => id).sort(), recipients);
        const left = socket.seen.items.filter(({ event, user }) => event === 'leave' && user.id !== 'twin');
        assert.deepEqual(left, [], 'nobody has left');
        for (const { since } of there) {
          assert.ok(Math.abs(since - Date.now()) < 300_000, `since is ${(since - Date.now()) / 1000} s off`);
        }
      }
    });
    for (const { items, meeting } of history.of('log')) {
      items.reduce((before, { ts, seq }) => {
        assert.ok(ts >= before, `${meeting} ${seq}: ts went back by ${before - ts} ms`);
        return ts;
      }, 0);
    }
  });
});

const pick = (value, ...names) => Object.fromEntries(names.map((name) => [name, value[name]]));

/** Settings of an instance whose clock is off by `offset`, as libfaketime takes it. Timers are not touched. */
function faked(offset) {
  const library = ['x86_64', 'aarch64']
    .map((machine) => `/usr/lib/${machine}-linux-gnu/faketime/libfaketime.so.1`)
    .find((path) => existsSync(path));
  assert.ok(library, 'libfaketime is not installed: apt-get install faketime');
  return { LD_PRELOAD: library, FAKETIME: offset, FAKETIME_DONT_FAKE_MONOTONIC: '1', DONT_FAKE_MONOTONIC: '1' };
}
