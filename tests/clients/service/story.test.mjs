// Promise: whatever connections do, a meeting is one conversation: everybody has all of it, once, in one order.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { describe, test } from 'node:test';

import { startService } from '../support/server.mjs';
import { check } from '../support/story/checker.mjs';
import { tell } from '../support/story/story.mjs';
import { WITH_USERS } from '../support/token.mjs';
import { eventually } from '../support/wait.mjs';

const SECONDS = Number(process.env.STORY_SECONDS ?? 60);
const SEED = Number(process.env.STORY_SEED ?? Date.now() % 2 ** 32);
const API_KEY = 'key-of-the-meeting-service-0123456789';

/** Sessions whose client vanished between two polls end with the next ping that is not answered. */
const SETTINGS = {
  ...WITH_USERS,
  CHAT_API_KEY: API_KEY,
  PING_INTERVAL_MS: '5000',
  PING_TIMEOUT_MS: '10000',
  MAX_SOCKETS_PER_USER: '0',
};
/** Until the last of those sessions is gone, on a slow machine. */
const GONE_MS = 60_000;

async function story(t, seconds, historySize, cast) {
  t.diagnostic(`STORY_SEED=${SEED} STORY_SECONDS=${seconds} HISTORY_SIZE=${historySize}`);
  const service = await startService({ ...SETTINGS, HISTORY_SIZE: String(historySize) });
  try {
    const told = await tell(t, service, { seed: SEED, seconds, historySize, apiKey: API_KEY, ...cast });
    const { faults, counts } = check(told);
    t.diagnostic(JSON.stringify(counts));
    if (faults.length > 0 && process.env.STORY_DUMP) writeFileSync(process.env.STORY_DUMP, JSON.stringify(told));
    assert.deepEqual(faults, [], `with STORY_SEED=${SEED}\n${faults.join('\n')}`);
    await eventually(async () => {
      const metrics = await service.metrics();
      assert.deepEqual([metrics.rooms(), metrics.sessions(), metrics.panics()], [0, 0, 0], 'rooms, sessions, panics');
    }, GONE_MS);
    return { told, counts };
  } finally {
    await service.stop();
  }
}

test('sixty clients of three releases and two languages, cut at random, share eight meetings', async (t) => {
  const { counts, told } = await story(t, SECONDS, 100_000, { acked: 500, cuts: 100 });
  const python = told.clients.filter(({ name }) => name.startsWith('py'));
  assert.equal(python.length, 10);
  for (const { name, records } of python) {
    assert.ok(
      records.some((record) => 'ack' in record) && records.some((record) => 'event' in record),
      `${name} took part`,
    );
  }
  for (const count of ['acked', 'cuts', 'resumed', 'duplicates', 'lostAcks', 'left'])
    assert.ok(counts[count] > 0, count);
});

test('a log that keeps little: what cannot be recovered is said so, and what is left is read by pages', async (t) => {
  const cast = { devices: 16, python: 4, meetingCount: 3, userCount: 12, acked: 150, cuts: 30 };
  const { told, counts } = await story(t, Math.min(SECONDS, 10), 10, cast);
  const reasons = told.clients.flatMap(({ records }) => records.map(({ answer }) => answer?.reason));
  assert.ok(reasons.includes('window'), 'something was lost');
  assert.ok(counts.resumed > 0 && counts.paged > 0);
});

