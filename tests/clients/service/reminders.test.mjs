// Promise: a meeting is announced before it begins, once at each offset, at the time that is the latest known.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { WITH_TOKENS, enter } from '../support/jwt.mjs';
import { Rest, WITH_KEY } from '../support/rest.mjs';
import { startService } from '../support/server.mjs';
import { ask, assertHas, record } from '../support/wait.mjs';

/** From the first to the last of a meeting's reminders, in ms. */
const OFFSETS_MS = [3000, 1000, 0];
const SETTINGS = { ...WITH_TOKENS, ...WITH_KEY, REMINDERS: '3s,1s,0s' };
/** From an update to the meeting's beginning: so much more than the first offset may be lost on a busy machine. */
const AHEAD_MS = 7000;
/** Of a wait for a reminder: longer than the usual one by the time that it is ahead. */
const PATIENCE_MS = 30_000;

let service;
let last = 0;
const fresh = (name) => `${name}-${++last}`;
before(async () => (service = await startService(SETTINGS)));
after(() => service.stop());

const update = (body) => Rest.sibling(service).update({ id: fresh('event'), ...body });

/** An offset of a reminder, as a duration (`3s`, `1000ms`) or a number of ms, in ms. */
function offsetMs(offset) {
  if (Number.isInteger(offset)) return offset;
  const [, count, unit] = /^(\d+)(ms|s|m|h|d)$/.exec(offset) ?? assert.fail(`offset ${JSON.stringify(offset)}`);
  return Number(count) * { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }[unit];
}

const isReminder = (event) => (event.type ?? event.kind) === 'meeting.reminder';
/** The reminders among what was recorded. */
const reminders = ({ items }) => items.filter(isReminder);

/** A meeting, somebody in its room, and a recipient outside, with what they are told. */
async function meeting(t) {
  const meeting_id = fresh('meeting');
  const user = fresh('recipient');
  const member = await enter(t, service, fresh('member'));
  assertHas(await ask(member, 'join_room', { meeting_id }), { ok: true });
  const recipient = await enter(t, service, user);
  const room = record(member, 'meeting_update');
  const inbox = record(recipient, 'notification');
  /** Waits until both were told of the last one, for a beginning at `starts_at`. */
  const begun = async (starts_at) => {
    const isLast = (event) =>
      isReminder(event) && event.data?.starts_at === starts_at && offsetMs(event.data.offset) === 0;
    await Promise.all([room.some(isLast, PATIENCE_MS), inbox.some(isLast, PATIENCE_MS)]);
  };
  return { meeting_id, recipients: [user], room, inbox, begun };
}

/** That these are the reminders of a meeting that begins at `starts_at`: each once, in order, none before its time. */
function assertAll(events, meeting_id, starts_at) {
  assert.deepEqual(
    events.map((event) => offsetMs(event.data.offset)),
    OFFSETS_MS,
  );
  for (const event of events) {
    assert.equal(event.meeting_id, meeting_id);
    assert.deepEqual(Object.keys(event.data).sort(), ['in_ms', 'offset', 'starts_at']);
    assert.equal(event.data.starts_at, starts_at);
    const due = offsetMs(event.data.offset);
    assert.ok(event.data.in_ms <= due + 50 && event.data.in_ms > due - PATIENCE_MS, `${event.data.in_ms} of ${due}`);
    assert.ok(event.ts >= starts_at - due - 50, `${starts_at - due - event.ts} ms too early`);
  }
}

/** Another meeting that begins later: when its last reminder came, one that was to come before it would have. */
async function clock(t, starts_at) {
  const { meeting_id, recipients, begun } = await meeting(t);
  await update({ type: 'meeting.created', meeting_id, recipients, starts_at });
  return begun(starts_at);
}

