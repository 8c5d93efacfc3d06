// Promise: a reminder is sent once by the whole cluster, by whichever instances are left.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { as, fresh, history, member, range } from '../support/chat.mjs';
import { asUser, startCluster } from '../support/interop/cluster.mjs';
import { eventually, record, time } from '../support/wait.mjs';

const SETTINGS = { REMINDERS: '1s,0s' };
const OFFSETS = ['1s', '0s'];
/** From an update to the meeting's beginning: so much more than the first offset may be lost on a busy machine. */
const AHEAD_MS = 5000;
/** Of a wait for a reminder: longer than the usual one by the time that it is ahead. */
const PATIENCE_MS = 30_000;
/** What an instance has taken is another one's 30 s later. */
const TAKEN_OVER_MS = 90_000;

let cluster;
let redis;
before(async () => {
  cluster = await startCluster({ instances: 3, settings: SETTINGS });
  redis = await cluster.redis.client();
});
after(() => cluster.stop());

const publish = (client, update) =>
  client.publish('meeting_updates', JSON.stringify({ id: fresh('update'), ...update }));
const isReminder = (event) => (event.type ?? event.kind) === 'meeting.reminder';
const offsets = (events) => events.filter(isReminder).map(({ data }) => data.offset);
const inbox = async (service, user) => (await asUser(service, user).get('/notifications')).json().items;

/** A meeting with a member on each instance, and a recipient with a device on each. */
async function scene(t) {
  const [meeting, recipient] = [fresh(), fresh('recipient')];
  const members = [];
  const devices = [];
  for (const service of cluster.services) {
    members.push(record(await member(t, service, meeting), 'meeting_update'));
    devices.push(record(await as(t, service, recipient), 'notification'));
  }
  const isLast = (starts_at) => (event) =>
    isReminder(event) && event.data.offset === OFFSETS.at(-1) && event.data.starts_at === starts_at;
  /** Waits until all were told of the last one for a beginning at `starts_at`. */
  const begun = (starts_at) =>
    Promise.all([...members, ...devices].map(({ some }) => some(isLast(starts_at), PATIENCE_MS)));
  return { meeting, recipient, members, devices, begun };
}

/** Another meeting that begins later: when its last reminder came, one that was to come before it would have. */
async function clock(t, starts_at) {
  const { meeting, recipient, begun } = await scene(t);
  await publish(redis, { type: 'meeting.created', meeting_id: meeting, recipients: [recipient], starts_at });
  await begun(starts_at);
}