describe('the checker', () => {
  const EPOCH = 'epochepoch12';
  const M = 'm';
  const id = (n) => `01ARZ3NDEKTSV4RRFFQ69G5F${String(n).padStart(2, '0')}`;

  /** A log of five: two messages of ann's, one of bob's that answers ann and mentions her, an edit, and a reaction. */
  const LOG = [
    { event: 'chat_message', id: id(1), sender: 'ann', text: 'one', client_id: 'a-1', ts: 1 },
    { event: 'chat_message', id: id(2), sender: 'ann', text: 'two', client_id: 'a-2', ts: 2, meta: { n: 1 } },
    {
      event: 'chat_message',
      id: id(3),
      sender: 'bob',
      text: 'three',
      client_id: 'b-1',
      ts: 3,
      mentions: ['ann'],
      reply_to: id(1),
    },
    { event: 'message_edited', id: id(1), text: 'ONE', version: 1, editor: 'ann', ts: 4 },
    { event: 'message_reaction', id: id(2), user_id: 'bob', emoji: '👍', removed: false, count: 1, ts: 5 },
  ].map((event, n) => ({ ...event, seq: n + 1, epoch: EPOCH, meeting_id: M }));

  const live = (seq) => {
    const { event, ...payload } = structuredClone(LOG[seq - 1]);
    return { event, payload };
  };
  let asks = 0;
  const asked = (event, payload, answer) => {
    const n = ++asks;
    return [
      { ask: event, n, payload },
      { ack: n, answer: { ok: true, ...answer } },
    ];
  };
  const joined = (seq, { since, events, recovered, limit, reason } = {}) =>
    asked(
      'join_room',
      {
        meeting_id: M,
        ...(since !== undefined && { since: { epoch: EPOCH, seq: since } }),
        ...(limit !== undefined && { limit }),
      },
      {
        meeting_id: M,
        epoch: EPOCH,
        seq,
        first_seq: 1,
        members: 1,
        events: structuredClone(events ?? []),
        ...(recovered !== undefined && { recovered }),
        ...(reason && { reason }),
      },
    );
  const said = (seq, duplicate) => {
    const { id: message, ts, client_id, text, meta, mentions, reply_to } = LOG[seq - 1];
    const payload = structuredClone({ meeting_id: M, text, client_id, meta, mentions, reply_to });
    return asked('chat_message', payload, { id: message, seq, epoch: EPOCH, ts, duplicate });
  };
  const left = () => asked('leave_room', { meeting_id: M }, {});
  const page = (after, to) =>
    asked(
      'get_history',
      { meeting_id: M, after_seq: after, limit: to - after },
      { epoch: EPOCH, first_seq: 1, top_seq: 5, items: structuredClone(LOG.slice(after, to)), has_more: to < 5 },
    );
  const notice = {
    id: 'notice-1',
    nseq: 1,
    kind: 'chat.mention',
    meeting_id: M,
    actor_id: 'bob',
    data: { message_id: id(3), seq: 3, epoch: EPOCH },
    ts: 3,
    read: false,
  };

  /** A story without a fault, new each time: ann stays; bob is cut, resumes, says one thing twice; cid reads pages. */
  function good() {
    const [askOne] = said(3, false);
    return {
      historySize: 1000,
      clients: [
        {
          name: 'ann-1',
          user: 'ann',
          records: [
            { connected: 'A' },
            ...joined(0),
            live(1),
            ...said(1, false),
            live(2),
            ...said(2, false),
            live(3),
            { event: 'notification', payload: structuredClone(notice) },
            live(4),
            ...asked('edit_message', { meeting_id: M, id: id(1), text: 'ONE' }, { seq: 4, version: 1 }),
            live(5),
            ...asked('mark_read', { meeting_id: M, seq: 1 }, { seq: 1 }),
            { final: true },
          ],
        },
        {
          name: 'bob-1',
          user: 'bob',
          records: [
            { connected: 'B' },
            ...joined(0),
            live(1),
            askOne,
            { cut: 'destroy' },
            { gone: 'transport close' },
            { connected: 'C' },
            ...joined(3, { since: 1, recovered: true, events: LOG.slice(1, 3) }),
            ...said(3, true),
            live(4),
            live(5),
            ...asked('react', { meeting_id: M, id: id(2), emoji: '👍' }, { seq: 5 }),
            { final: true },
          ],
        },
        {
          name: 'cid-1',
          user: 'cid',
          records: [
            { connected: 'D' },
            ...joined(0),
            live(1),
            ...left(),
            ...joined(4, { since: 1, limit: 2, recovered: false, reason: 'too_many' }),
            ...page(1, 3),
            live(5),
            ...page(3, 5),
            ...left(),
            { final: true },
          ],
        },
        {
          // Is cut between two pages: what it has read by then stays read.
          name: 'cid-2',
          user: 'cid',
          records: [
            { connected: 'E' },
            ...joined(0),
            live(1),
            ...left(),
            ...joined(4, { since: 1, limit: 2, recovered: false, reason: 'too_many' }),
            ...page(1, 2),
            live(5),
            { gone: 'transport error' },
            { connected: 'F' },
            ...joined(5, { since: 2, recovered: true, events: LOG.slice(2) }),
            { final: true },
          ],
        },
      ],
      logs: { [M]: { epoch: EPOCH, first_seq: 1, top_seq: 5, items: structuredClone(LOG) } },
      marks: { ann: { [M]: 1 }, bob: { [M]: 0 }, cid: { [M]: 0 } },
      unread: {
        ann: { notifications: 1, meetings: { [M]: 1 } },
        bob: { notifications: 0, meetings: { [M]: 2 } },
        cid: { notifications: 0, meetings: { [M]: 3 } },
      },
      inboxes: {
        ann: { items: [structuredClone(notice)], unread: 1 },
        bob: { items: [], unread: 0 },
        cid: { items: [], unread: 0 },
      },
    };
  }

  const isLive = (seq) => (record) =>
    record.payload?.seq === seq && record.event !== undefined && record.event !== 'notification';
  const client = (told, name) => told.clients.find((one) => one.name === name).records;
  const indexOf = (records, test) => {
    const index = records.findIndex(test);
    assert.ok(index >= 0, 'the fault has a place');
    return index;
  };
  const ackOf = (records, event, last = false) => {
    const asks = records.filter((record) => record.ask === event);
    const { n } = asks.at(last ? -1 : 0);
    return records.find((record) => record.ack === n).answer;
  };
  const joinOfBob = (told) => ackOf(client(told, 'bob-1'), 'join_room', true);

  test('finds no fault where there is none', () => {
    const { faults, counts } = check(good());
    assert.deepEqual(faults, []);
    const { acked, cuts, resumed, duplicates, lostAcks } = counts;
    assert.deepEqual(
      { acked, cuts, resumed, duplicates, lostAcks },
      { acked: 3, cuts: 1, resumed: 2, duplicates: 1, lostAcks: 1 },
    );
  });

  test('takes an erased text for what it is', () => {
    const told = good();
    const { seq: at } = LOG[1];
    const { meta, ...rest } = LOG[1];
    const deletion = {
      event: 'message_deleted',
      id: id(2),
      seq: 6,
      epoch: EPOCH,
      meeting_id: M,
      deleted_by: 'ann',
      ts: 6,
    };
    told.logs[M].items[at - 1] = { ...rest, text: '', deleted: true };
    told.logs[M].items.push(deletion);
    told.logs[M].top_seq = 6;
    for (const { records, name } of told.clients) {
      const { event, ...payload } = deletion;
      if (name !== 'cid-1') records.splice(-1, 0, { event, payload });
    }
    assert.deepEqual(check(told).faults, []);
    told.logs[M].items[at - 1] = { ...LOG[1] };
    assert.match(check(told).faults.join('\n'), /shown a text that 6 had deleted/);
  });

  const plants = [
    [
      'a delivery that is dropped',
      /missing/,
      (told) => {
        const records = client(told, 'ann-1');
        records.splice(indexOf(records, isLive(3)), 1);
      },
    ],
    [
      'the last delivery dropped',
      /up to 4 of 5/,
      (told) => {
        const records = client(told, 'bob-1');
        records.splice(indexOf(records, isLive(5)), 1);
      },
    ],
    [
      'a delivery that comes twice',
      /again/,
      (told) => {
        const records = client(told, 'ann-1');
        records.splice(indexOf(records, isLive(3)), 0, live(3));
      },
    ],
    [
      'a delivery live that the join has brought',
      /again/,
      (told) => {
        const records = client(told, 'bob-1');
        records.splice(indexOf(records, isLive(4)), 0, live(3));
      },
    ],
    [
      'two deliveries that are swapped',
      /missing/,
      (told) => {
        const records = client(told, 'ann-1');
        const [one, two] = [indexOf(records, isLive(2)), indexOf(records, isLive(3))];
        [records[one], records[two]] = [records[two], records[one]];
      },
    ],
    [
      'a delivery after leaving',
      /without being in it/,
      (told) => {
        const records = client(told, 'cid-1');
        records.splice(-1, 0, live(5));
      },
    ],
    [
      'a delivery to one who never joined',
      /without being in it/,
      (told) => {
        told.clients.push({ name: 'dan-1', user: 'dan', records: [{ connected: 'E' }, live(1), { final: true }] });
      },
    ],
    [
      'typing that is told after leaving',
      /typing of m without being in it/,
      (told) => {
        const payload = { meeting_id: M, user_id: 'ann', name: 'ann', active: true };
        client(told, 'cid-1').splice(-1, 0, { event: 'typing', payload });
      },
    ],
    [
      'a text that is altered live',
      /ann-1 \(live\) has/,
      (told) => {
        client(told, 'ann-1').find(isLive(3)).payload.text = 'thrEe';
      },
    ],
    [
      'a text that is altered everywhere',
      /was sent and/,
      (told) => {
        const alter = (value) => {
          if (value?.seq === 3 && value.text) value.text = 'thrEe';
          for (const member of Object.values(value ?? {})) if (typeof member === 'object') alter(member);
        };
        alter(told);
      },
    ],
    [
      'a text that is altered in a join',
      /bob-1 \(join\) has/,
      (told) => {
        joinOfBob(told).events[0].text = 'TWO';
      },
    ],
    [
      'a text that is altered in a page',
      /cid-1 \(page\) has/,
      (told) => {
        ackOf(client(told, 'cid-1'), 'get_history').items[0].text = 'TWO';
      },
    ],
    [
      'an event that a resume leaves out',
      /instead of 2 to 3|stands where/,
      (told) => {
        joinOfBob(told).events.shift();
      },
    ],
    [
      'a resume that did not recover though it could',
      /"recovered":false/,
      (told) => {
        Object.assign(joinOfBob(told), { recovered: false, events: [], reason: 'window' });
      },
    ],
    [
      'a hole that was not filled',
      /missing at the end|up to/,
      (told) => {
        const records = client(told, 'cid-1');
        records.splice(
          indexOf(records, (record) => record.ask === 'get_history'),
          2,
        );
        records.splice(
          records.findLastIndex((record) => record.ask === 'leave_room'),
          2,
        );
      },
    ],
    [
      'an acked message that is not in the log',
      /acked at 9/,
      (told) => {
        ackOf(client(told, 'ann-1'), 'chat_message').seq = 9;
      },
    ],
    [
      'a message that was never acked',
      /never acked/,
      (told) => {
        client(told, 'ann-1').splice(1, 0, {
          ask: 'chat_message',
          n: 0,
          payload: { meeting_id: M, text: 'x', client_id: 'a-9' },
        });
      },
    ],
    [
      'a repeat that was told another seq',
      /acked as/,
      (told) => {
        const records = client(told, 'ann-1');
        const [ask, ack] = said(1, true);
        ack.answer.seq = 2;
        records.splice(-1, 0, ask, ack);
      },
    ],
    [
      'a repeat that is new again',
      /2 acks say that it was new/,
      (told) => {
        client(told, 'ann-1').splice(-1, 0, ...said(1, false));
      },
    ],
    [
      'a message that is logged twice',
      /logged twice/,
      (told) => {
        for (const { payload } of client(told, 'ann-1')) if (payload?.seq === 2) payload.client_id = 'a-1';
        for (const events of [
          told.logs[M].items,
          joinOfBob(told).events,
          ackOf(client(told, 'cid-1'), 'get_history').items,
        ]) {
          for (const event of events) if (event.seq === 2) event.client_id = 'a-1';
        }
      },
    ],
    [
      'another epoch',
      /epoch/,
      (told) => {
        client(told, 'ann-1').find(isLive(3)).payload.epoch = 'another12345';
      },
    ],
    [
      'an edit by somebody else',
      /did not write it/,
      (told) => {
        const edits = [
          told.logs[M].items[3],
          ...told.clients.flatMap(({ records }) => records.filter(isLive(4)).map(({ payload }) => payload)),
        ];
        for (const edit of [...edits, ackOf(client(told, 'cid-1'), 'get_history', true).items[0]]) edit.editor = 'bob';
      },
    ],
    ['a count of unread messages', /unread in m/, (told) => void (told.unread.cid.meetings[M] = 2)],
    [
      'a mark that went back',
      /was 4/,
      (told) => {
        client(told, 'ann-1').splice(-1, 0, ...asked('mark_read', { meeting_id: M, seq: 4 }, { seq: 4 }));
      },
    ],
    ['a notification that is not in the inbox', /lacks/, (told) => void (told.inboxes.ann = { items: [], unread: 0 })],
    [
      'a notification twice',
      /notification 1 after 1/,
      (told) => {
        client(told, 'ann-1').splice(-1, 0, { event: 'notification', payload: structuredClone(notice) });
      },
    ],
    [
      'a refusal',
      /refused/,
      (told) => {
        client(told, 'bob-1').push(
          ...asked('leave_room', { meeting_id: M }, { ok: false, error: { code: 'internal' } }),
        );
      },
    ],
    ['a client that never came to the end', /never came to the end/, (told) => void client(told, 'ann-1').pop()],
    [
      'an ack nobody waits for',
      /nobody waits for/,
      (told) => void client(told, 'ann-1').splice(-1, 0, { ack: -1, answer: { ok: true } }),
    ],
  ];
  for (const [name, words, plant] of plants) {
    test(`finds ${name}`, () => {
      const told = good();
      plant(told);
      assert.match(check(told).faults.join('\n'), words);
    });
  }
});