// At once, as each of them is mostly waiting.
describe('a meeting', { concurrency: true }, () => {
  const forms = [
    ['milliseconds', (at) => at],
    ['RFC 3339', (at) => new Date(at).toISOString()],
    ['RFC 3339 with an offset', (at) => new Date(at + 2 * 3_600_000).toISOString().replace('Z', '+02:00')],
  ];
  for (const [name, form] of forms) {
    test(`that is created with its beginning in ${name} is announced to room and recipients`, async (t) => {
      const { meeting_id, recipients, room, inbox, begun } = await meeting(t);
      const starts_at = Date.now() + AHEAD_MS;
      await update({
        type: 'meeting.created',
        meeting_id,
        recipients,
        starts_at: form(starts_at),
        data: { title: 'x' },
      });
      await begun(starts_at);
      assertAll(reminders(room), meeting_id, starts_at);
      assertAll(reminders(inbox), meeting_id, starts_at);
      for (const event of reminders(room)) assert.ok(Number.isInteger(event.seq), `seq ${event.seq}`);
    });
  }

  test('whose reminders are kept tells those who come later', async (t) => {
    const { meeting_id, recipients, begun } = await meeting(t);
    const starts_at = Date.now() + AHEAD_MS;
    const offline = fresh('offline');
    await update({ type: 'meeting.created', meeting_id, recipients: [...recipients, offline], starts_at });
    await begun(starts_at);
    const socket = await enter(t, service, offline);
    const { items } = await ask(socket, 'notifications_get', {});
    assert.equal(items.filter(isReminder).length, OFFSETS_MS.length);
  });

  test('that is reported twice is announced once', async (t) => {
    const { meeting_id, recipients, room, inbox, begun } = await meeting(t);
    const starts_at = Date.now() + AHEAD_MS;
    const body = { id: fresh('event'), type: 'meeting.created', meeting_id, recipients, starts_at };
    for (let n = 0; n < 3; n++) await update(body);
    const later = clock(t, starts_at + 1000);
    await begun(starts_at);
    await later;
    assertAll(reminders(room), meeting_id, starts_at);
    assertAll(reminders(inbox), meeting_id, starts_at);
  });

  for (const type of ['meeting.rescheduled', 'meeting.updated']) {
    for (const [name, by] of [
      ['later', 3000],
      ['earlier', -15_000],
    ]) {
      test(`that begins ${name} by ${type} is announced for its new time only`, async (t) => {
        const { meeting_id, recipients, room, inbox, begun } = await meeting(t);
        const first = Date.now() + AHEAD_MS + Math.max(0, -by);
        await update({ type: 'meeting.created', meeting_id, recipients, starts_at: first });
        const second = first + by;
        await update({ type, meeting_id, recipients, starts_at: second });
        const later = clock(t, Math.max(second, by > 0 ? first : 0) + 1000);
        await begun(second);
        await later;
        assertAll(reminders(room), meeting_id, second);
        assertAll(reminders(inbox), meeting_id, second);
      });
    }
  }

  test('that is updated without a new beginning keeps its reminders', async (t) => {
    const { meeting_id, recipients, room, inbox, begun } = await meeting(t);
    const starts_at = Date.now() + AHEAD_MS;
    await update({ type: 'meeting.created', meeting_id, recipients, starts_at });
    await update({ type: 'meeting.updated', meeting_id, recipients, data: { title: 'new' } });
    await begun(starts_at);
    assertAll(reminders(room), meeting_id, starts_at);
    assertAll(reminders(inbox), meeting_id, starts_at);
  });

  for (const type of ['meeting.cancelled', 'meeting.deleted', 'meeting.started', 'meeting.ended']) {
    test(`is not announced any more after ${type}`, async (t) => {
      const { meeting_id, recipients, room, inbox } = await meeting(t);
      const starts_at = Date.now() + AHEAD_MS;
      await update({ type: 'meeting.created', meeting_id, recipients, starts_at });
      await update({ type, meeting_id, recipients });
      await clock(t, starts_at + 1000);
      assert.deepEqual(reminders(room), []);
      assert.deepEqual(reminders(inbox), []);
      assertHas(room.items[0], { type });
    });
  }

  test('that began long ago is not announced', async (t) => {
    const { meeting_id, recipients, room, inbox } = await meeting(t);
    await update({ type: 'meeting.created', meeting_id, recipients, starts_at: Date.now() - 3_600_000 });
    await clock(t, Date.now() + AHEAD_MS);
    assert.deepEqual([reminders(room), reminders(inbox)], [[], []]);
  });

  test('that begins in the far future does no harm', async (t) => {
    const { meeting_id, recipients, room } = await meeting(t);
    for (const starts_at of [Number.MAX_SAFE_INTEGER, Date.now() + 10 * 365 * 86_400_000]) {
      await update({ type: 'meeting.created', meeting_id, recipients, starts_at });
    }
    await clock(t, Date.now() + AHEAD_MS);
    assert.deepEqual(reminders(room), []);
  });

  test('of another is announced to nobody here', async (t) => {
    const { room, inbox } = await meeting(t);
    await clock(t, Date.now() + AHEAD_MS);
    assert.deepEqual([reminders(room), reminders(inbox)], [[], []]);
  });
});