// At once, as each of them is mostly waiting.
describe('a meeting', { concurrency: true }, () => {
  test('is announced once at each offset, to room and recipients on all instances', async (t) => {
    const { meeting, recipient, members, devices, begun } = await scene(t);
    const away = fresh('away');
    const starts_at = Date.now() + AHEAD_MS;
    const recipients = [recipient, away];
    await publish(redis, { type: 'meeting.created', meeting_id: meeting, recipients, starts_at, title: 'Daily' });
    await Promise.all([begun(starts_at), clock(t, starts_at + 1000)]);
    for (const { items } of members) {
      assert.deepEqual(offsets(items), OFFSETS);
      assert.deepEqual(items.map(({ seq }) => seq), [1, 2]); // prettier-ignore
    }
    for (const { items } of devices) {
      assert.deepEqual(offsets(items), OFFSETS);
      assert.deepEqual(items, devices[0].items);
    }
    const [service] = cluster.services;
    assert.deepEqual(offsets(await inbox(service, away)).sort(), [...OFFSETS].sort());
    assert.deepEqual(offsets(await history(await member(t, service, meeting), meeting)), OFFSETS);
  });

  test('that was moved is announced for its new time only', async (t) => {
    const { meeting, recipient, members, begun } = await scene(t);
    const first = Date.now() + AHEAD_MS;
    const second = first + 2000;
    const recipients = [recipient];
    await publish(redis, { type: 'meeting.created', meeting_id: meeting, recipients, starts_at: first });
    await publish(redis, { type: 'meeting.rescheduled', meeting_id: meeting, recipients, starts_at: second });
    await begun(second);
    for (const { items } of members) {
      const times = items.filter(isReminder).map(({ data }) => data.starts_at);
      assert.deepEqual(times, [second, second]);
    }
  });

  for (const type of ['meeting.cancelled', 'meeting.started']) {
    test(`is not announced any more after ${type}`, async (t) => {
      const { meeting, recipient, members, devices } = await scene(t);
      const starts_at = Date.now() + AHEAD_MS;
      const recipients = [recipient];
      await publish(redis, { type: 'meeting.created', meeting_id: meeting, recipients, starts_at });
      await publish(redis, { type, meeting_id: meeting, recipients });
      await clock(t, starts_at + 1000);
      for (const { items } of [...members, ...devices]) assert.deepEqual(offsets(items), []);
    });
  }

  test('is one of many that begin at once, and each is announced once', async (t) => {
    const [service] = cluster.services;
    const user = fresh('user');
    const meetings = range(1, 40).map(() => fresh());
    const starts_at = Date.now() + AHEAD_MS;
    const created = { type: 'meeting.created', recipients: [user], starts_at };
    await Promise.all(meetings.map((meeting_id) => publish(redis, { ...created, meeting_id })));
    await clock(t, starts_at + 1000);
    const socket = await as(t, service, user);
    for (const meeting of meetings) assert.deepEqual(offsets(await history(socket, meeting)), OFFSETS, meeting);
    const { notifications } = socket.ready.unread;
    assert.equal(notifications, meetings.length * (1 + OFFSETS.length));
  });

  test('is announced by the others if the instance that heard of it first ended', async (t) => {
    const own = await startCluster({ instances: 2, settings: SETTINGS });
    t.after(() => own.stop());
    const client = await own.redis.client();
    const [meeting, user] = [fresh(), fresh('user')];
    const starts_at = Date.now() + AHEAD_MS;
    await publish(client, { type: 'meeting.created', meeting_id: meeting, recipients: [user], starts_at });
    const [first, second] = own.services;
    for (const service of [first, second]) {
      await eventually(async () => assert.equal((await inbox(service, user)).length, 1));
    }
    await own.killOne(first);
    await eventually(async () => {
      assert.deepEqual(offsets(await inbox(second, user)).sort(), [...OFFSETS].sort());
    }, PATIENCE_MS);
  });

  test('is announced by the others, once, if the instance that was about it was killed', async (t) => {
    const own = await startCluster({ instances: 1, settings: { ...SETTINGS, REMINDERS: '0s' } });
    t.after(() => own.stop());
    const client = await own.redis.client();
    let user;
    let meetings;
    let told;
    /** Many meetings begin at once, and the instance stands still with the first reminder: is it not the last one? */
    const isCaught = async () => {
      user = fresh('user');
      meetings = range(1, 60).map(() => fresh());
      // A crowd, so that it takes its time.
      const recipients = [...range(1, 40).map((n) => `crowd-${n}`), user];
      // After all of them were heard of, however slow the machine is.
      const starts_at = Date.now() + 12_000;
      const created = { type: 'meeting.created', recipients, starts_at };
      told = record(await as(t, own.services[0], user), 'notification');
      for (const meeting_id of meetings) await publish(client, { ...created, meeting_id });
      await told.count(meetings.length);
      await told.some(isReminder, PATIENCE_MS);
      own.services[0].signal('SIGSTOP');
      // What it has sent is heard.
      await time(300);
      if (told.items.filter(isReminder).length < meetings.length) return true;
      own.services[0].signal('SIGCONT');
      return false;
    };
    for (let tries = 1; !(await isCaught()); tries++) assert.ok(tries < 5, 'it is always too late to kill it');
    await own.kill();
    await Promise.all([own.add(), own.add()]);
    const socket = await as(t, own.services[0], user);
    await eventually(async () => {
      const { notifications } = (await asUser(own.services[1], user).get('/unread')).json();
      assert.equal(notifications, 2 * meetings.length);
    }, TAKEN_OVER_MS);
    for (const meeting of meetings) assert.deepEqual(offsets(await history(socket, meeting)), ['0s'], meeting);
    assert.ok(told.items.filter(isReminder).length < meetings.length, 'it was killed too late');
  });

  test('is announced late, and once, if no instance ran when it began', async (t) => {
    const own = await startCluster({ instances: 1, settings: SETTINGS });
    t.after(() => own.stop());
    const client = await own.redis.client();
    const [meeting, user] = [fresh(), fresh('user')];
    const starts_at = Date.now() + AHEAD_MS;
    await publish(client, { type: 'meeting.created', meeting_id: meeting, recipients: [user], starts_at });
    await eventually(async () => assert.equal((await inbox(own.services[0], user)).length, 1));
    await own.kill();
    await time(Math.max(0, starts_at + 500 - Date.now()));
    await Promise.all([own.add(), own.add(), own.add()]);
    // Reminders of others are looked for every 10 s.
    await eventually(async () => {
      assert.ok(offsets(await inbox(own.services[0], user)).includes('0s'));
    }, PATIENCE_MS);
    const next = Date.now() + 2000;
    await publish(client, { type: 'meeting.created', meeting_id: fresh(), recipients: [user], starts_at: next });
    await eventually(async () => {
      const all = (await inbox(own.services[0], user)).filter(isReminder);
      assert.ok(all.some(({ data }) => data.starts_at === next && data.offset === '0s'));
      const late = offsets(all.filter(({ data }) => data.starts_at === starts_at));
      assert.equal(new Set(late).size, late.length, `each once: ${late}`);
    }, PATIENCE_MS);
  });
});
